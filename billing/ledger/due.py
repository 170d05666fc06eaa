"""Due queue: the periods that a worker must flush, by shard and time, and the backlog of each shard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.codec import decode_fields
from billing.ledger.server import ScriptCall
from billing.usage import CustomerId, Period


@dataclass(frozen=True, slots=True)
class Backlog:
    """The longest wait in each queue of a shard (ms); None for an empty queue.

    *priority_ms* and *due_ms* are waits for a worker, negative until the work is due. *unsynced_ms*
    is the age of the oldest usage not yet sent to Stripe, customers on hold excluded. *parked* is
    the number of parked periods, *on_hold* the number of customers on hold, the first of them for
    *on_hold_ms*, *rewound* the number of customers of whom the ledger has lost usage that an invoice shows,
    *unbillable* the number of periods of deleted customers that a person has to write off; the latter are
    neither in *unsynced_ms* nor in *parked*. *differences* is the number of those in the books,
    *difference_sums* their sums in minor units by currency.
    """

    priority_ms: int | None
    due_ms: int | None
    unsynced_ms: int | None
    parked: int = 0
    on_hold: int = 0
    on_hold_ms: int | None = None
    rewound: int = 0
    unbillable: int = 0
    differences: int = 0
    difference_sums: Mapping[str, int] = field(default_factory=dict)


class DueQueue(LedgerPart):
    """Claims of due periods, and changes of their due time."""

    async def claim(
        self, shard: int, limit: int, visibility_ms: int
    ) -> list[tuple[CustomerId, Period]]:
        """Claim at most *limit* due periods of *shard*, hidden from other claims for *visibility_ms*."""
        members = await self._server.run_script("claim", keys.due(shard), limit, visibility_ms)
        return [keys.parse_member(member) for member in members]

    async def claim_priority(
        self, shard: int, limit: int, visibility_ms: int
    ) -> list[tuple[CustomerId, Period]]:
        """As `claim`, for closing periods and requested syncs only, which do not wait for routine flushes."""
        members = await self._server.run_script(
            "claim_first", keys.due(shard), limit, visibility_ms
        )
        return [keys.parse_member(member) for member in members]

    async def time_ms(self, customer: CustomerId, period: Period) -> int | None:
        """Return the latest time (ms) at which the period is flushed; None if nothing is pending."""
        key = keys.due(keys.shard_of(customer))
        score = await self._server.execute("ZSCORE", key, f"{customer}|{period}")
        return None if score is None else int(score)

    async def backlogs(self) -> list[Backlog]:
        """Return the backlog of each shard in one round trip, independent of the number of customers."""
        calls: list[ScriptCall] = [("waits", keys.due(shard), ()) for shard in range(keys.SHARDS)]
        return [
            replace(Backlog(*waits), difference_sums=_integers(sums))
            for *waits, sums in await self._server.run_scripts(calls)
        ]

    async def wake(self, customer: CustomerId, period: Period) -> bool:
        """Make the period due now, even if it is parked or backing off; False if it is sealed or unknown."""
        woken = await self._server.run_script("wake", keys.customer(customer), str(period))
        return bool(woken)

    async def wake_parked(self) -> int:
        """Make every parked period due now, because the cause may be resolved; return their number."""
        shards = range(keys.SHARDS)
        parked = await self._server.execute_all([("ZCARD", keys.parked(shard)) for shard in shards])
        calls: list[ScriptCall] = [
            ("wake_parked", keys.due(shard), ()) for shard in shards if parked[shard]
        ]
        return sum(await self._server.run_scripts(calls)) if calls else 0


def _integers(hash_fields: Sequence[bytes]) -> dict[str, int]:
    return {name: int(text) for name, text in decode_fields(hash_fields).items()}
