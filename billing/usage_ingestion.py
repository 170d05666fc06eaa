"""Where a delta comes in: check it, know its customer and its price, count it once, say what happened.

Both public doors end here (``recordUsage`` and ``POST /usage``). Every delta is answered on its own:
a bad one is refused with the reason and never fails its neighbours.
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
from billing.usage_validation import Rejection, ReportedDelta, checked, invalid

MAX_BATCH = 10_000
NOT_FOUND = 404
# New customers are confirmed at Stripe so many at a time, and so long: the caller waits for the others.
AT_ONCE, CONFIRM_SECONDS = 8, 10.0


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What became of a batch; everything accepted or duplicate is as durable as *durability* says."""

    accepted: int
    duplicates: int
    rejected: tuple[Rejection, ...]
    durability: str
    ledger_epoch: str


async def record_usage(services: Services, reported: Sequence[ReportedDelta]) -> UsageReport:
    """Count each of *reported* once; the answer comes after the ledger has made them durable."""
    read = [checked(each) for each in reported]
    deltas = [each for each in read if isinstance(each, UsageDelta)]
    prices = await services.catalogue.by_sku({delta.sku for delta in deltas})
    priced = [delta for delta in deltas if delta.sku in prices]
    unconfirmed = await _introduce(services, priced, prices)
    sent = [delta for delta in priced if delta.customer not in unconfirmed]
    recorded = await services.ledger.record(sent, prices)
    outcomes = [each.outcome for each in recorded]
    await _announce(services, sent, outcomes)

    rejected = [each for each in read if isinstance(each, Rejection)]
    rejected += [_unknown_sku(delta) for delta in deltas if delta.sku not in prices]
    rejected += [
        _unconfirmed(delta, unconfirmed[delta.customer])
        for delta in priced
        if delta.customer in unconfirmed
    ]
    rejected += [
        _REFUSALS[outcome](delta)
        for delta, outcome in zip(sent, outcomes, strict=True)
        if outcome in _REFUSALS
    ]
    durability, epoch = await services.ledger.durability()
    return UsageReport(
        accepted=outcomes.count(DeltaOutcome.ACCEPTED),
        duplicates=outcomes.count(DeltaOutcome.DUPLICATE),
        rejected=tuple(rejected),
        durability=durability,
        ledger_epoch=epoch,
    )


async def _introduce(
    services: Services,
    deltas: Iterable[UsageDelta],
    prices: Mapping[str, Price],
) -> dict[CustomerId, Unavailable | StripeRejected]:
    """Tell the ledger of customers that it sees for the first time, once Stripe has confirmed them.

    Answers those that it could not confirm now, and why.
    """
    first = {delta.customer: delta for delta in reversed(list(deltas))}
    known = await services.ledger.known(list(first))
    places, ends = asyncio.Semaphore(AT_ONCE), _now() + CONFIRM_SECONDS
    failures: dict[CustomerId, Unavailable | StripeRejected] = {}

    async def confirm(customer: CustomerId, currency: str) -> None:
        async with places:
            try:
                if _now() > ends:
                    raise Overloaded("Too many customers are new at once.")
                found = await _customer(services, customer)
            except (Unavailable, StripeRejected) as error:
                failures[customer] = error
                return
        if found is not None and not found.deleted:
            await services.ledger.register(customer, found.currency or currency)

    await asyncio.gather(
        *(
            confirm(customer, prices[delta.sku].currency)
            for customer, delta in first.items()
            if customer not in known
        )
    )
    return failures


async def _customer(services: Services, customer: CustomerId) -> CustomerRecord | None:
    async def read() -> dict[str, Any] | None:
        path = f"/v1/customers/{customer}"
        try:
            return kept.customer(await services.stripe.read(path, lane=Lane.CUSTOMER))
        except StripeRejected as refusal:
            if refusal.status == NOT_FOUND:
                return None
            raise

    entry = entries.customer(customer)
    cached = await services.cache.fetch(entry, read, shape=CustomerRecord.from_stripe)
    found: CustomerRecord | None = cached.value
    return found


async def _announce(
    services: Services,
    deltas: Sequence[UsageDelta],
    outcomes: Sequence[DeltaOutcome],
) -> None:
    """Let the panels that show these customers know."""
    counted = {
        delta.customer
        for delta, outcome in zip(deltas, outcomes, strict=True)
        if outcome is DeltaOutcome.ACCEPTED
    }
    await services.changes.publish(*(Change(each, ChangeReason.USAGE) for each in counted))


def _unconfirmed(delta: UsageDelta, error: Unavailable | StripeRejected) -> Rejection:
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


_REFUSALS = {
    DeltaOutcome.CONFLICT: lambda delta: Rejection(
        delta.id,
        ErrorCode.IDEMPOTENCY_CONFLICT,
        "This id was counted before with other content; the first one stands. Send a change under a new id.",
        ("id",),
    ),
    DeltaOutcome.TOO_OLD: lambda delta: invalid(
        delta.id,
        "occurredAt",
        "This happened longer ago than usage is accepted for; correct the bill with adjustUsage.",
    ),
    DeltaOutcome.IN_FUTURE: lambda delta: invalid(
        delta.id,
        "occurredAt",
        "This time is in the future; check the sender's clock.",
    ),
    DeltaOutcome.OUT_OF_RANGE: lambda delta: invalid(
        delta.id,
        "quantity",
        "With this delta the line would exceed 15 digits before the point; check the quantity.",
    ),
    DeltaOutcome.WRONG_CURRENCY: lambda delta: invalid(
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
