"""Acts on what Stripe announced: learn whose it is, forget, look, tell.

Forgetting comes first, because who is woken or told reads at once. All waiting events of one object are
worked on together, so a burst costs one look; what is forgotten, told and settled for a hundred objects
costs a round trip each. Doing it twice is harmless, hence nothing here asks whether it was done before: a
look asked for twice, a generation replaced twice and a subscriber told twice change nothing.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import structlog

from billing.budget import Lane
from billing.cache import entries
from billing.change_feed import EVERYBODY, Change, ChangeReason
from billing.errors import Refused, StripeRejected, Unavailable
from billing.events.effects import Duty, Notice, customer_of, invoice_of
from billing.events.events import Bundle, EventStatus
from billing.invoicing.metadata_keys import period_of
from billing.invoicing.snapshot import PeriodState, Snapshot
from billing.ledger import Ledger
from billing.services import Services
from billing.usage import CustomerId
from workers.flush.on_hold import hold_for_void

log = structlog.get_logger(__name__)

AT_ONCE = 16  # objects side by side: enough for their commands to share the ledger's fsyncs
TRIGGER = "WEBHOOK"


async def process_inbox(services: Services, limit: int) -> int:
    """Work on the events of up to *limit* objects; how many events that were.

    What fails is tried again and given up in the end, without standing in anybody's way. Raises
    LedgerUnavailable; whatever was claimed comes up again.
    """
    bundles = await services.inbox.claim(limit)
    turns = _Turns(services, ends=asyncio.get_running_loop().time() + services.inbox.patience)
    known = await turns.take(_with_owner, [_Told.of(bundle) for bundle in bundles])
    forgotten = await _forget(services, known)
    duties = partial(_do_duties, _Waking(services.ledger))
    await _tell(services, await turns.take(duties, forgotten))
    await services.inbox.trim()
    return sum(len(bundle.events) for bundle in bundles)


@dataclass(frozen=True, slots=True)
class _Told:
    """A bundle; *notices* are those that have an effect, in the end with their owner."""

    bundle: Bundle
    notices: list[Notice]

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """What *bundle* asks for."""
        return cls(bundle, [each for each in bundle.notices if each.effect is not None])

    @property
    def status(self) -> EventStatus:
        return EventStatus.PROCESSED if self.notices else EventStatus.IGNORED

    @property
    def changes(self) -> list[Change]:
        invoice = next((each.invoice for each in self.notices if each.invoice), None)
        owners: set[str] = {each.customer for each in self.notices if each.customer is not None}
        if any(entries.CATALOGUE in each.generations for each in self.notices):
            owners.add(EVERYBODY)
        return [Change(owner, ChangeReason.WEBHOOK, invoice=invoice) for owner in owners]


Step = Callable[[Services, _Told], Awaitable[_Told]]


class _Turns:
    """Takes bundles a step further, a few at a time.

    What is not done when the time *ends* is given back: a worker that holds on to it would find that
    another one had claimed it meanwhile, again and again, until it counted as one that kills its workers.
    """

    def __init__(self, services: Services, ends: float) -> None:
        self._services = services
        self._ends = ends
        self._places = asyncio.Semaphore(AT_ONCE)

    async def take(self, step: Step, bundles: Sequence[_Told]) -> list[_Told]:
        """Those that came through; the others were given back."""
        done = await asyncio.gather(*(self._one(step, each) for each in bundles))
        return [each for each in done if each is not None]

    async def _one(self, step: Step, told: _Told) -> _Told | None:
        inbox = self._services.inbox
        try:
            async with asyncio.timeout_at(self._ends), self._places:
                return await step(self._services, told)
        except Unavailable as error:
            await inbox.postpone(told.bundle, error.message, error.retry_after)
        except TimeoutError:
            await inbox.postpone(told.bundle, "What it needs takes too long; ask again.", 1.0)
        except Exception as error:  # noqa: BLE001 one broken event must not hold up the others
            _log_failure(told.bundle, error)
            await inbox.strike(told.bundle, _failure(error))
        return None


async def _forget(services: Services, known: list[_Told]) -> list[_Told]:
    """*known*, when what they touch is forgotten; none, and all given back, while the cache is away."""
    forgotten = {name for each in known for notice in each.notices for name in notice.generations}
    try:
        if forgotten:
            await services.cache.forget(*forgotten)
    except Unavailable as error:
        for each in known:
            await services.inbox.postpone(each.bundle, error.message, error.retry_after)
        return []
    return known


async def _tell(services: Services, done: Sequence[_Told]) -> None:
    """Tell those who follow, and settle."""
    if not done:
        return
    await services.changes.publish(*(change for each in done for change in each.changes))
    for status in {each.status for each in done}:
        bundles = [each.bundle for each in done if each.status is status]
        await services.inbox.settle_all(bundles, status)


def _log_failure(bundle: Bundle, error: Exception) -> None:
    """No traceback: its variables may quote an answer of Stripe's."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error(
        "inbox.failed",
        subject=bundle.subject,
        error=type(error).__name__,
        at=f"{place.name}:{place.lineno}",
    )


