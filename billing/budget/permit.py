"""Permits for Stripe calls, their priority lanes and outcomes."""

import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from billing.budget.call import StripeCall


class Lane(StrEnum):
    """Priority of a call; earlier members come first."""

    CUSTOMER = "customer"
    SUPPORT = "support"
    CLOSE = "close"
    INTERVAL = "interval"
    BACKGROUND = "background"


class CallOutcome(StrEnum):
    """Outcome of a call: not admitted, abandoned by its caller, or a class of Stripe's response."""

    OVERLOADED = "overloaded"
    ABANDONED = "abandoned"
    OK = "ok"
    LIMITED = "limited"
    LIMITED_GLOBALLY = "limited_globally"
    LOCKED = "locked"
    FAILED = "failed"


@dataclass(slots=True)
class Permit:
    """A permit for one call; the caller sets *outcome* before it is released."""

    call: StripeCall
    lane: Lane
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    outcome: CallOutcome = CallOutcome.OVERLOADED
    acquired: bool = False
