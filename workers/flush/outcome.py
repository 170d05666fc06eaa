"""The steps that flushing and closing share: look, plan, clear spare drafts.

Every step either moves something and answers None (decide again), or answers the `Ending` of the flush.
"""

from dataclasses import dataclass
from enum import StrEnum

from billing.errors import StripeRejected
from billing.invoicing import diff, requests
from billing.invoicing.remote_invoice import SeenInvoice
from billing.invoicing.snapshot import PlannedLine
from billing.ledger.syncs import SyncFailure
from billing.usage import LineKey
from workers.flush.execution import Run


class FlushOutcome(StrEnum):
    """How a flush ended."""

    SYNCED = "synced"
    SEALED = "sealed"
    WAITING = "waiting"
    RETRYING = "retrying"
    PARKED = "parked"
    BUSY = "busy"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Ending:
    """*delay_ms* until the period is looked at again, unless it is up to date."""

    outcome: FlushOutcome
    delay_ms: int = 0
    failure: SyncFailure | None = None


AGAIN = Ending(FlushOutcome.WAITING)


@dataclass(frozen=True, slots=True)
class Planned:
    """What the invoice should say, and the *change* that makes it say so."""

    lines: dict[LineKey, PlannedLine]
    change: diff.Difference


async def planned(run: Run) -> Planned | None:
    """The plan against what was read, else against what is remembered; None without room for a line."""
    room = diff.MAX_LINES - (0 if run.seen is None else run.seen.foreign)
    if room <= 0 and any(run.snapshot.totals.values()):
        return None
    lines = diff.wanted(run.snapshot, await run.prices(), room=max(room, 1))
    standing = run.snapshot.lines.items() if run.seen is None else run.seen.ours
    return Planned(lines, diff.difference(lines, standing))


async def prepare_change(run: Run, work: Planned) -> None:
    """Create the draft if there is none, otherwise write down the requests of *work*."""
    if run.snapshot.invoice is None:
        await run.prepare(requests.create(run.snapshot))
        return
    prices, seq = await run.prices(), run.next_seq()
    await run.prepare(requests.bulk(run.snapshot, work.change, work.lines, prices, seq=seq))


async def remember(run: Run) -> None:
    """Stripe says what the ledger says: write that down as of this snapshot."""
    snapshot = run.snapshot
    await run.commit(
        lines=snapshot.lines if run.seen is None else run.seen.by_key,
        told=(snapshot.version, snapshot.verify_requested),
    )


def spare_draft(run: Run) -> SeenInvoice | None:
    """A draft of the period that is one too many, left by a create that arrived very late."""
    spares = run.invoices if run.is_final else run.others or ()
    return next((each for each in spares if each.is_draft), None)


async def delete_draft(run: Run, draft: SeenInvoice) -> Ending | None:
    """Delete *draft* unless a person has put a line on it: then a person decides."""
    if draft.foreign:
        return parked(
            "two_drafts",
            f"Draft {draft.id} is one too many for {run.snapshot.period} and holds lines that are not"
            " the gateway's; move or delete them.",
        )
    lines = {
        key: PlannedLine(line.quantity, line.price, line.amount)
        for key, line in run.snapshot.lines.items()
        if draft.id != run.snapshot.invoice
    }
    await run.prepare(requests.delete(run.snapshot, draft.id, lines, seq=run.next_seq()))
    return None


def parked(code: str, message: str, request_id: str | None = None) -> Ending:
    """Set aside with a reason that a person can act on."""
    return Ending(FlushOutcome.PARKED, failure=SyncFailure(code, message, request_id))


def rejected(error: StripeRejected) -> Ending:
    """Set aside because Stripe said no twice, the second time to a plan made of its own state."""
    return parked(error.stripe_code or f"http_{error.status}", error.message, error.request_id)


def no_room(run: Run) -> Ending:
    """Other people's lines fill the invoice."""
    return parked(
        "no_room",
        f"Invoice {run.snapshot.invoice} has {diff.MAX_LINES} lines that are not the gateway's;"
        " remove some so that usage can be billed.",
    )
