"""Processes Stripe's events: find the customer, invalidate the cache, follow up in the ledger, publish.

The cache is invalidated first, because a woken flush or a notified panel reads at once. All waiting events of
one object are processed together, so a burst costs one verify; invalidating, publishing and completing a
hundred objects costs one round trip each. Every effect is idempotent, so nothing here checks for repetition.
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
from billing.change_feed import ALL_CUSTOMERS, Change, ChangeReason
from billing.errors import Refused, StripeRejected, Unavailable
from billing.events.effects import EventRef, FollowUp, customer_of, invoice_of
from billing.events.records import EventGroup, EventStatus
from billing.invoicing.metadata_keys import period_of
from billing.invoicing.snapshot import PeriodState, Snapshot
from billing.ledger import Ledger
from billing.services import Services
from billing.usage import CustomerId
from workers.flush.deleted_customer import record_deletion
from workers.flush.voided import hold_voided, voided_bills

log = structlog.get_logger(__name__)

CONCURRENCY = 16  # objects at a time: enough for their commands to share the ledger's fsyncs
TRIGGER = "WEBHOOK"
LANE = Lane.BACKGROUND
WAKES = {FollowUp.WAKE, FollowUp.DELETED}


async def process_events(services: Services, limit: int) -> int:
    """Process the events of up to *limit* objects; return the number of events.

    A failed event is retried and finally given up, and does not block the others. Raises
    LedgerUnavailable; the claimed events are due again later.
    """
    groups = await services.inbox.claim(limit)
    deadline = asyncio.get_running_loop().time() + services.inbox.claim_seconds
    runner = _BoundedRunner(services, deadline)
    batches = await runner.run(_resolve_owner, [_EventBatch.from_group(group) for group in groups])
    batches = await _invalidate(services, batches)
    follow_up = partial(_follow_up, _WakeParkedOnce(services.ledger))
    await _publish_and_complete(services, await runner.run(follow_up, batches))
    await services.inbox.trim()
    return sum(len(group.events) for group in groups)


@dataclass(frozen=True, slots=True)
class _EventBatch:
    """The claimed events of one object; *events* are those that have an effect."""

    group: EventGroup
    events: list[EventRef]

    @classmethod
    def from_group(cls, group: EventGroup) -> Self:
        return cls(group, [event for event in group.refs if event.effect is not None])

    @property
    def status(self) -> EventStatus:
        return EventStatus.PROCESSED if self.events else EventStatus.IGNORED

    @property
    def changes(self) -> list[Change]:
        invoice = next((event.invoice for event in self.events if event.invoice), None)
        customers: set[str] = {event.customer for event in self.events if event.customer}
        if any(entries.PRICE_CATALOG in event.generations for event in self.events):
            customers.add(ALL_CUSTOMERS)
        return [Change(customer, ChangeReason.WEBHOOK, invoice=invoice) for customer in customers]


BatchStep = Callable[[Services, _EventBatch], Awaitable[_EventBatch]]


class _BoundedRunner:
    """Runs a step for many batches, a few at a time.

    Batches that are not done at the *deadline* are returned to the inbox: their claim expires, and another
    worker would claim them again and again, until they counted as events that kill their workers.
    """

    def __init__(self, services: Services, deadline: float) -> None:
        self._services = services
        self._deadline = deadline
        self._semaphore = asyncio.Semaphore(CONCURRENCY)

    async def run(self, step: BatchStep, batches: Sequence[_EventBatch]) -> list[_EventBatch]:
        """Return the batches that succeeded; the others are back in the inbox."""
        results = await asyncio.gather(*(self._run_one(step, batch) for batch in batches))
        return [batch for batch in results if batch is not None]

    async def _run_one(self, step: BatchStep, batch: _EventBatch) -> _EventBatch | None:
        inbox = self._services.inbox
        try:
            async with asyncio.timeout_at(self._deadline), self._semaphore:
                return await step(self._services, batch)
        except Unavailable as error:
            await inbox.retry_later(batch.group, error.message, error.retry_after)
        except TimeoutError:
            await inbox.retry_later(batch.group, "What it needs takes too long; try again.", 1.0)
        except Exception as error:  # noqa: BLE001 one broken event must not block the others
            _log_failure(batch.group, error)
            await inbox.record_failure(batch.group, _failure_text(error))
        return None


async def _invalidate(services: Services, batches: list[_EventBatch]) -> list[_EventBatch]:
    """Invalidate what the batches touch; while the cache is unavailable, return all to the inbox."""
    generations = {
        name for batch in batches for event in batch.events for name in event.generations
    }
    try:
        if generations:
            await services.cache.invalidate(*generations)
    except Unavailable as error:
        for batch in batches:
            await services.inbox.retry_later(batch.group, error.message, error.retry_after)
        return []
    return batches


async def _publish_and_complete(services: Services, batches: Sequence[_EventBatch]) -> None:
    if not batches:
        return
    await services.change_feed.publish(*(change for batch in batches for change in batch.changes))
    for status in {batch.status for batch in batches}:
        groups = [batch.group for batch in batches if batch.status is status]
        await services.inbox.complete_all(groups, status)


def _log_failure(group: EventGroup, error: Exception) -> None:
    """Log without the traceback: its variables may contain a response of Stripe's."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    log.error(
        "inbox.failed",
        subject=group.subject,
        error=type(error).__name__,
        at=f"{frame.name}:{frame.lineno}",
    )


