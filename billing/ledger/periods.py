"""Periods: their snapshots, verification against Stripe, and their life from open to sealed."""

from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from billing.errors import ErrorCode, Refused
from billing.invoicing.snapshot import Lease, Snapshot
from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.codec import decode_snapshot
from billing.ledger.policy import RECOVERY_WINDOW_MS
from billing.ledger.quantities import format_quantity
from billing.ledger.server import ScriptCall
from billing.usage import CustomerId, LineKey, Period

SCAN_COUNT = 1_000


class Periods(LedgerPart):
    """A customer's month: open, closing once it is closed, sealed once its invoice is final."""

    async def snapshot(self, customer: CustomerId, period: Period) -> Snapshot:
        """Return a period as it is, without a lease; empty and open if nothing was ever recorded."""
        raw = await self._server.run_script("peek", keys.customer(customer), str(period))
        return decode_snapshot(customer, period, raw)

    async def snapshots(self, periods: Sequence[tuple[CustomerId, Period]]) -> list[Snapshot]:
        """As `snapshot`, for all *periods* in one round trip."""
        raws = await self._run_for_all("peek", periods)
        return [decode_snapshot(*place, raw) for place, raw in zip(periods, raws, strict=True)]

    async def current_snapshots(self, customers: Sequence[CustomerId]) -> list[Snapshot]:
        """Return each customer's period in which usage of now is counted, in one round trip."""
        calls: list[ScriptCall] = [
            ("current", keys.customer(customer), ()) for customer in customers
        ]
        return [
            decode_snapshot(customer, Period.parse(period.decode()), raw)
            for customer, (period, raw) in zip(
                customers, await self._server.run_scripts(calls), strict=True
            )
        ]

    async def current(self, customer: CustomerId) -> Period:
        """Return the period that counts usage of now: this month, or the first open one after it."""
        text = await self._server.run_script("landing", keys.customer(customer))
        return Period.parse(text.decode())

    async def list_retained(self, customer: CustomerId) -> list[Period]:
        """Return the periods that the ledger retains, oldest first."""
        texts = await self._server.run_script("periods", keys.customer(customer))
        return sorted(Period.parse(text.decode()) for text in texts)

    async def count_rewound(self) -> int:
        """Return the number of customers of whom the ledger has lost usage that an invoice shows."""
        shards = range(keys.SHARDS)
        return sum(
            await self._server.execute_all([("ZCARD", keys.rewound(shard)) for shard in shards])
        )

    async def list_rewound(self) -> list[Snapshot]:
        """Return the periods of which the ledger has lost usage that an invoice shows."""
        pages = await self._server.execute_all(
            [("ZRANGE", keys.rewound(shard), 0, -1) for shard in range(keys.SHARDS)]
        )
        customers = [CustomerId(name.decode()) for page in pages for name in page]
        return [
            snapshot
            for customer in customers
            for period in await self.list_retained(customer)
            if (snapshot := await self.snapshot(customer, period)).rewound
        ]

    async def count_open(self) -> int:
        """Return the number of open periods of all customers, rewound ones excluded."""
        shards = range(keys.SHARDS)
        return sum(
            await self._server.execute_all(
                [("ZCARD", keys.open_periods(shard)) for shard in shards]
            )
        )

    async def iter_open(self, shard: int) -> AsyncIterator[list[tuple[CustomerId, Period]]]:
        """Yield the open periods of *shard* in pages; one may occur twice, none open throughout is missed."""
        cursor: int | None = None
        while cursor != 0:
            command = ("ZSCAN", keys.open_periods(shard), cursor or 0, "COUNT", SCAN_COUNT)
            cursor, page = await self._server.execute(*command)
            yield [keys.parse_member(member) for member, _ in page]

    async def list_ended(
        self, shard: int, now_ms: int, limit: int
    ) -> list[tuple[CustomerId, Period]]:
        """Return at most *limit* open periods of *shard* that ended before *now_ms*.

        None of them ended less than the settle window ago by the ledger's clock. Empty while
        producers may still resend usage that a replaced server lost.
        """
        times = (self._policy.replay_window_ms, self._policy.settle_ms)
        members = await self._server.run_script("ended", keys.due(shard), now_ms, limit, *times)
        return [keys.parse_member(member) for member in members]

    async def close(self, customer: CustomerId, period: Period) -> bool:
        """Close an open period: later usage is counted in the next one. False if it is not open."""
        closed = await self._server.run_script("close", keys.customer(customer), str(period))
        return bool(closed)

    async def close_all(self, periods: Sequence[tuple[CustomerId, Period]]) -> int:
        """As `close`, for all *periods* in one round trip; return how many were open."""
        return sum(await self._run_for_all("close", periods))

    async def seal(
        self, lease: Lease, *, version: str, residuals: Mapping[LineKey, Decimal]
    ) -> bool:
        """Seal a closing period whose invoice is final; False if *version* is no longer the ledger's.

        *residuals* is, by line, the quantity in the ledger that the invoice lacks (negative: billed
        in excess). It moves to the next open period in the same step, at the price of its own
        period.
        """
        carried = [
            text
            for line, quantity in residuals.items()
            if quantity
            for text in (line, format_quantity(quantity))
        ]
        times = (self._policy.retention_ms, self._policy.settle_ms)
        sealed = await self._run_fenced("seal", lease, version, *times, *carried)
        return bool(sealed)

    async def request_verify(
        self, customer: CustomerId, period: Period, *, grace_ms: int = 0
    ) -> None:
        """Make the next flush read Stripe's invoice before it writes; it is due after *grace_ms*.

        With a grace, somebody has just edited the draft: until it ends, only a requested sync changes it.
        """
        await self._run_for_all("verify", [(customer, period)], RECOVERY_WINDOW_MS, grace_ms)

    async def request_verify_all(self, periods: Sequence[tuple[CustomerId, Period]]) -> None:
        """As `request_verify` without a grace, for all *periods* in one round trip."""
        await self._run_for_all("verify", periods, RECOVERY_WINDOW_MS, 0)

    async def last_reconciled(self) -> dict[int, int]:
        """Return by shard the time (ms) of its last reconciliation; a shard without one is left out."""
        times = await self._server.execute("HGETALL", keys.last_reconciled())
        return {int(shard): int(at_ms) for shard, at_ms in times.items()}

    async def record_reconciled(self, shard: int, at_ms: int) -> None:
        """Record that all open periods of *shard* were reconciled at *at_ms*."""
        await self._server.execute("HSET", keys.last_reconciled(), shard, at_ms)

    async def erase(self, customer: CustomerId, replacement: str) -> None:
        """Erase what the usage of *customer* was for, and put *replacement* in place of all free text.

        Refused while the customer's billing is on hold, or usage is not billed.
        """
        found = await self._run_acknowledged(
            "erase", keys.customer(customer), replacement, self._policy.sync_history
        )
        if found == [b"hold"]:
            raise Refused(ErrorCode.ON_HOLD, "Billing is on hold; release it first.")
        if found:
            months = ", ".join(sorted(month.decode() for month in found))
            raise Refused(
                ErrorCode.INVALID_INPUT,
                f"Usage of {months} is not billed yet; wait until its bill is final, or correct the usage to nothing.",
            )

    async def _run_for_all(
        self, name: str, periods: Sequence[tuple[CustomerId, Period]], *args: int
    ) -> list[Any]:
        calls: list[ScriptCall] = [
            (name, keys.customer(customer), (str(period), *args)) for customer, period in periods
        ]
        return await self._server.run_scripts(calls)
