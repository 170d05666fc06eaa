"""The Stripe budget: rate limits, slots and locks for Stripe calls, shared by every process.

``limiter.Budget`` admits a ``call`` by acquiring a ``permit`` under the limits of ``policy``.
``redis_limiter`` runs the scripts in ``scripts`` over the keys that ``state`` names and reads;
``local_fallback`` limits a process while Redis is down, and a command that uses none.
"""

from billing.budget.limiter import Budget
from billing.budget.local_fallback import UnlimitedBudget
from billing.budget.permit import CallOutcome, Lane

__all__ = ["Budget", "CallOutcome", "Lane", "UnlimitedBudget"]
