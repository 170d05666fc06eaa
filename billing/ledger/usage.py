"""The door for usage: each delta is counted once, whatever is sent again."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from hashlib import blake2b
from zlib import crc32

import msgspec
from prometheus_client import Counter

from billing.ledger import keys
from billing.ledger.base import Door
from billing.ledger.policy import LedgerPolicy
from billing.ledger.quantities import OutOfRange, scaled
from billing.ledger.server import Call
from billing.usage import CustomerId, Period, Price, UsageDelta

BATCH = 500
CONFLICTS = Counter(
    "billing_usage_conflicts", "Deltas refused because their id had come with other content."
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DeltaOutcome(StrEnum):
    """What became of one delta."""

    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    CONFLICT = "CONFLICT"
    TOO_OLD = "TOO_OLD"
    IN_FUTURE = "IN_FUTURE"
    UNKNOWN_CUSTOMER = "UNKNOWN_CUSTOMER"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    WRONG_CURRENCY = "WRONG_CURRENCY"


@dataclass(frozen=True, slots=True)
class Recorded:
    """*period* is where an accepted delta was counted: its own, or the first after it that takes usage."""

    outcome: DeltaOutcome
    period: Period | None = None


REFUSED = {
    ord("d"): Recorded(DeltaOutcome.DUPLICATE),
    ord("c"): Recorded(DeltaOutcome.CONFLICT),
    ord("o"): Recorded(DeltaOutcome.TOO_OLD),
    ord("f"): Recorded(DeltaOutcome.IN_FUTURE),
    ord("u"): Recorded(DeltaOutcome.UNKNOWN_CUSTOMER),
    ord("r"): Recorded(DeltaOutcome.OUT_OF_RANGE),
    ord("w"): Recorded(DeltaOutcome.WRONG_CURRENCY),
}
"""By the letter that ``record.lua`` answers; an accepted delta is an ``a``."""


class Recording(Door):
    """Customers and their usage."""

    async def register(self, customer: CustomerId, currency: str) -> None:
        """*customer* exists at Stripe and is billed in *currency*; the first currency stands."""
        await self._server.run("register", keys.customer(customer), currency.lower())

    async def known(self, customers: Iterable[CustomerId]) -> dict[CustomerId, str]:
        """The currency of each of *customers* that is registered."""
        asked = list(dict.fromkeys(customers))
        found = await self._server.ask_all(
            [("HGET", keys.customer(customer), "currency") for customer in asked]
        )
        return {
            customer: currency.decode()
            for customer, currency in zip(asked, found, strict=True)
            if currency
        }

    async def record(
        self,
        deltas: Sequence[UsageDelta],
        prices: Mapping[str, Price],
    ) -> list[Recorded]:
        """What became of each of *deltas*, in their order; *prices* holds a Price for every SKU.

        One script for each customer and each 500 deltas; a delta that is refused leaves its
        neighbours alone. LedgerUnavailable: some may have been counted, send all of them again.
        """
        answers: list[Recorded] = [REFUSED[ord("r")]] * len(deltas)
        batches = _batches(deltas, prices)
        interval = self._policy.interval(self._nonce())
        calls = [batch.call(self._policy, interval) for batch in batches]
        for batch, (letters, periods) in zip(
            batches, await self._server.run_all(calls, self._policy.copies), strict=True
        ):
            accepted = [
                Recorded(DeltaOutcome.ACCEPTED, Period.parse(period.decode())) for period in periods
            ]
            for at, row, letter in zip(batch.places, batch.rows, letters, strict=True):
                answers[at] = REFUSED.get(letter) or accepted[row - 1]
            CONFLICTS.inc(letters.count(b"c"))
        return answers


def _batches(deltas: Sequence[UsageDelta], prices: Mapping[str, Price]) -> list["_Batch"]:
    """*deltas* by customer, at most 500 in each; what cannot be a quantity is in none."""
    batches: dict[CustomerId, list[_Batch]] = defaultdict(list)
    for place, delta in enumerate(deltas):
        try:
            hi, lo = scaled(delta.quantity)
        except OutOfRange:
            continue
        of_customer = batches[delta.customer]
        if not of_customer or len(of_customer[-1].places) == BATCH:
            of_customer.append(_Batch(delta.customer))
        of_customer[-1].add(place, delta, hi, lo, prices[delta.sku])
    return [batch for of_customer in batches.values() for batch in of_customer]


@cache
def _month(year: int, month: int) -> str:
    return str(Period(year, month))


class _Batch:
    """Columns for ``record.lua``; *places* are positions in the caller's list, *rows* index the series from 1."""

    def __init__(self, customer: CustomerId) -> None:
        self.customer = customer
        self.places: list[int] = []
        self.rows: list[int] = []
        self._hi: list[int] = []
        self._lo: list[int] = []
        self._at_ms: list[int] = []
        self._digests = bytearray()
        self._contents = bytearray()
        self._series: dict[tuple[str, ...], int] = {}

    def add(self, place: int, delta: UsageDelta, hi: int, lo: int, price: Price) -> None:
        """Put *delta* at the end."""
        at = delta.occurred_at.astimezone(UTC)
        since = at - EPOCH
        at_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        labels = (delta.app or "", delta.region or "", delta.organization or "")
        series = (_month(at.year, at.month), delta.sku, price.id, price.currency, *labels)
        content = f"{hi} {lo} {at_us} {delta.sku}\0{labels[0]}\0{labels[1]}\0{labels[2]}"
        self.places.append(place)
        self.rows.append(self._series.setdefault(series, len(self._series) + 1))
        self._hi.append(hi)
        self._lo.append(lo)
        self._at_ms.append(at_us // 1000)
        self._digests += blake2b(delta.id.encode(), digest_size=12).digest()
        self._contents += crc32(content.encode()).to_bytes(4, "big")

    def call(self, policy: LedgerPolicy, interval: int) -> Call:
        """The script call that counts this batch."""
        columns = (self._hi, self._lo, self._at_ms, self.rows)
        return (
            "record",
            keys.customer(self.customer),
            (
                bytes(self._digests),
                bytes(self._contents),
                msgspec.msgpack.encode(columns),
                msgspec.msgpack.encode(list(self._series)),
                policy.usage_max_age_ms,
                policy.usage_max_future_ms,
                interval,
                policy.settle_ms,
            ),
        )
