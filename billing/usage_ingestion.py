"""Usage ingestion: validate each delta, look up its customer and price, record it once, report the result.

Serves ``recordUsage`` and ``POST /usage``. Each delta has its own result: an invalid one is rejected with
a reason and does not affect the others.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from billing.budget import Lane
from billing.change_feed import Change, ChangeReason
from billing.errors import ErrorCode, Overloaded, Refused, StripeRejected, Unavailable
from billing.ledger import DeltaOutcome
from billing.ledger.usage import CurrencySource
from billing.services import Services
from billing.stripe import resources
from billing.stripe.records import CustomerRecord
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
    outcomes = await _record(services, sent, prices)
    await _publish_changes(services, sent, outcomes)

    rejected = [rejection for rejection in validated if isinstance(rejection, Rejection)]
    rejected += [
        _unpriced(delta, services.price_catalog.refusal(delta.sku))
        for delta in deltas
        if delta.sku not in prices
    ]
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


async def _record(
    services: Services, deltas: Sequence[UsageDelta], prices: Mapping[str, Price]
) -> list[DeltaOutcome]:
    """Record *deltas*; those in another currency than their customer's again if that was a mistake."""
    usage = services.ledger.usage
    outcomes = [result.outcome for result in await usage.record(deltas, prices)]
    refused = [n for n, o in enumerate(outcomes) if o is DeltaOutcome.WRONG_CURRENCY]
    if not refused:
        return outcomes
    unconfirmed = await usage.with_unconfirmed_currency(deltas[n].customer for n in refused)
    records, _ = await _look_up_customers(services, unconfirmed)
    await asyncio.gather(
        *(_register(services, record, record.currency) for record in records if record.currency)
    )
    looked_up = {record.id for record in records}
    again = [n for n in refused if deltas[n].customer in looked_up]
    results = await usage.record([deltas[n] for n in again], prices)
    for n, result in zip(again, results, strict=True):
        outcomes[n] = result.outcome
    return outcomes


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
    records, failures = await _look_up_customers(services, first.keys() - known.keys())
    await asyncio.gather(
        *(_register(services, record, prices[first[record.id].sku].currency) for record in records)
    )
    return failures


async def _look_up_customers(
    services: Services, customers: Iterable[CustomerId]
) -> tuple[list[CustomerRecord], dict[CustomerId, Unavailable | StripeRejected]]:
    """Read *customers* at Stripe, without deleted ones; and those that could not be read, with the error."""
    slots, deadline = asyncio.Semaphore(MAX_CONCURRENT_LOOKUPS), _now() + LOOKUP_SECONDS
    records: list[CustomerRecord] = []
    failures: dict[CustomerId, Unavailable | StripeRejected] = {}

    async def look_up(customer: CustomerId) -> None:
        async with slots:
            try:
                if _now() > deadline:
                    raise Overloaded("Too many customers are new at once.")
                resource = resources.customer(customer)
                record = (await services.stripe_reader.get(resource, Lane.CUSTOMER)).value
            except (Unavailable, StripeRejected) as error:
                failures[customer] = error
                return
        if record is not None and not record.deleted:
            records.append(record)

    await asyncio.gather(*map(look_up, customers))
    return records, failures


async def _register(services: Services, customer: CustomerRecord, currency: str) -> None:
    """Register *customer* in its own currency at Stripe, or else in *currency*, that of a price."""
    source = CurrencySource.STRIPE if customer.currency else CurrencySource.PRICE
    await services.ledger.usage.register_customer(
        customer.id, customer.currency or currency, source
    )


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


def _unpriced(delta: UsageDelta, refusal: Refused) -> Rejection:
    message = f"{refusal.message.removesuffix('.')}, then send this delta again."
    return _reject(delta, refusal.code, "sku", message)


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
    DeltaOutcome.CUSTOMER_DELETED: lambda delta: _reject(
        delta,
        ErrorCode.NOT_FOUND,
        "customerId",
        f"Customer {delta.customer} was deleted in Stripe; stop sending usage for it.",
    ),
}
