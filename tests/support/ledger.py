"""A ledger with a clock that the test controls, and helpers to fill it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from redis.asyncio import Redis

from billing.invoicing.snapshot import StripeLine
from billing.ledger import DeltaOutcome, LeasedPeriod, Ledger, LedgerPolicy
from billing.usage import CustomerId, LineKey, Period, Price, UsageDelta

CUSTOMER = CustomerId("cus_Test1")
OTHER = CustomerId("cus_Test2")
NOVEMBER = Period(2026, 11)
DECEMBER = NOVEMBER.next()
MIDDLE = datetime(2026, 11, 15, 12, tzinfo=UTC)
POLICY = LedgerPolicy(flush_jitter=0)
PRICES = {
    sku: Price(f"price_{sku}", sku, currency, Decimal(amount))
    for sku, currency, amount in [
        ("cpu", "usd", "0.5"),
        ("ram", "usd", "2"),
        ("egress", "usd", "0.000001"),
        ("euro", "eur", "1"),
    ]
}
LINES = {LineKey("cpu"): StripeLine("il_1", Decimal("1.5"), "price_cpu", 1)}


@dataclass
class Clock:
    """Redis's time, set by the test."""

    now: datetime = MIDDLE

    def __call__(self) -> int:
        """Return the time in ms."""
        return (self.now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)

    def advance(self, **times: float) -> None:
        """Advance the time: ``clock.advance(days=3)``."""
        self.now += timedelta(**times)


class Proxy:
    """Stands in for *target*, with some attributes *replaced*."""

    def __init__(self, target: object, **replaced: object) -> None:
        self._target = target
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


async def open_ledger(redis: Redis, clock: Clock, policy: LedgerPolicy = POLICY) -> Ledger:
    """Open a ledger with `CUSTOMER` and `OTHER` registered."""
    numbers = count(1)
    ledger = Ledger(redis, policy=policy, nonce=lambda: f"nonce{next(numbers)}", clock=clock)
    await ledger.open()
    for customer in (CUSTOMER, OTHER):
        await ledger.usage.register_customer(customer, "usd")
    return ledger


def delta(
    delta_id: str,
    quantity: str | Decimal = "1",
    sku: str = "cpu",
    *,
    at: datetime = MIDDLE,
    customer: CustomerId = CUSTOMER,
    app: str | None = None,
    region: str | None = None,
    organization: str | None = None,
) -> UsageDelta:
    """Make a delta as a metering service might report it."""
    return UsageDelta(delta_id, customer, sku, Decimal(quantity), at, app, region, organization)


async def outcomes(ledger: Ledger, *deltas: UsageDelta) -> list[DeltaOutcome]:
    """Record *deltas* and return their outcomes."""
    return [recorded.outcome for recorded in await ledger.usage.record(deltas, PRICES)]


async def acquire_lease(ledger: Ledger, period: Period = NOVEMBER) -> LeasedPeriod:
    """Acquire the lease, which must be free."""
    leased = await ledger.leases.acquire(CUSTOMER, period)
    assert leased is not None
    return leased


async def commit_all(
    ledger: Ledger, leased: LeasedPeriod, lines: dict[LineKey, StripeLine] = LINES
) -> None:
    """Commit that Stripe has everything in the snapshot of *leased*."""
    snapshot = leased.snapshot
    await ledger.leases.commit(
        leased.lease,
        version=snapshot.version,
        verify=snapshot.verify_requested,
        invoice="in_1",
        lines=lines,
    )


async def close_and_commit(ledger: Ledger) -> LeasedPeriod:
    """Close November, commit, keep the lease."""
    assert await ledger.periods.close(CUSTOMER, NOVEMBER)
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    return leased
