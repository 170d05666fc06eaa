"""Flush results."""

from dataclasses import dataclass
from enum import StrEnum

from billing.errors import StripeRejected
from billing.invoicing import diff
from billing.ledger.syncs import SyncFailure


class FlushOutcome(StrEnum):
    """Outcome of a flush. BUSY: another worker has the lease. LOST: this worker lost its lease."""

    SYNCED = "synced"
    SEALED = "sealed"
    WAITING = "waiting"
    RETRYING = "retrying"
    PARKED = "parked"
    BUSY = "busy"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class FlushResult:
    """*delay_ms* is the time until the next flush, unless the period is up to date."""

    outcome: FlushOutcome
    delay_ms: int = 0
    failure: SyncFailure | None = None


RETRY_NOW = FlushResult(FlushOutcome.WAITING)


def parked_result(code: str, message: str, request_id: str | None = None) -> FlushResult:
    """Park the period with a reason that a person can act on."""
    return FlushResult(FlushOutcome.PARKED, failure=SyncFailure(code, message, request_id))


def rejected_result(error: StripeRejected) -> FlushResult:
    """Park the period because Stripe rejected requests that were planned from its own state."""
    code = error.stripe_code or f"http_{error.status}"
    return parked_result(code, error.message, error.request_id)


def no_room_result(invoice: str | None) -> FlushResult:
    """Park the period because foreign lines fill *invoice*."""
    return parked_result(
        "no_room",
        f"Invoice {invoice} has {diff.MAX_LINES} lines that are not the gateway's; remove some so that"
        " usage can be billed.",
    )
