"""Leases: a worker leases a period, writes its requests ahead, and commits the results.

Every write carries the lease's fence and is refused (LeaseLost) once another worker has taken over
or the server was replaced.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from billing.errors import UnknownPeriod
from billing.invoicing.request_batch import RequestBatch
from billing.invoicing.snapshot import Lease, Snapshot, StripeLine
from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.codec import decode_snapshot, encode_lines, encode_request_batch
from billing.ledger.sync_ids import sync_id
from billing.ledger.syncs import SyncFailure, SyncOutcome, SyncStatus
from billing.usage import CustomerId, LineKey, Period

LEASE_MS = 60_000
PARKED_RETRY_MS = 3_600_000
UNCHANGED = "*"
UNKNOWN = b"unknown"


@dataclass(frozen=True, slots=True)
class LeasedPeriod:
    """A lease, and the period's snapshot at the time it was acquired."""

    lease: Lease
    snapshot: Snapshot


class Leases(LedgerPart):
    """The lease of a period, and the writes that need it."""

    async def acquire(
        self,
        customer: CustomerId,
        period: Period,
        *,
        lease_ms: int = LEASE_MS,
    ) -> LeasedPeriod | None:
        """Lease a period and read it in the same step; None while another worker has the lease.

        Begins the period if there is none and it accepts usage, else raises UnknownPeriod.
        """
        times = (lease_ms, self._policy.quiet_ms, self._policy.settle_ms)
        key = keys.customer(customer)
        answer = await self._server.run_script("acquire", key, str(period), *times)
        if answer is None:
            return None
        if answer == UNKNOWN:
            raise UnknownPeriod(f"{customer} {period}")
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
        rewound: bool = False,
        stripe_version: str = "",
    ) -> None:
        """Record that Stripe has confirmed *lines* on *invoice* (None: there is none), and end the request batch.

        *version* is the version that Stripe now has (None: unchanged, "": unknown, so plan anew),
        *verify* the verification that was completed. *in_doubt*: a dropped request may still
        arrive, so an open draft is verified once more after the quiet time. *final*: the invoice is
        no longer a draft, and its period accepts no adjustment. *rewound*: the invoice shows usage that the
        ledger has lost, so the period is not closed until it no longer does; *stripe_version* is the version
        that the invoice names. The period leaves the due queue
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
            "1" if rewound else "",
            stripe_version,
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
        interval, history = self._flush_interval(), self._policy.sync_history
        numbers = await self._run_fenced(
            "release", lease, delay_ms, interval, history, *result, *failed, parked_reason
        )
        return [sync_id(lease.customer, int(number)) for number in numbers]
