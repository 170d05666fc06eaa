"""Stripe's events, kept durably before they are answered: one record per event id, worked on later.

Events wait by *subject* (the invoice, the customer, …): a worker claims a subject and gets all of
its waiting events at once, so a burst costs as much as one event. A claim hides the subject for a
while instead of removing it, hence whatever a dying worker held comes up again. A finished record is
kept for Support and to recognise late duplicates, within bounds. All keys share one slot.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar, cast

import orjson
from redis.asyncio import Redis, RedisCluster
from redis.commands.core import AsyncScript

from billing.events.effects import Notice
from billing.events.events import (
    FINISHED,
    NOTICE_FIELDS,
    Bundle,
    Claimed,
    EventStatus,
    InboxEvent,
    to_arguments,
    to_notice,
)
from billing.ledger import keys
from billing.pagination import Page
from billing.redis_reply import ledger_asked, reply

T = TypeVar("T")

# The scripts take these and put the name of an event, a status or a subject behind them.
RECORDS, LISTS, WAITING = keys.inbox_record(""), keys.inbox_list(""), keys.inbox_waiting("")
DUE = keys.inbox_due()
PENDING = keys.inbox_list(EventStatus.PENDING)
FINISHED_LISTS = [keys.inbox_list(status) for status in FINISHED]

SLICE = 100  # events that one script hands out, finishes or forgets, or a few more: it takes a millisecond
TRIM = 2000  # finished events that one step forgets, or a few more


@dataclass(frozen=True, slots=True)
class InboxPolicy:
    """How long and how many finished events are kept (of each status), when an event is given up.

    A claim hides its subject for *visibility_ms*. An event whose effect fails *max_strikes* times,
    for another reason than that something is unavailable, is FAILED.
    """

    keep_ms: int = 30 * 86_400_000  # as far back as Stripe lists and resends events
    keep: int = 200_000
    visibility_ms: int = 30_000
    max_strikes: int = 5
    backoff_ms: int = 1_000


class Inbox:
    """The durable store of events, in the ledger's Redis; every method may raise LedgerUnavailable."""

    def __init__(self, redis: Redis | RedisCluster, policy: InboxPolicy | None = None) -> None:
        self._redis = redis
        self._policy = policy or InboxPolicy()
        self._receive = self._script("receive")
        self._claim = self._script("claim")
        self._settle = self._script("settle")
        self._postpone = self._script("postpone")
        self._requeue = self._script("requeue")
        self._trim = self._script("trim")

    @property
    def patience(self) -> float:
        """Seconds that whoever claimed has before another may claim the same, less what settling takes."""
        return 0.8 * self._policy.visibility_ms / 1000

    async def receive(self, notices: Sequence[Notice]) -> list[bool]:
        """Keep the events of *notices*, in one step; for each whether it is new."""
        events = orjson.dumps([to_arguments(notice) for notice in notices])
        args = [self._policy.keep_ms, RECORDS, LISTS, WAITING, events]
        return [bool(new) for new in await _run(self._receive, [keys.inbox_counter(), DUE], args)]

    async def claim(self, subjects: int) -> list[Bundle]:
        """Up to *subjects* bundles that are due; each comes up again unless it is settled in time.

        Events whose attempts never came to an end (they took their workers along) are FAILED here
        instead of being handed out once more.
        """
        bundles: list[Bundle] = []
        events = SLICE
        while events >= SLICE and len(bundles) < subjects:
            limits = [subjects - len(bundles), SLICE, self._policy.visibility_ms]
            found = await _run(self._claim, [DUE], [*limits, WAITING, RECORDS, *NOTICE_FIELDS])
            claimed = [_bundle(subject, those) for subject, those in found]
            events = sum(len(each.events) for each in claimed)
            bundles += claimed
        return [await self._without_worn(each) for each in bundles]

    async def settle(self, bundle: Bundle, status: EventStatus, failure: str = "") -> None:
        """Finish the events of *bundle*; what came for its subject meanwhile is due at once."""
        await self.settle_all([bundle], status, failure)

    async def settle_all(
        self, bundles: Sequence[Bundle], status: EventStatus, failure: str = ""
    ) -> None:
        """Finish the events of all *bundles*."""
        for part in _slices(bundles):
            events = orjson.dumps([(bundle.subject, bundle.ids) for bundle in part])
            args = [status, failure, self._policy.keep_ms, RECORDS, WAITING, events]
            await _run(self._settle, [DUE, PENDING, keys.inbox_list(status)], args)

    async def postpone(self, bundle: Bundle, failure: str, delay: float) -> None:
        """Try again in *delay* seconds, without end: something that the effect needs is away."""
        await self._give_back(bundle, failure, round(delay * 1000), forgiven=True)

    async def strike(self, bundle: Bundle, failure: str) -> None:
        """Try again after a pause that grows; those that have had all their attempts are FAILED."""
        worn, rest = bundle.parted(self._policy.max_strikes)
        if worn.events:
            await self.settle(worn, EventStatus.FAILED, failure)
        if rest.events:
            pause = self._policy.backoff_ms << max(each.strikes for each in rest.events)
            await self._give_back(rest, failure, pause, forgiven=False)

    async def requeue(self, event_id: str) -> InboxEvent | None:
        """Have an event worked on again, whatever became of it; None when it is not here."""
        values = await _answer(self._redis.hmget(keys.inbox_record(event_id), [*NOTICE_FIELDS]))
        subject = to_notice(event_id, values).subject
        needed = [keys.inbox_record(event_id), PENDING, DUE, keys.inbox_waiting(subject)]
        await _run(self._requeue, [*needed, *FINISHED_LISTS], [event_id, subject])
        return await self.get(event_id)

    async def get(self, event_id: str) -> InboxEvent | None:
        """One event; None when it never came or is no longer kept."""
        record = await _answer(self._redis.hgetall(keys.inbox_record(event_id)))
        return InboxEvent.from_record(event_id, record) if record else None

    async def page(
        self,
        first: int,
        after: str | None = None,
        status: EventStatus | None = None,
    ) -> Page[InboxEvent]:
        """*first* events, newest first, that came before the event *after*; of one *status* or of any."""
        statuses = [status] if status else list(EventStatus)
        ids = await self._newest(statuses, await self._before(after), first + 1)
        found = await asyncio.gather(*(self.get(event_id) for event_id in ids[:first]))
        return Page(tuple(event for event in found if event), has_more=len(ids) > first)

    async def trim(self) -> int:
        """Forget finished events past their time or their number, a bounded many; how many went."""
        forgotten, last = 0, SLICE
        while last >= SLICE and forgotten < TRIM:
            args = [self._policy.keep, SLICE, RECORDS]
            last = int(await _run(self._trim, FINISHED_LISTS, args))
            forgotten += last
        return forgotten

    async def cursor(self) -> str | None:
        """The event up to which the sweep has taken in everything; None before the first sweep."""
        found: bytes | None = await _answer(self._redis.get(keys.inbox_cursor()))
        return None if found is None else found.decode()

    async def move_cursor(self, event_id: str) -> None:
        """Everything up to *event_id* has been taken in."""
        await _answer(self._redis.set(keys.inbox_cursor(), event_id))

    async def _without_worn(self, bundle: Bundle) -> Bundle:
        worn, rest = bundle.parted(self._policy.max_strikes + 1)
        if worn.events:
            await self.settle(worn, EventStatus.FAILED, "Every attempt ended with its worker.")
        return rest

    async def _give_back(self, bundle: Bundle, failure: str, ms: int, *, forgiven: bool) -> None:
        args = [bundle.subject, failure, ms, int(forgiven), RECORDS, *bundle.ids]
        await _run(self._postpone, [DUE], args)

    async def _before(self, after: str | None) -> str:
        """The upper bound of a page, as ZREVRANGEBYSCORE takes it."""
        if after is None:
            return "+inf"
        place: Any = await _answer(self._redis.hget(keys.inbox_record(after), "n"))
        return "-inf" if place is None else f"({place.decode()}"

    async def _newest(self, statuses: Sequence[EventStatus], below: str, most: int) -> list[str]:
        ranges = [
            _answer(
                self._redis.zrevrangebyscore(
                    keys.inbox_list(status), below, "-inf", start=0, num=most, withscores=True
                )
            )
            for status in statuses
        ]
        found = [each for part in await asyncio.gather(*ranges) for each in part]
        found.sort(key=lambda each: -each[1])
        return [event_id.decode() for event_id, _ in found[:most]]

    def _script(self, name: str) -> AsyncScript:
        source = files("billing.events").joinpath(f"scripts/{name}.lua").read_text()
        # A cluster's client can do this too, but is not typed so.
        return cast("Redis", self._redis).register_script(source)


async def _run(script: AsyncScript, touched: Sequence[str], args: Sequence[Any]) -> Any:
    return await _answer(script(touched, args))


async def _answer(command: Awaitable[T] | T) -> T:
    with ledger_asked("The inbox cannot be reached; ask again."):
        return await reply(command)


def _bundle(subject: bytes, events: Sequence[Sequence[Any]]) -> Bundle:
    claimed = tuple(
        Claimed(to_notice(event_id.decode(), values), strikes)
        for event_id, strikes, *values in events
    )
    return Bundle(subject.decode(), claimed)


def _slices(bundles: Sequence[Bundle]) -> Iterator[list[Bundle]]:
    """*bundles* in parts of about a slice each."""
    part: list[Bundle] = []
    for bundle in bundles:
        part.append(bundle)
        if sum(len(each.events) for each in part) >= SLICE:
            yield part
            part = []
    if part:
        yield part
