"""Usage ingestion: validate each delta, look up its customer and price, record it once, report the result.

Serves ``recordUsage`` and ``POST /usage``. Each delta has its own result: an invalid one is rejected with
a reason and does not affect the others.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from billing.budget import Lane
from billing.change_feed import Change, ChangeReason
from billing.errors import ErrorCode, Overloaded, StripeRejected, Unavailable
from billing.ledger import DeltaOutcome
from billing.services import Services
from billing.stripe import resources
from billing.usage import CustomerId, Price, UsageDelta
from billing.usage_validation import RawDelta, Rejection, RejectionError, invalid_field, validate

MAX_BATCH = 10_000
# New customers are looked up at Stripe; the caller waits at most so many seconds.
MAX_CONCURRENT_LOOKUPS, LOOKUP_SECONDS = 8, 10.0


class UsageReport(msgspec.Struct, frozen=True, rename="camel"):
    """Result of a batch; accepted and duplicate deltas are as durable as *durability* says.

    Encodes as ``RecordUsagePayload`` of the schema, whose *errors* are empty if there is a result.
    """

    accepted: int
    duplicates: int
    rejected: tuple[Rejection, ...]
    durability: str
    ledger_epoch: str
    errors: tuple[()] = ()


async def record_usage(services: Services, raw_deltas: Sequence[RawDelta]) -> UsageReport:
    """Record each delta once; returns after the ledger has made them durable."""
    validated = [validate(raw) for raw in raw_deltas]
    deltas = [delta for delta in validated if isinstance(delta, UsageDelta)]
    prices = await services.price_catalog.by_sku({delta.sku for delta in deltas})
    priced = [delta for delta in deltas if delta.sku in prices]
    unconfirmed = await _register_new_customers(services, priced, prices)
    sent = [delta for delta in priced if delta.customer not in unconfirmed]
    recorded = await services.ledger.usage.record(sent, prices)
    outcomes = [result.outcome for result in recorded]
    await _publish_changes(services, sent, outcomes)

    rejected = [rejection for rejection in validated if isinstance(rejection, Rejection)]
    rejected += [_unknown_sku(delta) for delta in deltas if delta.sku not in prices]
    rejected += [
        _unconfirmed_customer(delta, unconfirmed[delta.customer])
        for delta in priced
        if delta.customer in unconfirmed
    ]
    rejected += [
        _REJECTIONS[outcome](delta)
        for delta, outcome in zip(sent, outcomes, strict=True)
        if outcome in _REJECTIONS
    ]
    durability, epoch = await services.ledger.health.durability()
    return UsageReport(
        accepted=outcomes.count(DeltaOutcome.ACCEPTED),
        duplicates=outcomes.count(DeltaOutcome.DUPLICATE),
        rejected=tuple(rejected),
        durability=durability,
        ledger_epoch=epoch,
    )


async def _register_new_customers(
    services: Services,
    deltas: Iterable[UsageDelta],
    prices: Mapping[str, Price],
) -> dict[CustomerId, Unavailable | StripeRejected]:
    """Register customers that are new to the ledger and exist at Stripe.

    Returns the customers that could not be looked up now, with the error.
    """
    first = {delta.customer: delta for delta in reversed(list(deltas))}
    known = await services.ledger.usage.registered_currencies(list(first))
    slots, deadline = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS), _now() + LOOKUP_SECONDS
    failures: dict[CustomerId, Unavailable | StripeRejected] = {}

    async def confirm(customer: CustomerId, currency: str) -> None:
        async with slots:
            try:
                if _now() > deadline:
                    raise Overloaded("Too many customers are new at once.")
                result = await services.stripe_reader.get(
                    resources.customer(customer), Lane.CUSTOMER
                )
            except (Unavailable, StripeRejected) as error:
                failures[customer] = error
                return
        record = result.value
        if record is not None and not record.deleted:
            await services.ledger.usage.register_customer(customer, record.currency or currency)

    await asyncio.gather(
        *(
            confirm(customer, prices[delta.sku].currency)
            for customer, delta in first.items()
            if customer not in known
        )
    )
    return failures


async def _publish_changes(
    services: Services,
    deltas: Sequence[UsageDelta],
    outcomes: Sequence[DeltaOutcome],
) -> None:
    """Notify subscribers of the customers with accepted deltas."""
    customers = {
        delta.customer
        for delta, outcome in zip(deltas, outcomes, strict=True)
        if outcome is DeltaOutcome.ACCEPTED
    }
    await services.change_feed.publish(
        *(Change(customer, ChangeReason.USAGE) for customer in customers)
    )


def _unconfirmed_customer(delta: UsageDelta, error: Unavailable | StripeRejected) -> Rejection:
    retry_after = error.whole_seconds if isinstance(error, Unavailable) else None
    message = f"Stripe could not confirm {delta.customer}: {error.message} Not counted; send this delta again."
    return _reject(delta, error.code, "customerId", message, retry_after)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _unknown_sku(delta: UsageDelta) -> Rejection:
    message = f"No active Stripe price has the lookup key {delta.sku!r}; create it, then send this delta again."
    return _reject(delta, ErrorCode.UNKNOWN_SKU, "sku", message)


def _reject(
    delta: UsageDelta, code: ErrorCode, field: str, message: str, retry_after: int | None = None
) -> Rejection:
    return Rejection(delta.id, RejectionError(code, message, (field,), retry_after))


_REJECTIONS = {
    DeltaOutcome.CONFLICT: lambda delta: _reject(
        delta,
        ErrorCode.IDEMPOTENCY_CONFLICT,
        "id",
        "This id was counted before with other content; the first one stands. Send a change under a new id.",
    ),
    DeltaOutcome.TOO_OLD: lambda delta: invalid_field(
        delta.id,
        "occurredAt",
        "This happened longer ago than usage is accepted for; correct the bill with adjustUsage.",
    ),
    DeltaOutcome.IN_FUTURE: lambda delta: invalid_field(
        delta.id,
        "occurredAt",
        "This time is in the future; check the sender's clock.",
    ),
    DeltaOutcome.OUT_OF_RANGE: lambda delta: invalid_field(
        delta.id,
        "quantity",
        "With this delta the line would exceed 15 digits before the point; check the quantity.",
    ),
    DeltaOutcome.WRONG_CURRENCY: lambda delta: invalid_field(
        delta.id,
        "sku",
        "This SKU's price is in another currency than the customer's invoices; use a price in theirs.",
    ),
    DeltaOutcome.UNKNOWN_CUSTOMER: lambda delta: _reject(
        delta,
        ErrorCode.NOT_FOUND,
        "customerId",
        f"Stripe knows no customer {delta.customer}; check the id.",
    ),
}
