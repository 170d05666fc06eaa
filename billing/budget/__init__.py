"""The Stripe budget: one allowance of calls, shared by every process.

``Budget`` (in ``budget``) admits a ``call``; ``passage`` says in whose lane and how it ended, ``policy`` what
may be admitted, ``shared`` asks the scripts in ``scripts`` over the keys that ``state`` names and reads, and
``alone`` is what a process does when Redis cannot be reached, and a command that has none.
"""

from billing.budget.limiter import Budget
from billing.budget.local_fallback import Unshared
from billing.budget.permit import CallOutcome, Lane

__all__ = ["Budget", "CallOutcome", "Lane", "Unshared"]
