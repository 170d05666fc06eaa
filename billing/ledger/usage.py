"""Recording of usage: each delta is counted once, no matter how often it is sent."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from functools import cache
from hashlib import blake2b
from typing import Literal
from zlib import crc32

import msgspec
from prometheus_client import Counter

from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.policy import LedgerPolicy
from billing.ledger.quantities import QuantityOutOfRange, to_fixed_point
from billing.ledger.server import ScriptCall
from billing.usage import CustomerId, LineKey, Period, Price, UsageDelta

BATCH_SIZE = 500
Dimension = Literal["app", "region", "organization"]
CONFLICTS = Counter(
    "billing_usage_conflicts", "Deltas refused because their id had come with other content."
)
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DeltaOutcome(StrEnum):
    """Outcome of recording one delta."""

    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    CONFLICT = "CONFLICT"
    TOO_OLD = "TOO_OLD"
    IN_FUTURE = "IN_FUTURE"
    UNKNOWN_CUSTOMER = "UNKNOWN_CUSTOMER"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    WRONG_CURRENCY = "WRONG_CURRENCY"
    CUSTOMER_DELETED = "CUSTOMER_DELETED"


class CurrencySource(IntEnum):
    """Source of a customer's currency, by rank: a delta's price, the customer at Stripe, an operator."""

    PRICE = 0
    STRIPE = 1
    OPERATOR = 2


@dataclass(frozen=True, slots=True)
class RecordResult:
    """*period* is where an accepted delta was counted: its own, or the first later one that accepts usage."""

    outcome: DeltaOutcome
    period: Period | None = None


REJECTED = {
    ord("d"): RecordResult(DeltaOutcome.DUPLICATE),
    ord("c"): RecordResult(DeltaOutcome.CONFLICT),
    ord("o"): RecordResult(DeltaOutcome.TOO_OLD),
    ord("f"): RecordResult(DeltaOutcome.IN_FUTURE),
    ord("u"): RecordResult(DeltaOutcome.UNKNOWN_CUSTOMER),
    ord("r"): RecordResult(DeltaOutcome.OUT_OF_RANGE),
    ord("w"): RecordResult(DeltaOutcome.WRONG_CURRENCY),
    ord("g"): RecordResult(DeltaOutcome.CUSTOMER_DELETED),
}
"""By the letter in the answer of ``record.lua``; an accepted delta is an ``a``."""


class Usage(LedgerPart):
    """Customers and their usage."""

    async def register_customer(
        self,
        customer: CustomerId,
        currency: str,
        source: CurrencySource = CurrencySource.PRICE,
    ) -> bool:
        """Register *customer*, billed in *currency*; return True if that is the customer's currency now.

        Another registered currency is replaced unless its source ranks higher, or any usage is counted or an
        invoice made in it. That of a price never replaces one.
        """
        key = keys.customer(customer)
        return bool(await self._server.run_script("register", key, currency.lower(), int(source)))

    async def record_deletion(self, customer: CustomerId) -> None:
        """Record that Stripe has deleted *customer*, if it is registered: it accepts no usage any more."""
        await self._server.run_script("record_deletion", keys.customer(customer))

    async def registered_currencies(self, customers: Iterable[CustomerId]) -> dict[CustomerId, str]:
        """Return the currency of each of *customers* that is registered."""
        unique = list(dict.fromkeys(customers))
        currencies = await self._server.execute_all(
            [("HGET", keys.customer(customer), "currency") for customer in unique]
        )
        return {
            customer: currency.decode()
            for customer, currency in zip(unique, currencies, strict=True)
            if currency
        }

    async def with_unconfirmed_currency(self, customers: Iterable[CustomerId]) -> list[CustomerId]:
        """Return those of *customers* whose currency is that of a price, not yet their own at Stripe."""
        unique = list(dict.fromkeys(customers))
        ranks = await self._server.execute_all(
            [("HGET", keys.customer(customer), "currency_rank") for customer in unique]
        )
        return [
            customer
            for customer, rank in zip(unique, ranks, strict=True)
            if int(rank or 0) < CurrencySource.STRIPE
        ]

    async def record(
        self,
        deltas: Sequence[UsageDelta],
        prices: Mapping[str, Price],
    ) -> list[RecordResult]:
        """Record *deltas* and return their results in order; *prices* has a Price for every SKU.

        One script call per customer and 500 deltas; a rejected delta does not affect the others.
        LedgerUnavailable: some may have been counted, send all of them again.
        """
        results: list[RecordResult] = [REJECTED[ord("r")]] * len(deltas)
        batches = _split_batches(deltas, prices)
        interval = self._flush_interval()
        calls = [batch.script_call(self._policy, interval) for batch in batches]
        for batch, (letters, periods) in zip(
            batches, await self._server.run_scripts(calls, self._policy.replica_ack), strict=True
        ):
            accepted = [
                RecordResult(DeltaOutcome.ACCEPTED, Period.parse(period.decode()))
                for period in periods
            ]
            for at, row, letter in zip(batch.positions, batch.rows, letters, strict=True):
                results[at] = REJECTED.get(letter) or accepted[row - 1]
            CONFLICTS.inc(letters.count(b"c"))
        return results

    async def breakdown(
        self,
        customer: CustomerId,
        period: Period,
        dimension: Dimension,
    ) -> dict[str, dict[LineKey, Decimal]]:
        """Return quantities by value of *dimension*, then by line; usage without a value is under ``""``.

        The quantities of a line add up to the line's total.
        """
        totals, parts = await self._server.run_script(
            "breakdown", keys.customer(customer), str(period), dimension
        )
        rest = {
            LineKey(line.decode()): Decimal(total.split(b" ")[1].decode())
            for line, total in zip(totals[::2], totals[1::2], strict=True)
        }
        by_value: dict[str, dict[LineKey, Decimal]] = defaultdict(dict)
        for number, (field, text) in enumerate(zip(parts[::2], parts[1::2], strict=True), 1):
            if number % BATCH_SIZE == 0:
                await asyncio.sleep(0)  # there may be many thousands of values
            line, _, value = field.decode().partition("\0")
            by_value[value][LineKey(line)] = Decimal(text.decode())
            rest[LineKey(line)] -= Decimal(text.decode())
        unnamed = {line: quantity for line, quantity in rest.items() if quantity}
        return {**by_value, "": unnamed} if unnamed else dict(by_value)


def _split_batches(deltas: Sequence[UsageDelta], prices: Mapping[str, Price]) -> list["_Batch"]:
    """Group *deltas* by customer, at most 500 a batch; one without a valid quantity is in no batch."""
    batches: dict[CustomerId, list[_Batch]] = defaultdict(list)
    for position, delta in enumerate(deltas):
        try:
            hi, lo = to_fixed_point(delta.quantity)
        except QuantityOutOfRange:
            continue
        of_customer = batches[delta.customer]
        if not of_customer or len(of_customer[-1].positions) == BATCH_SIZE:
            of_customer.append(_Batch(delta.customer))
        of_customer[-1].add(position, delta, hi, lo, prices[delta.sku])
    return [batch for of_customer in batches.values() for batch in of_customer]


@cache
def _month(year: int, month: int) -> str:
    return str(Period(year, month))


class _Batch:
    """Columns for ``record.lua``. *positions* are in the caller's list; *rows* index the series from 1."""

    def __init__(self, customer: CustomerId) -> None:
        self.customer = customer
        self.positions: list[int] = []
        self.rows: list[int] = []
        self._hi: list[int] = []
        self._lo: list[int] = []
        self._at_ms: list[int] = []
        self._digests = bytearray()
        self._contents = bytearray()
        self._series: dict[tuple[str, ...], int] = {}

    def add(self, position: int, delta: UsageDelta, hi: int, lo: int, price: Price) -> None:
        """Append *delta*."""
        at = delta.occurred_at.astimezone(UTC)
        since = at - UNIX_EPOCH
        at_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        labels = (delta.app or "", delta.region or "", delta.organization or "")
        series = (_month(at.year, at.month), delta.sku, price.id, price.currency, *labels)
        content = f"{hi} {lo} {at_us} {delta.sku}\0{labels[0]}\0{labels[1]}\0{labels[2]}"
        self.positions.append(position)
        self.rows.append(self._series.setdefault(series, len(self._series) + 1))
        self._hi.append(hi)
        self._lo.append(lo)
        self._at_ms.append(at_us // 1000)
        self._digests += blake2b(delta.id.encode(), digest_size=12).digest()
        self._contents += crc32(content.encode()).to_bytes(4, "big")

    def script_call(self, policy: LedgerPolicy, interval: int) -> ScriptCall:
        """Return the script call that records this batch."""
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
