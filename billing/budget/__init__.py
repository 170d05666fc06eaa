"""The Stripe budget: one allowance of calls, shared by every process.

``Budget`` (in ``budget``) admits, over the scripts in ``scripts`` and the keys that ``state`` names and
reads; ``policy`` is what it may admit; ``alone`` is what a process does when Redis cannot be reached.
"""

from billing.budget.budget import Budget, Lane, Outcome

__all__ = ["Budget", "Lane", "Outcome"]
