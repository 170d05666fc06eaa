"""Permits for Stripe calls, their priority lanes and outcomes."""

import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from billing.budget.call import StripeCall
from billing.budget.caller import current_caller


class Lane(StrEnum):
    """Priority of a call; earlier members come first."""

    CUSTOMER = "customer"
    SUPPORT = "support"
    CLOSE = "close"
    INTERVAL = "interval"
    BACKGROUND = "background"


class CallOutcome(StrEnum):
    """Outcome of a call: not admitted, abandoned by its caller, or a class of Stripe's response.

    REFUSED: our key may not make this call; REFUSED_GLOBALLY: any call.
    """

    OVERLOADED = "overloaded"
    ABANDONED = "abandoned"
    OK = "ok"
    LIMITED = "limited"
    LIMITED_GLOBALLY = "limited_globally"
    LOCKED = "locked"
    FAILED = "failed"
    REFUSED = "refused"
    REFUSED_GLOBALLY = "refused_globally"


@dataclass(slots=True)
class Permit:
    """A permit for one call; whoever makes it sets *outcome* before it is released.

    The customer lane is shared fairly by each *caller*; "" for a call on nobody's behalf.
    """

    call: StripeCall
    lane: Lane
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    outcome: CallOutcome = CallOutcome.OVERLOADED
    caller: str = field(default_factory=current_caller)
    acquired: bool = False
