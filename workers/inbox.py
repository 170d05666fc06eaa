"""Acts on what Stripe announced: forget, look, tell.

All waiting events of one object are worked on together, so a burst costs one look. Doing it twice is
harmless, hence nothing here asks whether it was done before: a generation replaced twice, a look asked
for twice and a subscriber told twice change nothing.
"""

import asyncio
import traceback
from collections.abc import Iterable
from dataclasses import replace

import structlog

from billing.budget import Lane
from billing.changes import Change, ChangeReason
from billing.effects import Duty, Notice, customer_of, period_of
from billing.errors import Refused, StripeRejected, Unavailable
from billing.inbox.events import Bundle, EventStatus
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
    await asyncio.gather(*(_work_on(services, bundle, places) for bundle in bundles))
    await services.inbox.trim()
    return sum(len(bundle.events) for bundle in bundles)


async def _work_on(services: Services, bundle: Bundle, places: asyncio.Semaphore) -> None:
    async with places:
        try:
            await _act(services, bundle.notices)
        except Unavailable as error:
            await services.inbox.postpone(bundle, error.message, error.retry_after)
        except Exception as error:  # noqa: BLE001 one broken event must not hold up the others
            _log_failure(bundle, error)
            await services.inbox.strike(bundle, _failure(error))
        else:
            await services.inbox.settle(bundle, _status(bundle))


def _status(bundle: Bundle) -> EventStatus:
    needed = any(each.effect is not None for each in bundle.notices)
    return EventStatus.PROCESSED if needed else EventStatus.IGNORED


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


async def _act(services: Services, notices: Iterable[Notice]) -> None:
    notices = await _with_owner(services, [each for each in notices if each.effect is not None])
    await services.cache.forget(*{name for each in notices for name in each.generations})
    for customer in {each.customer for each in notices if each.customer is not None}:
        theirs = [each for each in notices if each.customer == customer]
        await _do_duties(services, customer, theirs)
        invoice = next((each.invoice for each in theirs if each.invoice), None)
        await services.changes.publish(Change(customer, ChangeReason.WEBHOOK, invoice=invoice))


async def _with_owner(services: Services, notices: list[Notice]) -> list[Notice]:
    """*notices*, which speak of one object; whose it is is read from Stripe when none of them says."""
    path = next((each.path for each in notices if each.path), None)
    if path is None or any(each.customer for each in notices):
        return notices
    try:
        body = await services.stripe.read(path, lane=Lane.BACKGROUND)
    except StripeRejected as error:
        log.info("inbox.owner_unknown", path=path, status=error.status)
        return notices
    found, period = customer_of(body), period_of(body)
    return [replace(each, customer=found, period=each.period or period) for each in notices]


async def _do_duties(services: Services, customer: CustomerId, notices: list[Notice]) -> None:
    duties = {each.effect.duty for each in notices if each.effect is not None}
    looked = False
    for snapshot in await _periods(services, customer) if duties - {Duty.NOTHING} else ():
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
    return [await services.ledger.peek(customer, period) for period in periods]


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