def _failure(error: Exception) -> str:
    """What Support sees: our own sentence, or the kind of a surprise (its text may quote a payload)."""
    return error.message if isinstance(error, Refused) else type(error).__name__


async def _with_owner(services: Services, told: _Told) -> _Told:
    """Those notices that do not say whose the object is learn it from one that does, or from Stripe."""
    knows = next((each for each in told.notices if each.customer), None)
    knows = knows or await _read(services, told.notices)
    if knows is None:
        return told
    return replace(
        told, notices=[each if each.customer else _of(knows, each) for each in told.notices]
    )


def _of(knows: Notice, notice: Notice) -> Notice:
    return replace(notice, customer=knows.customer, invoice=knows.invoice, period=knows.period)


async def _read(services: Services, notices: list[Notice]) -> Notice | None:
    """What Stripe says now of the object that *notices* only name; None when it has a place for it no more."""
    named = next((each for each in notices if each.path), None)
    if named is None or named.path is None:
        return None
    try:
        body = await services.stripe.read(named.path, lane=Lane.BACKGROUND)
    except StripeRejected as error:
        log.info("inbox.owner_unknown", path=named.path, status=error.status)
        return None
    return replace(
        named,
        customer=customer_of(body),
        invoice=invoice_of(body),
        period=period_of(body.get("metadata")),
    )


class _Waking:
    """Wakes whoever is parked, once for all prices of a batch: every shard is asked."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waking: asyncio.Task[int] | None = None

    async def done(self) -> None:
        """All were woken."""
        if self._waking is None:
            self._waking = asyncio.create_task(self._ledger.wake_parked())
        await asyncio.shield(self._waking)


async def _do_duties(waking: _Waking, services: Services, told: _Told) -> _Told:
    notices = told.notices
    if any(each.effect and each.effect.duty is Duty.WAKE_ALL for each in notices):
        await waking.done()
    for customer in {each.customer for each in notices if each.customer is not None}:
        theirs = [each for each in notices if each.customer == customer]
        duties = {each.effect.duty for each in theirs if each.effect is not None}
        if duties - {Duty.NOTHING}:
            await _do(services, duties, customer, theirs)
    return told


async def _do(
    services: Services, duties: set[Duty], customer: CustomerId, notices: list[Notice]
) -> None:
    looked = False
    for snapshot in await _periods(services, customer):
        about = any(_is_about(each, snapshot) for each in notices)
        if snapshot.state is PeriodState.SEALED:
            if about and Duty.HOLD in duties:
                invoice = str(snapshot.invoice)
                await hold_for_void(services.ledger, customer, snapshot.period, invoice)
            continue
        if about and duties & {Duty.LOOK, Duty.HOLD}:
            await services.ledger.request_verify(customer, snapshot.period)
            looked = True
        if snapshot.stuck and (about or Duty.WAKE in duties):
            await services.ledger.wake(customer, snapshot.period)
    if looked:
        await services.ledger.request_sync(customer, TRIGGER)


async def _periods(services: Services, customer: CustomerId) -> list[Snapshot]:
    periods = await services.ledger.periods(customer)
    return await asyncio.gather(*(services.ledger.peek(customer, period) for period in periods))


def _is_about(notice: Notice, snapshot: Snapshot) -> bool:
    """Whether the invoice is the period's: by our metadata on it, or because the ledger made it."""
    return notice.period == snapshot.period or (
        notice.invoice is not None and notice.invoice == snapshot.invoice
    )
