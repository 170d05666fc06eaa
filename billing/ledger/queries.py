"""Reading the ledger, and asking for a sync."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from billing.invoicing.snapshot import Snapshot
from billing.ledger import keys
from billing.ledger.base import Door
from billing.ledger.codec import snapshot_of
from billing.ledger.server import Call
from billing.ledger.syncs import Sync, sync_of
from billing.usage import CustomerId, LineKey, Period

Dimension = Literal["app", "region", "organization"]


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the foremost in each line of a shard has waited (ms); None where nobody is.

    *first* and *due* wait for a worker, and are negative until their time has come; *untold* is the
    oldest usage that Stripe has not been told of, of customers who are not held. *parked* is how many
    periods Stripe refused for good, *held* how many customers are, the first of them for *held_for*.
    """

    first: int | None
    due: int | None
    untold: int | None
    parked: int = 0
    held: int = 0
    held_for: int | None = None


class Reading(Door):
    """Nothing here changes a bill."""

    async def waits(self) -> list[Waits]:
        """Who has waited longest, by shard; one round trip, however many customers there are."""
        calls: list[Call] = [("waits", keys.due(shard), ()) for shard in range(keys.SHARDS)]
        return [Waits(*found) for found in await self._server.run_all(calls)]

    async def peek(self, customer: CustomerId, period: Period) -> Snapshot:
        """A period as it stands, without a lease; empty and open when nothing was ever recorded."""
        raw = await self._server.run("peek", keys.customer(customer), str(period))
        return snapshot_of(customer, period, raw)

    async def currents(self, customers: Sequence[CustomerId]) -> list[Snapshot]:
        """For each of *customers*, the period in which usage of this moment is counted; one round trip."""
        calls: list[Call] = [("current", keys.customer(customer), ()) for customer in customers]
        return [
            snapshot_of(customer, Period.parse(period.decode()), raw)
            for customer, (period, raw) in zip(
                customers, await self._server.run_all(calls), strict=True
            )
        ]

    async def open_period(self, customer: CustomerId) -> Period:
        """Where usage of this moment is counted: this month, or the first after it that is open."""
        found = await self._server.run("landing", keys.customer(customer))
        return Period.parse(found.decode())

    async def open_count(self) -> int:
        """How many periods are open, over all customers."""
        shards = range(keys.SHARDS)
        return sum(
            await self._server.ask_all([("ZCARD", keys.open_periods(shard)) for shard in shards])
        )

    async def periods(self, customer: CustomerId) -> list[Period]:
        """The periods that the ledger still has, oldest first."""
        found = await self._server.run("periods", keys.customer(customer))
        return sorted(Period.parse(each.decode()) for each in found)

    async def due_ms(self, customer: CustomerId, period: Period) -> int | None:
        """When a worker looks at the period at the latest (ms); None when nothing is left to say."""
        key = keys.due(keys.shard_of(customer))
        score = await self._server.ask("ZSCORE", key, f"{customer}|{period}")
        return None if score is None else int(score)

    async def breakdown(
        self,
        customer: CustomerId,
        period: Period,
        dimension: Dimension,
    ) -> dict[str, dict[LineKey, Decimal]]:
        """Quantities by value of *dimension*, then by line; what names no value is under ``""``.

        The values' quantities of a line add up to the line's total.
        """
        totals, parts = await self._server.run(
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
        """A sync that waits for its run, and whether it was waiting already.

        It is of the *period* that has something new, unless that is sealed; else of the current one.

        One that runs now may have read the ledger before this request, so it is not joined. Workers
        look within a second; a wake-up makes that at once.
        """
        number, joined, raw = await self._server.run(
            "request_sync",
            keys.customer(customer),
            trigger,
            by or "",
            self._policy.sync_grace_ms,
            self._policy.sync_history,
            str(period or ""),
        )
        fields = dict(zip(raw[::2], raw[1::2], strict=True))
        return sync_of(customer, int(number), fields), bool(joined)
