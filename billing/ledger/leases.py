"""Leases: a worker leases a period, writes its requests ahead, and commits the results.

Every write carries the lease's fence and is refused (LeaseLost) once another worker has taken over
or the server was replaced.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from billing.invoicing.snapshot import Lease, RequestBatch, Snapshot, StripeLine
from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.codec import decode_snapshot, encode_lines, encode_request_batch
from billing.ledger.quantities import format_quantity
from billing.ledger.server import ScriptCall
from billing.ledger.syncs import SyncFailure, SyncOutcome, SyncStatus, sync_id
from billing.usage import CustomerId, LineKey, Period

LEASE_MS = 60_000
PARKED_RETRY_MS = 3_600_000
SCAN_COUNT = 1_000
UNCHANGED = "*"


@dataclass(frozen=True, slots=True)
class LeasedPeriod:
    """A lease, and the period's snapshot at the time it was acquired."""

    lease: Lease
    snapshot: Snapshot


class Leases(LedgerPart):
    """The due queue, leases, and the life of a period from open to sealed."""

    async def claim(
        self, shard: int, limit: int, visibility_ms: int
    ) -> list[tuple[CustomerId, Period]]:
        """Claim at most *limit* due periods of *shard*, hidden from other claims for *visibility_ms*."""
        members = await self._server.run_script("claim", keys.due(shard), limit, visibility_ms)
        return [_parse_member(member) for member in members]

    async def claim_priority(
        self, shard: int, limit: int, visibility_ms: int
    ) -> list[tuple[CustomerId, Period]]:
        """As `claim`, for closing periods and requested syncs only, which do not wait for routine flushes."""
        members = await self._server.run_script(
            "claim_first", keys.due(shard), limit, visibility_ms
        )
        return [_parse_member(member) for member in members]

    async def acquire(
        self,
        customer: CustomerId,
        period: Period,
        *,
        lease_ms: int = LEASE_MS,
    ) -> LeasedPeriod | None:
        """Lease a period and read it in the same step; None while another worker has the lease."""
        answer = await self._server.run_script(
            "acquire", keys.customer(customer), str(period), lease_ms, self._policy.quiet_ms
        )
        if answer is None:
            return None
        fence, raw = answer
        lease = Lease(customer, period, fence.decode())
        return LeasedPeriod(lease, decode_snapshot(customer, period, raw))

    async def renew(self, lease: Lease, lease_ms: int = LEASE_MS) -> None:
        """Extend the lease to *lease_ms* from now."""
        await self._run_fenced("renew", lease, lease_ms)

    async def prepare(self, lease: Lease, batch: RequestBatch) -> bool:
        """Write *batch* ahead of sending it; it replaces an earlier one.

        False if it would finalize an invoice that lacks an adjustment: the ledger's version is
        newer.
        """
        finalizes = batch.version if batch.finalizes else ""
        written = await self._run_fenced(
            "prepare", lease, encode_request_batch(batch), batch.seq, finalizes
        )
        return bool(written)

    async def mark_request_done(self, lease: Lease, index: int) -> None:
        """Record that request *index* of the batch is done."""
        await self._run_fenced("mark", lease, index)

    async def mark_in_doubt(self, lease: Lease) -> None:
        """Record that a request was sent without a known outcome; finalization is delayed."""
        await self._run_fenced("in_doubt", lease)

    async def commit(  # noqa: PLR0913 one atomic step
        self,
        lease: Lease,
        *,
        version: str | None,
        verify: str | None,
        invoice: str | None,
        lines: Mapping[LineKey, StripeLine],
        seq: int | None = None,
        invoice_generation: int | None = None,
        in_doubt: bool = False,
        final: bool = False,
    ) -> None:
        """Record that Stripe has confirmed *lines* on *invoice* (None: there is none), and end the request batch.

        *version* is the version that Stripe now has (None: unchanged, "": unknown, so plan anew),
        *verify* the verification that was completed. *in_doubt*: a dropped request may still
        arrive, so an open draft is verified once more after the quiet time. *final*: the invoice is
        no longer a draft, and its period accepts no adjustment. The period leaves the due queue
        only if nothing is pending, in the same step.
        """
        await self._run_fenced(
            "commit",
            lease,
            UNCHANGED if version is None else version,
            UNCHANGED if verify is None else verify,
            invoice or "",
            encode_lines(lines),
            UNCHANGED if seq is None else seq,
            UNCHANGED if invoice_generation is None else invoice_generation,
            self._policy.quiet_ms if in_doubt else 0,
            "1" if final else "",
        )

    async def release(
        self,
        lease: Lease,
        *,
        delay_ms: int = 0,
        sync: SyncOutcome | None = None,
    ) -> list[str]:
        """Release the lease; a period that is not clean is due again after *delay_ms*.

        Without a delay, usage recorded during the flush waits for the next interval. A sync that
        was requested meanwhile makes the period due at once in any case. *sync* is the outcome for
        the running syncs; None derives it from the period. Answers the ids of the syncs that this
        was a run of.
        """
        return await self._release(lease, delay_ms, sync, parked_reason="")

    async def park(
        self,
        lease: Lease,
        failure: SyncFailure,
        sync: SyncOutcome | None = None,
    ) -> list[str]:
        """Release the lease and park the period: it is due again after an hour or a `wake`.

        *sync* is the work done before. Its syncs, whose ids are answered, are FAILED with
        *failure*.
        """
        outcome = sync or SyncOutcome(SyncStatus.FAILED)
        failed = replace(outcome, status=SyncStatus.FAILED, failure=failure)
        return await self._release(lease, PARKED_RETRY_MS, failed, parked_reason=failure.code)

    async def wake(self, customer: CustomerId, period: Period) -> None:
        """Make the period due now, even if it is parked or backing off."""
        await self._server.run_script("wake", keys.customer(customer), str(period))

    async def wake_parked(self) -> int:
        """Make every parked period due now, because the cause may be resolved; return their number."""
        shards = range(keys.SHARDS)
        parked = await self._server.execute_all([("ZCARD", keys.parked(shard)) for shard in shards])
        calls: list[ScriptCall] = [
            ("wake_parked", keys.due(shard), ()) for shard in shards if parked[shard]
        ]
        return sum(await self._server.run_scripts(calls)) if calls else 0

    async def request_verify(self, customer: CustomerId, period: Period) -> None:
        """Make the next flush, due now, read Stripe's invoice before it writes."""
        await self._server.run_script("verify", keys.customer(customer), str(period))

    async def request_verify_all(self, periods: Sequence[tuple[CustomerId, Period]]) -> None:
        """As `request_verify`, for all *periods* in one round trip."""
        await self._run_for_all("verify", periods)

    async def last_reconciled(self) -> dict[int, int]:
        """Return by shard the time (ms) of its last reconciliation; a shard without one is left out."""
        times = await self._server.execute("HGETALL", keys.last_reconciled())
        return {int(shard): int(at_ms) for shard, at_ms in times.items()}

    async def record_reconciled(self, shard: int, at_ms: int) -> None:
        """Record that all open periods of *shard* were reconciled at *at_ms*."""
        await self._server.execute("HSET", keys.last_reconciled(), shard, at_ms)

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

    async def ended_periods(
        self, shard: int, now_ms: int, limit: int
    ) -> list[tuple[CustomerId, Period]]:
        """Return at most *limit* open periods of *shard* that ended before *now_ms*.

        Empty while producers may still resend usage that a replaced server lost.
        """
        members = await self._server.run_script(
            "ended", keys.due(shard), now_ms, limit, self._policy.replay_window_ms
        )
        return [_parse_member(member) for member in members]

    async def open_periods(self, shard: int) -> AsyncIterator[list[tuple[CustomerId, Period]]]:
        """Yield the open periods of *shard* in pages; one may occur twice, none open throughout is missed."""
        cursor: int | None = None
        while cursor != 0:
            command = ("ZSCAN", keys.open_periods(shard), cursor or 0, "COUNT", SCAN_COUNT)
            cursor, page = await self._server.execute(*command)
            yield [_parse_member(member) for member, _ in page]

    async def _run_for_all(
        self, name: str, periods: Sequence[tuple[CustomerId, Period]]
    ) -> list[int]:
        calls: list[ScriptCall] = [
            (name, keys.customer(customer), (str(period),)) for customer, period in periods
        ]
        return await self._server.run_scripts(calls)

    async def _release(
        self, lease: Lease, delay_ms: int, sync: SyncOutcome | None, *, parked_reason: str
    ) -> list[str]:
        result: tuple[str | int, ...] = ("", 0, 0, 0, 0, "")
        failure = None
        if sync:
            counts = (sync.lines_added, sync.lines_updated, sync.lines_removed)
            result = (sync.status, *counts, sync.stripe_calls, sync.invoice or "")
            failure = sync.failure
        failed = (
            (failure.code, failure.message, failure.request_id or "") if failure else ("", "", "")
        )
        interval, history = self._policy.interval(self._new_nonce()), self._policy.sync_history
        numbers = await self._run_fenced(
            "release", lease, delay_ms, interval, history, *result, *failed, parked_reason
        )
        return [sync_id(lease.customer, int(number)) for number in numbers]

    async def _run_fenced(self, name: str, lease: Lease, *args: str | bytes | int) -> Any:
        key = keys.customer(lease.customer)
        return await self._server.run_script(name, key, str(lease.period), lease.fence, *args)


def _parse_member(raw: bytes) -> tuple[CustomerId, Period]:
    customer, _, period = raw.decode().rpartition("|")
    return CustomerId(customer), Period.parse(period)
