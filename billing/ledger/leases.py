"""The flush port: a worker takes a period, writes ahead what it will send, and says what came of it.

Every write names the lease's fence and is refused (LeaseLost) once another worker has taken over or
the server was replaced.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from billing.invoicing.snapshot import Flight, Lease, Snapshot, StripeLine
from billing.ledger import keys
from billing.ledger.base import Door
from billing.ledger.codec import flight_json, lines_json, snapshot_of
from billing.ledger.quantities import as_text
from billing.ledger.server import Call
from billing.ledger.syncs import SyncFailure, SyncOutcome, SyncStatus, sync_id
from billing.usage import CustomerId, LineKey, Period

LEASE_MS = 60_000
PARKED_MS = 3_600_000
PAGE = 1_000
KEEP = "*"


@dataclass(frozen=True, slots=True)
class Held:
    """A lease, and the period as it stood when the lease was taken."""

    lease: Lease
    snapshot: Snapshot


class Flushing(Door):
    """From due to told, and from closing to sealed."""

    async def claim(
        self, shard: int, limit: int, visibility_ms: int
    ) -> list[tuple[CustomerId, Period]]:
        """At most *limit* due periods of *shard*, hidden from other claims for *visibility_ms*."""
        found = await self._server.run("claim", keys.due(shard), limit, visibility_ms)
        return [_member(each) for each in found]

    async def claim_first(
        self, shard: int, limit: int, visibility_ms: int
    ) -> list[tuple[CustomerId, Period]]:
        """As `claim`, of those that everybody else's turn must not delay: closing, or asked for."""
        found = await self._server.run("claim_first", keys.due(shard), limit, visibility_ms)
        return [_member(each) for each in found]

    async def acquire(
        self,
        customer: CustomerId,
        period: Period,
        *,
        lease_ms: int = LEASE_MS,
    ) -> Held | None:
        """The lease of a period and all of it at that moment; None while somebody else holds it."""
        answer = await self._server.run(
            "acquire", keys.customer(customer), str(period), lease_ms, self._policy.quiet_ms
        )
        if answer is None:
            return None
        fence, raw = answer
        lease = Lease(customer, period, fence.decode())
        return Held(lease, snapshot_of(customer, period, raw))

    async def renew(self, lease: Lease, lease_ms: int = LEASE_MS) -> None:
        """Keep the lease for *lease_ms* from now."""
        await self._fenced("renew", lease, lease_ms)

    async def prepare(self, lease: Lease, flight: Flight) -> bool:
        """Write *flight* ahead of sending it; it replaces an earlier one.

        False if it would finalize a bill that lacks a correction: the ledger has moved past its version.
        """
        final = flight.version if flight.finalizes else ""
        written = await self._fenced("prepare", lease, flight_json(flight), flight.seq, final)
        return bool(written)

    async def mark(self, lease: Lease, index: int) -> None:
        """The flight's request *index* is done."""
        await self._fenced("mark", lease, index)

    async def in_doubt(self, lease: Lease) -> None:
        """A request was sent whose outcome is not known: nothing is finalized for a while."""
        await self._fenced("in_doubt", lease)

    async def commit(  # noqa: PLR0913 all of it becomes true in one step
        self,
        lease: Lease,
        *,
        version: str | None,
        verify: str | None,
        invoice: str | None,
        lines: Mapping[LineKey, StripeLine],
        seq: int | None = None,
        invoice_generation: int | None = None,
        doubt: bool = False,
        final: bool = False,
    ) -> None:
        """Stripe has confirmed *lines* on *invoice* (None: there is none); the flight is over.

        *version* is what Stripe now knows of (None: as before, "": nothing, so plan anew), *verify*
        the verify request that was answered. *doubt*: a dropped request may still arrive, so an open
        draft is verified once more after the quiet time. *final*: the invoice is no draft any more, and
        its period takes no correction. The due mark goes only if the ledger sees, in the same step, that
        nothing is left to say.
        """
        await self._fenced(
            "commit",
            lease,
            KEEP if version is None else version,
            KEEP if verify is None else verify,
            invoice or "",
            lines_json(lines),
            KEEP if seq is None else seq,
            KEEP if invoice_generation is None else invoice_generation,
            self._policy.quiet_ms if doubt else 0,
            "1" if final else "",
        )

    async def release(
        self,
        lease: Lease,
        *,
        delay_ms: int = 0,
        sync: SyncOutcome | None = None,
    ) -> list[str]:
        """Give the lease back; what is not clean is due again after *delay_ms*.

        Without a delay, usage that came during the flush waits for its turn; a sync that was asked
        for meanwhile is due at once in any case. *sync* tells the running syncs what happened; None
        leaves them to what the period shows. Answers the syncs that this was a run of.
        """
        return await self._release(lease, delay_ms, sync, stuck="")

    async def park(
        self,
        lease: Lease,
        failure: SyncFailure,
        sync: SyncOutcome | None = None,
    ) -> list[str]:
        """Give the lease back and let the period rest: it takes a person, or an hour, to go on.

        *sync* says what had been done before; its syncs, which this answers, have FAILED with *failure*.
        """
        done = sync or SyncOutcome(SyncStatus.FAILED)
        failed = replace(done, status=SyncStatus.FAILED, failure=failure)
        return await self._release(lease, PARKED_MS, failed, stuck=failure.code)

    async def wake(self, customer: CustomerId, period: Period) -> None:
        """Look at a period at once, whatever it rested for."""
        await self._server.run("wake", keys.customer(customer), str(period))

    async def wake_parked(self) -> int:
        """Look at once at every parked period, because what parked it may be cured; how many."""
        shards = range(keys.SHARDS)
        parked = await self._server.ask_all([("ZCARD", keys.parked(shard)) for shard in shards])
        calls: list[Call] = [
            ("wake_parked", keys.due(shard), ()) for shard in shards if parked[shard]
        ]
        return sum(await self._server.run_all(calls)) if calls else 0

    async def request_verify(self, customer: CustomerId, period: Period) -> None:
        """Have the next flush, due now, read Stripe's side before it writes."""
        await self._server.run("verify", keys.customer(customer), str(period))

    async def request_verify_all(self, periods: Sequence[tuple[CustomerId, Period]]) -> None:
        """As `request_verify`, for all *periods* in one round trip."""
        await self._of_all("verify", periods)

    async def compared(self) -> dict[int, int]:
        """When the open periods of each shard were last to be compared (ms); a shard that never was is left out."""
        found = await self._server.ask("HGETALL", keys.compared())
        return {int(shard): int(at_ms) for shard, at_ms in found.items()}

    async def note_compared(self, shard: int, at_ms: int) -> None:
        """All open periods of *shard* count as compared at *at_ms*."""
        await self._server.ask("HSET", keys.compared(), shard, at_ms)

    async def close(self, customer: CustomerId, period: Period) -> bool:
        """Cut an open period: from here on its usage is counted in the next one. False if not open."""
        cut = await self._server.run("close", keys.customer(customer), str(period))
        return bool(cut)

    async def close_all(self, periods: Sequence[tuple[CustomerId, Period]]) -> int:
        """As `close`, for all *periods* in one round trip; how many were open."""
        return sum(await self._of_all("close", periods))

    async def seal(
        self, lease: Lease, *, version: str, residuals: Mapping[LineKey, Decimal]
    ) -> bool:
        """End a closing period whose invoice is final; False if *version* is no longer the ledger's.

        *residuals* is, by line, what the ledger has and the invoice has not (negative: billed too
        much). It moves to the next open period in the same step, at its own period's price.
        """
        carried = [
            text
            for line, quantity in residuals.items()
            if quantity
            for text in (line, as_text(quantity))
        ]
        times = (self._policy.retention_ms, self._policy.settle_ms)
        sealed = await self._fenced("seal", lease, version, *times, *carried)
        return bool(sealed)

    async def ended(self, shard: int, now_ms: int, limit: int) -> list[tuple[CustomerId, Period]]:
        """At most *limit* open periods of *shard* that ended before *now_ms*.

        Empty while producers may still be sending again what a replaced server lost.
        """
        found = await self._server.run(
            "ended", keys.due(shard), now_ms, limit, self._policy.replay_window_ms
        )
        return [_member(each) for each in found]

    async def open_periods(self, shard: int) -> AsyncIterator[list[tuple[CustomerId, Period]]]:
        """Every period of *shard* that is open all the while, a page at a time, some perhaps twice."""
        cursor: int | None = None
        while cursor != 0:
            asked = ("ZSCAN", keys.open_periods(shard), cursor or 0, "COUNT", PAGE)
            cursor, page = await self._server.ask(*asked)
            yield [_member(member) for member, _ in page]

    async def _of_all(self, name: str, periods: Sequence[tuple[CustomerId, Period]]) -> list[int]:
        calls: list[Call] = [
            (name, keys.customer(customer), (str(period),)) for customer, period in periods
        ]
        return await self._server.run_all(calls)

    async def _release(
        self, lease: Lease, delay_ms: int, sync: SyncOutcome | None, *, stuck: str
    ) -> list[str]:
        said: tuple[str | int, ...] = ("", 0, 0, 0, 0, "")
        failure = None
        if sync:
            changed = (sync.lines_added, sync.lines_updated, sync.lines_removed)
            said = (sync.status, *changed, sync.stripe_calls, sync.invoice or "")
            failure = sync.failure
        why = (failure.code, failure.message, failure.request_id or "") if failure else ("", "", "")
        interval, history = self._policy.interval(self._nonce()), self._policy.sync_history
        ran = await self._fenced("release", lease, delay_ms, interval, history, *said, *why, stuck)
        return [sync_id(lease.customer, int(number)) for number in ran]

    async def _fenced(self, name: str, lease: Lease, *args: str | bytes | int) -> Any:
        key = keys.customer(lease.customer)
        return await self._server.run(name, key, str(lease.period), lease.fence, *args)


def _member(raw: bytes) -> tuple[CustomerId, Period]:
    customer, _, period = raw.decode().rpartition("|")
    return CustomerId(customer), Period.parse(period)
