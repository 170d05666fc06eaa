"""A ledger with a clock that the test controls, and helpers to fill it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

from redis.asyncio import Redis

from billing.ledger import DeltaOutcome, Ledger, LedgerPolicy
from billing.usage import CustomerId, Period, Price, UsageDelta

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


async def open_ledger(redis: Redis, clock: Clock, policy: LedgerPolicy = POLICY) -> Ledger:
    """Open a ledger with `CUSTOMER` and `OTHER` registered."""
    numbers = count(1)
    ledger = Ledger(redis, policy=policy, nonce=lambda: f"nonce{next(numbers)}", clock=clock)
    await ledger.open()
    for customer in (CUSTOMER, OTHER):
        await ledger.register_customer(customer, "usd")
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
    return [recorded.outcome for recorded in await ledger.record(deltas, PRICES)]
