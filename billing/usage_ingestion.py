"""Usage ingestion: validate each delta, look up its customer and price, record it once, report the result.

Serves ``recordUsage`` and ``POST /usage``. Each delta has its own result: an invalid one is rejected with
a reason and does not affect the others.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from billing.amount_limit import excess_of_usage
from billing.change_feed import Change, ChangeReason
from billing.customer_registration import deleted, register_customers, unknown, update_currencies
from billing.errors import ErrorCode, Refused, Unavailable
from billing.ledger import DeltaOutcome
from billing.services import Services
from billing.stripe.price_catalog import PriceCatalog
from billing.usage import CustomerId, Price, UsageDelta
from billing.usage_validation import RawDelta, Rejection, RejectionError, invalid_field, validate

MAX_BATCH = 10_000
SLICE = 1_000  # deltas that are validated without a pause


class UsageReport(msgspec.Struct, frozen=True, rename="camel"):
    """Result of a batch; accepted and duplicate deltas are as durable as *durability* says.

    Encodes as ``RecordUsagePayload`` of the schema. *errors* is empty if anything is counted, now or before.
    """

    accepted: int
    duplicates: int
    rejected: tuple[Rejection, ...]
    durability: str
    ledger_epoch: str
    errors: tuple[RejectionError, ...] = ()


async def record_usage(services: Services, reported: Sequence[RawDelta | Rejection]) -> UsageReport:
    """Record each delta once; returns after the ledger has made them durable.

    What is already rejected, because it could not be read, is part of the report.
    """
    requested_at = datetime.now(UTC)
    results = await _validate_all(reported)
    catalog = services.price_catalog
    prices = await catalog.by_sku({delta.sku for delta in _deltas(results)})
    _reject_each(results, lambda delta: _unpriced(delta, prices, catalog, requested_at))
    first_prices = {delta.customer: prices[delta.sku] for delta in reversed(_deltas(results))}
    refusals = await register_customers(services, first_prices, requested_at)
    _reject_each(results, lambda delta: _unconfirmed_customer(delta, refusals))
    deltas = _deltas(results)
    outcomes = await _record(services, deltas, prices, requested_at)
    await _publish_changes(services, deltas, outcomes)
    unread = iter(outcomes)
    _reject_each(results, lambda delta: _uncounted(delta, next(unread), prices[delta.sku]))
    durability, epoch = await services.ledger.health.durability()
    rejected = tuple(result for result in results if isinstance(result, Rejection))
    return UsageReport(
        accepted=outcomes.count(DeltaOutcome.ACCEPTED),
        duplicates=outcomes.count(DeltaOutcome.DUPLICATE),
        rejected=rejected,
        durability=durability,
        ledger_epoch=epoch,
        errors=_errors(rejected) if len(rejected) == len(results) else (),
    )


async def _validate_all(
    reported: Sequence[RawDelta | Rejection],
) -> list[UsageDelta | Rejection]:
    """Validate each delta; other requests run in between, because ten thousand take 50 ms."""
    results: list[UsageDelta | Rejection] = []
    for start in range(0, len(reported), SLICE):
        part = reported[start : start + SLICE]
        results += [raw if isinstance(raw, Rejection) else validate(raw) for raw in part]
        await asyncio.sleep(0)
    return results


def _errors(rejected: Sequence[Rejection]) -> tuple[RejectionError, ...]:
    """Return the error of a batch of which nothing is counted; none if it is empty."""
    if not rejected:
        return ()
    worst = max(
        (rejection.error for rejection in rejected), key=lambda error: error.retry_after or 0
    )
    message = (
        f"Nothing is counted: all {len(rejected):,} deltas are in `rejected`, each with its reason."
    )
    return (RejectionError(worst.code, message, None, worst.retry_after),)


def _deltas(results: Sequence[UsageDelta | Rejection]) -> list[UsageDelta]:
    return [result for result in results if isinstance(result, UsageDelta)]


def _reject_each(
    results: list[UsageDelta | Rejection], rejection_of: Callable[[UsageDelta], Rejection | None]
) -> None:
    """Replace each delta for which there is a rejection by it."""
    for position, result in enumerate(results):
        if isinstance(result, UsageDelta):
            results[position] = rejection_of(result) or result


async def _record(
    services: Services,
    deltas: Sequence[UsageDelta],
    prices: Mapping[str, Price],
    requested_at: datetime,
) -> list[DeltaOutcome]:
    """Record *deltas*; those in another currency than their customer's again if that was a mistake."""
    usage = services.ledger.usage
    outcomes = [result.outcome for result in await usage.record(deltas, prices)]
    refused = [n for n, o in enumerate(outcomes) if o is DeltaOutcome.WRONG_CURRENCY]
    if not refused:
        return outcomes
    unconfirmed = await usage.with_unconfirmed_currency(deltas[n].customer for n in refused)
    looked_up = await update_currencies(services, unconfirmed, requested_at)
    again = [n for n in refused if deltas[n].customer in looked_up]
    results = await usage.record([deltas[n] for n in again], prices)
    for n, result in zip(again, results, strict=True):
        outcomes[n] = result.outcome
    return outcomes


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


def _unconfirmed_customer(
    delta: UsageDelta, refusals: Mapping[CustomerId, Unavailable | Refused]
) -> Rejection | None:
    error = refusals.get(delta.customer)
    if error is None:
        return None
    message = error.message
    if error.code is not ErrorCode.NOT_FOUND:
        message = f"Stripe could not confirm {delta.customer}: {message} Not counted; send this delta again."
    retry_after = error.retry_after if isinstance(error, Refused) else error.whole_seconds
    return _reject(delta, error.code, "customerId", message, retry_after)


def _unpriced(
    delta: UsageDelta, prices: Mapping[str, Price], catalog: PriceCatalog, requested_at: datetime
) -> Rejection | None:
    """Return the rejection of a delta without a price, or with an amount that no invoice can show."""
    price = prices.get(delta.sku)
    if price is None:
        refusal = catalog.refusal(delta.sku, requested_at)
        message = f"{refusal.message.removesuffix('.')}, then send this delta again."
        return _reject(delta, refusal.code, "sku", message, refusal.retry_after)
    excess = excess_of_usage(delta.quantity, price)
    return invalid_field(delta.id, "quantity", f"{excess} Check the quantity.") if excess else None


def _uncounted(delta: UsageDelta, outcome: DeltaOutcome, price: Price) -> Rejection | None:
    if outcome is DeltaOutcome.WRONG_CURRENCY:
        message = (
            f"{delta.sku!r} is priced in {price.currency.upper()}, and {delta.customer} is billed in another"
            " currency; send the SKU that is priced in theirs."
        )
        return invalid_field(delta.id, "sku", message)
    rejection_of = _REJECTIONS.get(outcome)
    return rejection_of and rejection_of(delta)


def _reject(
    delta: UsageDelta, code: ErrorCode, field: str, message: str, retry_after: int | None = None
) -> Rejection:
    return Rejection(delta.id, RejectionError(code, message, (field,), retry_after))


_REJECTIONS: Mapping[DeltaOutcome, Callable[[UsageDelta], Rejection]] = {
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
    DeltaOutcome.UNKNOWN_CUSTOMER: lambda delta: _reject(
        delta,
        ErrorCode.NOT_FOUND,
        "customerId",
        unknown(delta.customer).message,
    ),
    DeltaOutcome.CUSTOMER_DELETED: lambda delta: _reject(
        delta,
        ErrorCode.NOT_FOUND,
        "customerId",
        deleted(delta.customer).message,
    ),
}
