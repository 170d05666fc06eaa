"""Queries of the ledger, and requests for a sync."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from billing.invoicing.snapshot import Snapshot
from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.codec import decode_snapshot
from billing.ledger.server import ScriptCall
from billing.ledger.syncs import Sync, decode_sync
from billing.usage import CustomerId, LineKey, Period

Dimension = Literal["app", "region", "organization"]


@dataclass(frozen=True, slots=True)
class Backlog:
    """The longest wait in each queue of a shard (ms); None for an empty queue.

    *priority_ms* and *due_ms* are waits for a worker, negative until the work is due. *unsynced_ms*
    is the age of the oldest usage not yet sent to Stripe, customers on hold excluded. *parked* is
    the number of parked periods, *on_hold* the number of customers on hold, the first of them for
    *on_hold_ms*.
    """

    priority_ms: int | None
    due_ms: int | None
    unsynced_ms: int | None
    parked: int = 0
    on_hold: int = 0
    on_hold_ms: int | None = None


class Queries(LedgerPart):
    """Reads of periods and of the backlog. `request_sync` alone writes."""

    async def backlogs(self) -> list[Backlog]:
        """Return the backlog of each shard in one round trip, independent of the number of customers."""
        calls: list[ScriptCall] = [("waits", keys.due(shard), ()) for shard in range(keys.SHARDS)]
        return [Backlog(*values) for values in await self._server.run_scripts(calls)]

    async def snapshot(self, customer: CustomerId, period: Period) -> Snapshot:
        """Return a period as it is, without a lease; empty and open if nothing was ever recorded."""
        raw = await self._server.run_script("peek", keys.customer(customer), str(period))
        return decode_snapshot(customer, period, raw)

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

    async def current_period(self, customer: CustomerId) -> Period:
        """Return the period that counts usage of now: this month, or the first open one after it."""
        text = await self._server.run_script("landing", keys.customer(customer))
        return Period.parse(text.decode())

    async def count_open_periods(self) -> int:
        """Return the number of open periods of all customers."""
        shards = range(keys.SHARDS)
        return sum(
            await self._server.execute_all(
                [("ZCARD", keys.open_periods(shard)) for shard in shards]
            )
        )

    async def list_periods(self, customer: CustomerId) -> list[Period]:
        """Return the periods that the ledger retains, oldest first."""
        texts = await self._server.run_script("periods", keys.customer(customer))
        return sorted(Period.parse(text.decode()) for text in texts)

    async def due_ms(self, customer: CustomerId, period: Period) -> int | None:
        """Return the latest time (ms) at which the period is flushed; None if nothing is pending."""
        key = keys.due(keys.shard_of(customer))
        score = await self._server.execute("ZSCORE", key, f"{customer}|{period}")
        return None if score is None else int(score)

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
        for field, text in zip(parts[::2], parts[1::2], strict=True):
            line, _, value = field.decode().partition("\0")
            by_value[value][LineKey(line)] = Decimal(text.decode())
            rest[LineKey(line)] -= Decimal(text.decode())
        unnamed = {line: quantity for line, quantity in rest.items() if quantity}
        return {**by_value, "": unnamed} if unnamed else dict(by_value)

    async def request_sync(
        self,
        customer: CustomerId,
        trigger: str,
        *,
        by: str | None = None,
        period: Period | None = None,
    ) -> tuple[Sync, bool]:
        """Queue a sync; also return True if it joined one that was queued already.

        The sync is of *period* unless that is sealed, else of the current period. A running sync is
        not joined, because it may have read the ledger before this request. Workers poll within a
        second; a wake-up makes the run immediate.
        """
        number, joined, raw = await self._server.run_script(
            "request_sync",
            keys.customer(customer),
            trigger,
            by or "",
            self._policy.sync_grace_ms,
            self._policy.sync_history,
            str(period or ""),
        )
        fields = dict(zip(raw[::2], raw[1::2], strict=True))
        return decode_sync(customer, int(number), fields), bool(joined)
