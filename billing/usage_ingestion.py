"""Usage ingestion: validate each delta, look up its customer and price, record it once, report the result.

Serves ``recordUsage`` and ``POST /usage``. Each delta has its own result: an invalid one is rejected with
a reason and does not affect the others.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from billing.budget import Lane
from billing.cache import entries, kept
from billing.change_feed import Change, ChangeReason
from billing.errors import ErrorCode, Overloaded, StripeRejected, Unavailable
from billing.ledger import DeltaOutcome
from billing.services import Services
from billing.stripe.records import CustomerRecord
from billing.usage import CustomerId, Price, UsageDelta
from billing.usage_validation import RawDelta, Rejection, invalid_field, validate

MAX_BATCH = 10_000
NOT_FOUND = 404
# New customers are looked up at Stripe; the caller waits at most so many seconds.
MAX_CONCURRENT_LOOKUPS, LOOKUP_SECONDS = 8, 10.0


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Result of a batch; accepted and duplicate deltas are as durable as *durability* says."""

    accepted: int
    duplicates: int
    rejected: tuple[Rejection, ...]
    durability: str
    ledger_epoch: str


async def record_usage(services: Services, raw_deltas: Sequence[RawDelta]) -> UsageReport:
    """Record each delta once; returns after the ledger has made them durable."""
    validated = [validate(raw) for raw in raw_deltas]
    deltas = [delta for delta in validated if isinstance(delta, UsageDelta)]
    prices = await services.price_catalog.by_sku({delta.sku for delta in deltas})
    priced = [delta for delta in deltas if delta.sku in prices]
    unconfirmed = await _register_new_customers(services, priced, prices)
    sent = [delta for delta in priced if delta.customer not in unconfirmed]
    recorded = await services.ledger.record(sent, prices)
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
    durability, epoch = await services.ledger.durability()
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
    known = await services.ledger.registered_currencies(list(first))
    slots, deadline = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS), _now() + LOOKUP_SECONDS
    failures: dict[CustomerId, Unavailable | StripeRejected] = {}

    async def confirm(customer: CustomerId, currency: str) -> None:
        async with slots:
            try:
                if _now() > deadline:
                    raise Overloaded("Too many customers are new at once.")
                found = await _fetch_customer(services, customer)
            except (Unavailable, StripeRejected) as error:
                failures[customer] = error
                return
        if found is not None and not found.deleted:
            await services.ledger.register_customer(customer, found.currency or currency)

    await asyncio.gather(
        *(
            confirm(customer, prices[delta.sku].currency)
            for customer, delta in first.items()
            if customer not in known
        )
    )
    return failures


async def _fetch_customer(services: Services, customer: CustomerId) -> CustomerRecord | None:
    async def read() -> dict[str, Any] | None:
        path = f"/v1/customers/{customer}"
        try:
            return kept.customer(await services.stripe.read(path, lane=Lane.CUSTOMER))
        except StripeRejected as refusal:
            if refusal.status == NOT_FOUND:
                return None
            raise

    entry = entries.customer(customer)
    cached = await services.cache.fetch(entry, read, decode=CustomerRecord.from_stripe)
    found: CustomerRecord | None = cached.value
    return found


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
    return Rejection(
        delta.id,
        error.code,
        f"Stripe could not confirm {delta.customer}: {error.message} Not counted; send this delta again.",
        ("customerId",),
        error.whole_seconds if isinstance(error, Unavailable) else None,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _unknown_sku(delta: UsageDelta) -> Rejection:
    return Rejection(
        delta.id,
        ErrorCode.UNKNOWN_SKU,
        f"No active Stripe price has the lookup key {delta.sku!r}; create it, then send this delta again.",
        ("sku",),
    )


_REJECTIONS = {
    DeltaOutcome.CONFLICT: lambda delta: Rejection(
        delta.id,
        ErrorCode.IDEMPOTENCY_CONFLICT,
        "This id was counted before with other content; the first one stands. Send a change under a new id.",
        ("id",),
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
    DeltaOutcome.UNKNOWN_CUSTOMER: lambda delta: Rejection(
        delta.id,
        ErrorCode.NOT_FOUND,
        f"Stripe knows no customer {delta.customer}; check the id.",
        ("customerId",),
    ),
}