def _failure_text(error: Exception) -> str:
    """Return our own message, or only the type of a foreign error, whose text may contain a payload."""
    return error.message if isinstance(error, Refused) else type(error).__name__


async def _resolve_owner(services: Services, batch: _EventBatch) -> _EventBatch:
    """Fill in the customer of events that do not name it: from another event of the batch, or from Stripe."""
    owned = next((event for event in batch.events if event.customer), None)
    owned = owned or await _fetch_owner(services, batch.events)
    if owned is None:
        return batch
    events = [event if event.customer else _owned_like(owned, event) for event in batch.events]
    return replace(batch, events=events)


def _owned_like(owned: EventRef, event: EventRef) -> EventRef:
    return replace(event, customer=owned.customer, invoice=owned.invoice, period=owned.period)


async def _fetch_owner(services: Services, events: list[EventRef]) -> EventRef | None:
    """Read the object that *events* only name; None if Stripe no longer has it."""
    named = next((event for event in events if event.stripe_path), None)
    if named is None or named.stripe_path is None:
        return None
    try:
        body = await services.stripe.read(named.stripe_path, lane=LANE)
    except StripeRejected as error:
        log.info("inbox.owner_unknown", path=named.stripe_path, status=error.status)
        return None
    return replace(
        named,
        customer=customer_of(body),
        invoice=invoice_of(body),
        period=period_of(body),
    )


class _WakeParkedOnce:
    """Wakes all parked periods, once for all price events of a run, because it queries every shard."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._task: asyncio.Task[int] | None = None

    async def wake(self) -> None:
        """Return when all parked periods are woken."""
        if self._task is None:
            self._task = asyncio.create_task(self._ledger.due.wake_parked())
        await asyncio.shield(self._task)


async def _follow_up(
    parked: _WakeParkedOnce, services: Services, batch: _EventBatch
) -> _EventBatch:
    if FollowUp.WAKE_ALL in _follow_ups(batch.events):
        await parked.wake()
    for customer in {event.customer for event in batch.events if event.customer is not None}:
        events = [event for event in batch.events if event.customer == customer]
        if _follow_ups(events) - {FollowUp.NOTHING}:
            await _follow_up_customer(services, customer, events)
    return batch


def _follow_ups(events: Sequence[EventRef]) -> set[FollowUp]:
    return {event.effect.follow_up for event in events if event.effect is not None}


async def _follow_up_customer(
    services: Services, customer: CustomerId, events: list[EventRef]
) -> None:
    ledger, follow_ups, verifying = services.ledger, _follow_ups(events), False
    if FollowUp.DELETED in follow_ups:
        await record_deletion(services.stripe, ledger, customer, LANE)
    voided = await voided_bills(services.stripe, events, LANE)
    for snapshot in await _snapshots(ledger, customer):
        concerning = [event for event in events if _concerns(event, snapshot)]
        if snapshot.state is PeriodState.SEALED:
            for event in voided:
                if _concerns(event, snapshot):
                    await hold_voided(services.stripe, ledger, snapshot, str(event.invoice), LANE)
            continue
        if concerning and follow_ups & {FollowUp.VERIFY, FollowUp.HOLD}:
            edited = all(event.edits_draft(snapshot.invoice) for event in concerning)
            grace_ms = round(services.settings.edit_grace * 1000) if edited else 0
            await ledger.periods.request_verify(customer, snapshot.period, grace_ms=grace_ms)
            verifying |= not grace_ms
        if snapshot.parked_reason and (concerning or follow_ups & WAKES):
            await ledger.due.wake(customer, snapshot.period)
    if verifying:
        await ledger.syncs.request(customer, TRIGGER)


async def _snapshots(ledger: Ledger, customer: CustomerId) -> list[Snapshot]:
    periods = await ledger.periods.list_retained(customer)
    return await asyncio.gather(*(ledger.periods.snapshot(customer, period) for period in periods))


def _concerns(event: EventRef, snapshot: Snapshot) -> bool:
    """Return True if the event's invoice belongs to the period, by its metadata or by the ledger."""
    return event.period == snapshot.period or event.invoice == (snapshot.invoice or "")
