"""Acts on what Stripe announced: look, forget, tell.

All waiting events of one object are worked on together, so a burst costs one look; what is forgotten,
told and settled for a hundred objects costs a round trip each. Doing it twice is harmless, hence
nothing here asks whether it was done before: a look asked for twice, a generation replaced twice and
a subscriber told twice change nothing.
"""

import asyncio
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from billing.budget import Lane
from billing.cache import tags
from billing.changes import EVERYBODY, Change, ChangeReason
from billing.effects import Duty, Notice, customer_of, invoice_of
from billing.errors import Refused, StripeRejected, Unavailable
from billing.inbox.events import Bundle, EventStatus
from billing.marks import period_of
from billing.services import Services
from billing.snapshot import PeriodState, Snapshot
from billing.usage import CustomerId
from workers.close import GATEWAY, voided

log = structlog.get_logger(__name__)

AT_ONCE = 16  # objects side by side: enough for their commands to share the ledger's fsyncs
TRIGGER = "WEBHOOK"


async def process_inbox(services: Services, limit: int) -> int:
    """Work on the events of up to *limit* objects; how many events that were.

    What fails is tried again and given up in the end, without standing in anybody's way. Raises
    LedgerUnavailable; whatever was claimed comes up again.
    """
    bundles = await services.inbox.claim(limit)
    places = asyncio.Semaphore(AT_ONCE)
    looked = await asyncio.gather(*(_look(services, bundle, places) for bundle in bundles))
    await _finish(services, [each for each in looked if each is not None])
    await services.inbox.trim()
    return sum(len(bundle.events) for bundle in bundles)


@dataclass(frozen=True, slots=True)
class _Looked:
    """A bundle whose duties are done; *notices* are those that have an effect, with their owner."""

    bundle: Bundle
    notices: list[Notice]

    @property
    def status(self) -> EventStatus:
        return EventStatus.PROCESSED if self.notices else EventStatus.IGNORED

    @property
    def changes(self) -> list[Change]:
        invoice = next((each.invoice for each in self.notices if each.invoice), None)
        owners: set[str] = {each.customer for each in self.notices if each.customer is not None}
        if any(tags.CATALOGUE in each.generations for each in self.notices):
            owners.add(EVERYBODY)
        return [Change(owner, ChangeReason.WEBHOOK, invoice=invoice) for owner in owners]


async def _look(services: Services, bundle: Bundle, places: asyncio.Semaphore) -> _Looked | None:
    """Do the duties; None when they have to be tried again."""
    async with places:
        try:
            needed = [each for each in bundle.notices if each.effect is not None]
            notices = await _with_owner(services, needed)
            await _do_duties(services, notices)
        except Unavailable as error:
            await services.inbox.postpone(bundle, error.message, error.retry_after)
        except Exception as error:  # noqa: BLE001 one broken event must not hold up the others
            _log_failure(bundle, error)
            await services.inbox.strike(bundle, _failure(error))
        else:
            return _Looked(bundle, notices)
        return None


async def _finish(services: Services, looked: Sequence[_Looked]) -> None:
    """Forget, tell and settle; without the cache all of it is tried again."""
    if not looked:
        return
    try:
        forgotten = {
            name for each in looked for notice in each.notices for name in notice.generations
        }
        await services.cache.forget(*forgotten)
    except Unavailable as error:
        for each in looked:
            await services.inbox.postpone(each.bundle, error.message, error.retry_after)
        return
    await services.changes.publish(*(change for each in looked for change in each.changes))
    for status in {each.status for each in looked}:
        bundles = [each.bundle for each in looked if each.status is status]
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


async def _with_owner(services: Services, notices: list[Notice]) -> list[Notice]:
    """*notices*, which speak of one object: who does not say whose it is learns it from one that does, or from Stripe."""
    told = next((each for each in notices if each.customer), None)
    if told is None:
        told = await _read(services, notices)
    if told is None:
        return notices
    return [
        each
        if each.customer
        else replace(each, customer=told.customer, invoice=told.invoice, period=told.period)
        for each in notices
    ]


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


async def _do_duties(services: Services, notices: list[Notice]) -> None:
    if any(each.effect and each.effect.duty is Duty.WAKE_ALL for each in notices):
        await services.ledger.wake_parked()
    for customer in {each.customer for each in notices if each.customer is not None}:
        theirs = [each for each in notices if each.customer == customer]
        duties = {each.effect.duty for each in theirs if each.effect is not None}
        if duties - {Duty.NOTHING}:
            await _do(services, duties, customer, theirs)


async def _do(
    services: Services, duties: set[Duty], customer: CustomerId, notices: list[Notice]
) -> None:
    looked = False
    for snapshot in await _periods(services, customer):
        about = any(_is_about(each, snapshot) for each in notices)
        if snapshot.state is PeriodState.SEALED:
            if about and Duty.HOLD in duties:
                await _hold(services, snapshot)
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


async def _hold(services: Services, snapshot: Snapshot) -> None:
    """Whether what a voided invoice billed is asked for again is a person's decision."""
    reason = (
        f"Invoice {snapshot.invoice} was voided in Stripe after {snapshot.period} had ended. Adjust the"
        " next bill if that usage is still owed, then release."
    )
    about = voided(str(snapshot.invoice))  # a person who has decided is not asked again
    await services.ledger.hold_once(snapshot.customer, reason, GATEWAY, about)
    log.warning("invoice.voided", customer=snapshot.customer, invoice=snapshot.invoice)


def _is_about(notice: Notice, snapshot: Snapshot) -> bool:
    """Whether the invoice is the period's: by our metadata on it, or because the ledger made it."""
    return notice.period == snapshot.period or (
        notice.invoice is not None and notice.invoice == snapshot.invoice
    )
