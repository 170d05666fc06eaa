"""One call's way past Stripe's limits: in whose lane it goes, and how it ends."""

import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from billing.budget.call import Call


class Lane(StrEnum):
    """Who goes first; earlier members before later ones."""

    CUSTOMER = "customer"
    SUPPORT = "support"
    CLOSE = "close"
    INTERVAL = "interval"
    BACKGROUND = "background"


class CallOutcome(StrEnum):
    """How a call ended, as far as the budget cares: not admitted, given up by its caller, or answered."""

    OVERLOADED = "overloaded"
    ABANDONED = "abandoned"
    OK = "ok"
    LIMITED = "limited"
    LIMITED_GLOBALLY = "limited_globally"
    LOCKED = "locked"
    FAILED = "failed"


@dataclass(slots=True)
class Passage:
    """One call's way past Stripe's limits; whoever makes the call says how it ended."""

    call: Call
    lane: Lane
    permit: str = field(default_factory=lambda: secrets.token_hex(8))
    outcome: CallOutcome = CallOutcome.OVERLOADED
    held: bool = False
