"""The end of a period: cut it, tell Stripe the rest, wait until nothing is in doubt, finalize, seal.

There is one way to seal: look at the finalized invoices and carry what they leave unbilled into the
next open period. Who finalized them, and what they had edited before, makes no difference.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import structlog

from billing.invoicing import carry_forward, requests
from billing.invoicing.remote_invoice import VOID
from billing.invoicing.snapshot import Snapshot
from billing.usage import CustomerId, Period
from workers.flush.execution import Run
from workers.flush.on_hold import hold_for_void
from workers.flush.outcome import (
    AGAIN,
    Ending,
    FlushOutcome,
    Planned,
    delete_draft,
    no_room,
    planned,
    prepare_change,
    remember,
    spare_draft,
)

log = structlog.get_logger(__name__)


class EndedPort(Protocol):
    """The part of the ledger that knows which periods have ended."""

    async def ended(self, shard: int, now_ms: int, limit: int) -> list[tuple[CustomerId, Period]]:
        """Open periods whose end lies before *now_ms*."""

    async def close_all(self, periods: Sequence[tuple[CustomerId, Period]]) -> int:
        """Cut the periods, later usage goes to the next ones; how many were open."""


async def close_ended(
    ledger: EndedPort,
    shards: Iterable[int],
    *,
    now_ms: int,
    settle_ms: int,
    limit: int = 500,
) -> int:
    """Cut every period that ended more than *settle_ms* ago; how many. Harmless to repeat or to miss."""
    cut = 0
    for shard in shards:
        if found := await ledger.ended(shard, now_ms - settle_ms, limit):
            cut += await ledger.close_all(found)
    if cut:
        log.info("close.cut", periods=cut)
    return cut


async def closing_step(run: Run) -> Ending | None:
    """One step for a period that has been cut."""
    snapshot = run.snapshot
    unread = snapshot.invoice is not None and run.seen is None
    if unread or run.others is None:
        await run.look(listing=True)
        return None
    if spare := spare_draft(run):
        return await delete_draft(run, spare)
    if run.is_final:
        return await _seal(run)
    return await _finish_draft(run)


async def _finish_draft(run: Run) -> Ending | None:
    work = await planned(run)
    if work is None:
        return no_room(run)
    if work.change:
        await prepare_change(run, work)
        return None
    if run.seen is None:
        return await _seal(run)  # nothing was used, and Stripe has no invoice of the period either
    if not run.seen.lines:
        return await delete_draft(run, run.seen)
    if not run.snapshot.up_to_date:
        await remember(run)
        return None
    return await _finalize(run, work)


async def _finalize(run: Run, work: Planned) -> Ending | None:
    """Not before time has answered every request that was in doubt, and not without the last correction."""
    snapshot = run.snapshot
    quiet_at = snapshot.ambiguous_ms + run.ports.policy.quiet
    if snapshot.now_ms <= quiet_at:
        return Ending(FlushOutcome.WAITING, quiet_at - snapshot.now_ms + 1)
    flight = requests.finalize(snapshot, work.lines, seq=run.next_seq())
    return None if await run.prepare(flight) else AGAIN


async def _seal(run: Run) -> Ending:
    """Seal by what the finalized invoices say; a correction that came in between makes us look again."""
    snapshot = run.snapshot
    for invoice in [each.id for each in run.invoices if each.status == VOID]:
        await hold_for_void(run.ports.ledger, snapshot.customer, snapshot.period, invoice)
    lines = [line for invoice in run.invoices for line in invoice.ours]
    shown = dict(reversed(lines))
    if (shown, run.is_final) != (run.snapshot.lines, run.snapshot.final):
        await run.commit(lines=shown)  # from here on nobody corrects what cannot change any more
    snapshot = run.snapshot
    prices = await run.prices(set(carry_forward.price_ids(snapshot, lines).values()))
    left = carry_forward.residuals(snapshot, lines, prices)
    if not await run.ports.ledger.seal(run.lease, version=snapshot.version, residuals=left):
        return AGAIN
    _log_sealed(snapshot, len(left))
    return Ending(FlushOutcome.SEALED)


def _log_sealed(snapshot: Snapshot, carried: int) -> None:
    log.info(
        "period.sealed",
        customer=snapshot.customer,
        period=str(snapshot.period),
        invoice=snapshot.invoice,
        carried=carried,
    )
