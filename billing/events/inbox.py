"""The inbox: durable storage of Stripe's events, one record per event id.

Pending events are grouped by *subject* (the invoice, the customer, …): a worker claims a subject with all
of its events, so a burst costs as much as one event. A claim hides the subject for a limited time, so the
events of a killed worker become due again. Finished records are retained, within bounds, for Support and
to recognise late duplicates. All keys share one slot.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from redis.asyncio import Redis, RedisCluster
from redis.commands.core import AsyncScript

from billing.events.effects import EventRef
from billing.events.records import (
    FINISHED_STATUSES,
    REF_FIELDS,
    ClaimedEvent,
    EventGroup,
    EventStatus,
    InboxEvent,
    to_event_ref,
    to_script_args,
)
from billing.ledger import keys
from billing.pagination import Page
from billing.redis_clients import awaited, ledger_errors, load_script

T = TypeVar("T")

# Prefixes to which the scripts append the id of an event, a status or a subject.
RECORDS, LISTS, WAITING = keys.inbox_record(""), keys.inbox_list(""), keys.inbox_waiting("")
DUE = keys.inbox_due()
PENDING = keys.inbox_list(EventStatus.PENDING)
FINISHED_KEYS = [keys.inbox_list(status) for status in FINISHED_STATUSES]

# Approximate maximum of events per script run, which then takes a millisecond, and per `trim`.
SCRIPT_BATCH = 100
MAX_TRIMMED = 2000


@dataclass(frozen=True, slots=True)
class InboxPolicy:
    """Retention of finished events (the count is per status), and limits of their processing.

    A claim hides its subject for *visibility_ms*. An event becomes FAILED after *max_attempts*;
    attempts that end because something is unavailable do not count.
    """

    retention_ms: int = 30 * 86_400_000  # as far back as Stripe lists and resends events
    retention_count: int = 200_000
    visibility_ms: int = 30_000
    max_attempts: int = 5
    backoff_ms: int = 1_000


class Inbox:
    """The events in the ledger's Redis; every method may raise LedgerUnavailable."""

    def __init__(self, redis: Redis | RedisCluster, policy: InboxPolicy | None = None) -> None:
        self._redis = redis
        self._policy = policy or InboxPolicy()
        self._receive_script = load_script(redis, "billing.events", "receive")
        self._claim_script = load_script(redis, "billing.events", "claim")
        self._complete_script = load_script(redis, "billing.events", "settle")
        self._retry_script = load_script(redis, "billing.events", "postpone")
        self._requeue_script = load_script(redis, "billing.events", "requeue")
        self._trim_script = load_script(redis, "billing.events", "trim")

    @property
    def claim_seconds(self) -> float:
        """Seconds for processing a claimed group before another worker may claim it, with a margin."""
        return 0.8 * self._policy.visibility_ms / 1000

    async def receive(self, refs: Sequence[EventRef]) -> list[bool]:
        """Store events in one step; returns for each if it is new."""
        events = orjson.dumps([to_script_args(ref) for ref in refs])
        args = [self._policy.retention_ms, RECORDS, LISTS, WAITING, events]
        new = await _run_script(self._receive_script, [keys.inbox_counter(), DUE], args)
        return list(map(bool, new))

    async def claim(self, subjects: int) -> list[EventGroup]:
        """Claim the groups of up to *subjects* due subjects; each is due again unless completed in time.

        Events whose attempts all ended with the worker's death become FAILED instead of being claimed again.
        """
        groups: list[EventGroup] = []
        events = SCRIPT_BATCH
        while events >= SCRIPT_BATCH and len(groups) < subjects:
            limits = [subjects - len(groups), SCRIPT_BATCH, self._policy.visibility_ms]
            args = [*limits, WAITING, RECORDS, *REF_FIELDS]
            reply = await _run_script(self._claim_script, [DUE], args)
            claimed = [_event_group(subject, records) for subject, records in reply]
            events = sum(len(group.events) for group in claimed)
            groups += claimed
        return [await self._without_exhausted(group) for group in groups]

    async def complete(self, group: EventGroup, status: EventStatus, failure: str = "") -> None:
        """Set the events' final status; further events of the subject are due at once."""
        await self.complete_all([group], status, failure)

    async def complete_all(
        self, groups: Sequence[EventGroup], status: EventStatus, failure: str = ""
    ) -> None:
        """As `complete`, for all *groups*."""
        for batch in _batches(groups):
            events = orjson.dumps([(group.subject, group.ids) for group in batch])
            args = [status, failure, self._policy.retention_ms, RECORDS, WAITING, events]
            await _run_script(self._complete_script, [DUE, PENDING, keys.inbox_list(status)], args)

    async def retry_later(self, group: EventGroup, failure: str, delay: float) -> None:
        """Retry in *delay* seconds, without a limit: something that the effect needs is unavailable."""
        await self._release(group, failure, round(delay * 1000), counts=False)

    async def record_failure(self, group: EventGroup, failure: str) -> None:
        """Retry after a growing pause; events without attempts left become FAILED."""
        exhausted, rest = group.split_by_attempts(self._policy.max_attempts)
        if exhausted.events:
            await self.complete(exhausted, EventStatus.FAILED, failure)
        if rest.events:
            pause = self._policy.backoff_ms << max(event.attempts for event in rest.events)
            await self._release(rest, failure, pause, counts=True)

    async def requeue(self, event_id: str) -> InboxEvent | None:
        """Make an event pending again, whatever its status; None if it is not stored."""
        values = await _execute(self._redis.hmget(keys.inbox_record(event_id), [*REF_FIELDS]))
        subject = to_event_ref(event_id, values).subject
        script_keys = [keys.inbox_record(event_id), PENDING, DUE, keys.inbox_waiting(subject)]
        args = [event_id, subject]
        await _run_script(self._requeue_script, [*script_keys, *FINISHED_KEYS], args)
        return await self.get(event_id)

    async def get(self, event_id: str) -> InboxEvent | None:
        """One event; None if it is not stored."""
        record = await _execute(self._redis.hgetall(keys.inbox_record(event_id)))
        return InboxEvent.from_record(event_id, record) if record else None

    async def page(
        self,
        first: int,
        after: str | None = None,
        status: EventStatus | None = None,
    ) -> Page[InboxEvent]:
        """*first* events older than the event *after*, newest first, of one *status* or of any."""
        statuses = [status] if status else list(EventStatus)
        ids = await self._newest(statuses, await self._upper_bound(after), first + 1)
        events = await asyncio.gather(*(self.get(event_id) for event_id in ids[:first]))
        return Page(tuple(event for event in events if event), has_more=len(ids) > first)

    async def trim(self) -> int:
        """Delete finished events beyond the retention, a bounded number; returns how many."""
        removed, last = 0, SCRIPT_BATCH
        while last >= SCRIPT_BATCH and removed < MAX_TRIMMED:
            args = [self._policy.retention_count, SCRIPT_BATCH, RECORDS]
            last = int(await _run_script(self._trim_script, FINISHED_KEYS, args))
            removed += last
        return removed

    async def cursor(self) -> str | None:
        """The newest event that the poll has ingested; None before the first poll."""
        value: bytes | None = await _execute(self._redis.get(keys.inbox_cursor()))
        return None if value is None else value.decode()

    async def move_cursor(self, event_id: str) -> None:
        """Set *event_id* as the newest ingested event."""
        await _execute(self._redis.set(keys.inbox_cursor(), event_id))

    async def backlog(self) -> str | None:
        """The event before which the poll has still to ingest all older ones; None if there are none."""
        value: bytes | None = await _execute(self._redis.get(keys.inbox_backlog()))
        return None if value is None else value.decode()

    async def move_backlog(self, event_id: str | None) -> None:
        """Set the event before which all older ones have still to be ingested; None for none."""
        if event_id is None:
            await _execute(self._redis.delete(keys.inbox_backlog()))
        else:
            await _execute(self._redis.set(keys.inbox_backlog(), event_id))

    async def _without_exhausted(self, group: EventGroup) -> EventGroup:
        exhausted, rest = group.split_by_attempts(self._policy.max_attempts + 1)
        if exhausted.events:
            await self.complete(
                exhausted, EventStatus.FAILED, "Every attempt ended with its worker."
            )
        return rest

    async def _release(self, group: EventGroup, failure: str, ms: int, *, counts: bool) -> None:
        args = [group.subject, failure, ms, int(not counts), RECORDS, *group.ids]
        await _run_script(self._retry_script, [DUE], args)

    async def _upper_bound(self, after: str | None) -> str:
        """The upper bound of a page, as an argument of ZREVRANGEBYSCORE."""
        if after is None:
            return "+inf"
        number: Any = await _execute(self._redis.hget(keys.inbox_record(after), "n"))
        return "-inf" if number is None else f"({number.decode()}"

    async def _newest(self, statuses: Sequence[EventStatus], below: str, limit: int) -> list[str]:
        ranges = [
            _execute(
                self._redis.zrevrangebyscore(
                    keys.inbox_list(status), below, "-inf", start=0, num=limit, withscores=True
                )
            )
            for status in statuses
        ]
        scored = [pair for pairs in await asyncio.gather(*ranges) for pair in pairs]
        scored.sort(key=lambda pair: -pair[1])
        return [event_id.decode() for event_id, _ in scored[:limit]]


async def _run_script(script: AsyncScript, script_keys: Sequence[str], args: Sequence[Any]) -> Any:
    return await _execute(script(script_keys, args))


async def _execute(command: Awaitable[T] | T) -> T:
    with ledger_errors("The inbox cannot be reached; try again."):
        return await awaited(command)


def _event_group(subject: bytes, records: Sequence[Sequence[Any]]) -> EventGroup:
    events = tuple(
        ClaimedEvent(to_event_ref(event_id.decode(), values), attempts)
        for event_id, attempts, *values in records
    )
    return EventGroup(subject.decode(), events)


def _batches(groups: Sequence[EventGroup]) -> Iterator[list[EventGroup]]:
    """*groups* in batches of about SCRIPT_BATCH events each."""
    batch: list[EventGroup] = []
    for group in groups:
        batch.append(group)
        if sum(len(batched.events) for batched in batch) >= SCRIPT_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
