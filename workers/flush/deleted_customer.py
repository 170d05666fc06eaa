"""Customers that were deleted at Stripe: what cannot be billed any more waits for a person to write it off.

A draft or bill that Stripe still has is flushed as any other. Only what Stripe refuses is unbillable: its period
is parked without retries, apart from other parked periods, until Support acts.
"""

from collections.abc import Mapping

import structlog

from billing.budget import Lane
from billing.errors import StripeRejected
from billing.invoicing.amounts import compute_amounts
from billing.invoicing.request_batch import PlannedLine
from billing.invoicing.snapshot import CUSTOMER_DELETED
from billing.ledger import Ledger
from billing.money import format_decimal
from billing.stripe import StripeApi
from billing.usage import CustomerId, LineKey
from workers.flush.execution import FlushExecution
from workers.flush.outcome import FlushResult, parked_result

log = structlog.get_logger(__name__)

MAX_LINES = 5  # in the message


async def record_deletion(
    stripe: StripeApi, ledger: Ledger, customer: CustomerId, lane: Lane
) -> bool:
    """Record in the ledger that Stripe has deleted *customer*; False if it has not.

    A customer that Stripe does not know at all was not deleted: the API key may be another account's.
    """
    try:
        body = await stripe.read(f"/v1/customers/{customer}", lane=lane)
    except StripeRejected:
        return False
    if not body.get("deleted"):
        return False
    await ledger.usage.record_deletion(customer)
    log.warning("customer.deleted", customer=customer)
    return True


async def is_customer_deleted(execution: FlushExecution, error: StripeRejected) -> bool:
    """Return True if Stripe rejected the flush because its customer was deleted, and for nothing else.

    What else Stripe refuses of the draft of a deleted customer may be cured, like any other customer's.
    """
    snapshot, context = execution.snapshot, execution.context
    if error.stripe_code != "resource_missing" or error.param != "customer":
        return False
    if snapshot.customer_deleted:
        return True
    execution.stats.calls += 1
    return await record_deletion(context.stripe, context.ledger, snapshot.customer, execution.lane)


def is_settled(execution: FlushExecution, lines: Mapping[LineKey, PlannedLine]) -> bool:
    """Return True if the customer was deleted and owes nothing: *lines* cancel each other out."""
    total = sum(line.amount for line in lines.values())
    return execution.snapshot.customer_deleted and total == 0


async def unbillable_result(
    execution: FlushExecution, request_id: str | None = None
) -> FlushResult:
    """Park the period until a person has written off its usage; *request_id* is of Stripe's refusal."""
    snapshot = execution.snapshot
    total = compute_amounts(snapshot, await execution.prices()).total.formatted
    lines = [
        f"{key} {format_decimal(used)}" for key, used in sorted(snapshot.totals.items()) if used
    ]
    more = ["…"] if len(lines) > MAX_LINES else []
    return parked_result(
        CUSTOMER_DELETED,
        f"Stripe has deleted this customer, so {total} of {snapshot.period} cannot be billed:"
        f" {', '.join(lines[:MAX_LINES] + more)}. Write it off with adjustUsage.",
        request_id,
    )
