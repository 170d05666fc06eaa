"""The inbox on a real Valkey: no event is lost, processed twice or stored for ever."""

import asyncio
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from billing.errors import LedgerUnavailable
from billing.events import Inbox, InboxPolicy
from billing.events.effects import EventRef
from billing.events.inbox import SCRIPT_BATCH
from billing.events.records import EventGroup, EventStatus
from billing.usage import CustomerId, Period
from tests.support.wait import wait_until

INVOICE = EventRef(
    "evt_1", "invoice.updated", "in_1", CustomerId("cus_1"), "in_1", Period(2026, 11), echo=False
)
AT_ONCE = InboxPolicy(visibility_ms=0, backoff_ms=0)


@pytest.fixture
def inbox(redis: Redis) -> Inbox:
    """An empty inbox."""
    return Inbox(redis)


def events(n: int, ref: EventRef = INVOICE) -> list[EventRef]:
    """*n* events of one object."""
    return [replace(ref, id=f"evt_{i}") for i in range(1, n + 1)]


async def statuses(inbox: Inbox) -> dict[str, EventStatus]:
    """The status of each event."""
    return {event.id: event.status for event in (await inbox.page(100)).items}


async def test_event_is_stored_once(inbox: Inbox) -> None:
    """Stripe delivers at least once, also concurrently through two processes."""
    other = Inbox(inbox._redis)
    received = await asyncio.gather(
        *(box.receive([INVOICE, INVOICE]) for box in (inbox, other, inbox, other))
    )
    later = await inbox.receive([INVOICE])

    assert sorted(new for flags in received for new in flags) == [*[False] * 7, True]
    assert later == [False]
    assert await statuses(inbox) == {"evt_1": EventStatus.PENDING}


async def test_claimed_event_equals_the_received_one(inbox: Inbox) -> None:
    """Ids survive the way through Redis."""
    bare = EventRef("evt_2", "price.updated")
    await inbox.receive([INVOICE, bare])

    claimed = {group.subject: group.refs for group in await inbox.claim(10)}

    assert claimed == {"in_1": (INVOICE,), "evt_2": (bare,)}


async def test_burst_for_one_invoice_is_one_group(inbox: Inbox) -> None:
    """Fifty events of one invoice cost one read of it."""
    await inbox.receive(events(50))

    [group] = await inbox.claim(10)

    assert set(group.ids) == {event.id for event in events(50)}


async def test_scripts_process_bounded_batches(inbox: Inbox, redis: Redis) -> None:
    """Usage is recorded in between; no event is left out."""

    async def scripts() -> int:
        calls: int = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        return calls

    await inbox.receive([INVOICE])  # each script is known to the server from here on
    await inbox.complete_all(await inbox.claim(1), EventStatus.PROCESSED)
    refs = [EventRef(f"evt_{n}", "price.updated", f"price_{n % 70}") for n in range(2, 252)]
    await inbox.receive(refs)
    before = await scripts()

    groups = await inbox.claim(70)
    claiming = await scripts() - before
    await inbox.complete_all(groups, EventStatus.PROCESSED)
    settling = await scripts() - before - claiming

    assert sorted(name for group in groups for name in group.ids) == sorted(ref.id for ref in refs)
    assert min(claiming, settling) >= 250 / SCRIPT_BATCH
    assert set((await statuses(inbox)).values()) == {EventStatus.PROCESSED}
    assert await inbox.claim(70) == []


async def test_rest_of_a_large_burst_is_due_after_its_first_batch(inbox: Inbox) -> None:
    """One worker at a time has an object, and no event is lost."""
    await inbox.receive(events(SCRIPT_BATCH + 20))
    [first] = await inbox.claim(10)
    assert await inbox.claim(10) == []
    await inbox.complete(first, EventStatus.PROCESSED)
    [rest] = await inbox.claim(10)

    assert (len(first.ids), len(rest.ids)) == (SCRIPT_BATCH, 20)
    assert not {*first.ids} & {*rest.ids}


async def test_echoes_and_unknown_types_are_ignored(inbox: Inbox) -> None:
    """Most events are caused by our own flushes; they are recorded only."""
    await inbox.receive([replace(INVOICE, echo=True)])
    await inbox.receive([EventRef("evt_2", "treasury.flow.created", "trf_1")])

    assert await inbox.claim(10) == []
    assert set((await statuses(inbox)).values()) == {EventStatus.IGNORED}


async def test_claimed_subject_is_hidden_until_its_claim_expires(redis: Redis) -> None:
    """Two workers do not process one invoice; when one dies, another takes over."""
    inbox = Inbox(redis, InboxPolicy(visibility_ms=50))
    await inbox.receive([INVOICE])
    [group] = await inbox.claim(10)
    assert await inbox.claim(10) == []

    [repeated] = await wait_until(lambda: inbox.claim(10), "the claim expires")

    assert repeated.ids == group.ids
    assert repeated.events[0].attempts == 2


async def test_completed_event_stays_for_support(inbox: Inbox) -> None:
    """Support sees its outcome, and a late duplicate is still recognised."""
    await inbox.receive([INVOICE])
    [group] = await inbox.claim(10)
    await inbox.complete(group, EventStatus.PROCESSED)

    found = await inbox.get("evt_1")
    assert found is not None
    assert found.processed_ms is not None
    assert found.processed_ms >= found.received_ms
    assert (found.status, found.attempts, found.failure) == (EventStatus.PROCESSED, 1, None)
    assert (found.type, found.object_id, found.customer) == ("invoice.updated", "in_1", "cus_1")
    assert await inbox.receive([INVOICE]) == [False]
    assert await inbox.claim(10) == []


async def test_event_arriving_during_processing_is_not_lost(inbox: Inbox) -> None:
    """The worker may have read Stripe before the change that the new event reports."""
    await inbox.receive([INVOICE])
    [group] = await inbox.claim(10)
    await inbox.receive([replace(INVOICE, id="evt_2")])
    await inbox.complete(group, EventStatus.PROCESSED)

    [rest] = await inbox.claim(10)

    assert rest.ids == ("evt_2",)


async def test_late_worker_does_not_undo_a_completed_event(redis: Redis) -> None:
    """A suspended worker resumes with events that another has completed."""
    inbox = Inbox(redis, AT_ONCE)
    await inbox.receive([INVOICE])
    [frozen] = await inbox.claim(10)
    [taken_over] = await inbox.claim(10)
    await inbox.complete(taken_over, EventStatus.PROCESSED)
    await inbox.complete(frozen, EventStatus.FAILED, "too late")
    await inbox.retry_later(frozen, "too late", 0)

    stored = await inbox.get("evt_1")
    assert stored is not None
    assert (stored.status, stored.failure) == (EventStatus.PROCESSED, None)
    assert await inbox.claim(10) == []


async def test_late_worker_does_not_restore_a_trimmed_event(redis: Redis) -> None:
    """Such a record would never be trimmed."""
    inbox = Inbox(redis, replace(AT_ONCE, retention_count=0))
    await inbox.receive([INVOICE])
    [frozen] = await inbox.claim(10)
    [taken_over] = await inbox.claim(10)
    await inbox.complete(taken_over, EventStatus.PROCESSED)
    assert await inbox.trim() == 1
    await inbox.retry_later(frozen, "too late", 0)

    assert [key async for key in redis.scan_iter("*")] == [b"{inbox}:n"]


async def test_poison_event_fails_after_its_attempts_and_blocks_no_other(redis: Redis) -> None:
    """One event that always raises must not block the others."""
    inbox = Inbox(redis, AT_ONCE)
    await inbox.receive([INVOICE])
    for _ in range(5):
        [group] = await inbox.claim(10)
        await inbox.record_failure(group, "KeyError")
    await inbox.receive([replace(INVOICE, id="evt_2")])

    [rest] = await inbox.claim(10)

    assert rest.ids == ("evt_2",)
    failed = await inbox.get("evt_1")
    assert failed is not None
    assert (failed.status, failed.attempts, failed.failure) == (EventStatus.FAILED, 5, "KeyError")


async def test_event_that_kills_its_workers_fails(redis: Redis) -> None:
    """A killed worker cannot report; the claims are counted instead."""
    inbox = Inbox(redis, AT_ONCE)
    await inbox.receive([INVOICE])
    for _ in range(5):
        [group] = await inbox.claim(10)
        assert group.events

    [empty] = await inbox.claim(10)

    assert empty.events == ()
    assert await statuses(inbox) == {"evt_1": EventStatus.FAILED}
    assert await inbox.claim(10) == []


async def test_event_never_fails_while_something_is_unavailable(redis: Redis) -> None:
    """A long outage of Stripe must not turn events into failures."""
    inbox = Inbox(redis, AT_ONCE)
    await inbox.receive([INVOICE])
    for _ in range(20):
        [group] = await inbox.claim(10)
        await inbox.retry_later(group, "Stripe is away.", 0)

    found = await inbox.get("evt_1")
    assert found is not None
    assert (found.status, found.attempts, found.failure) == (
        EventStatus.PENDING,
        20,
        "Stripe is away.",
    )


async def test_backoff_grows_with_each_attempt(redis: Redis) -> None:
    """An immediate retry would likely fail repeated."""
    inbox = Inbox(redis, InboxPolicy(visibility_ms=0, backoff_ms=10_000))
    await inbox.receive([INVOICE])
    [group] = await inbox.claim(10)
    await inbox.record_failure(group, "KeyError")

    assert await inbox.claim(10) == []
    due = await redis.zscore("{inbox}:due", "in_1")
    seconds, _ = await redis.time()
    assert due is not None
    assert 15_000 < due - seconds * 1000 <= 22_000


@pytest.mark.parametrize("status", [EventStatus.PROCESSED, EventStatus.FAILED, EventStatus.IGNORED])
async def test_any_event_can_be_requeued(inbox: Inbox, status: EventStatus) -> None:
    """`replayWebhookEvent`: whatever its status, the event is pending repeated."""
    await inbox.receive([INVOICE])
    [group] = await inbox.claim(10)
    await inbox.complete(group, status, "because")

    found = await inbox.requeue("evt_1")

    assert found is not None
    assert (found.status, found.processed_ms, found.failure) == (EventStatus.PENDING, None, None)
    [repeated] = await inbox.claim(10)
    assert repeated.ids == ("evt_1",)
    assert repeated.events[0].attempts == 1
    await inbox.complete(repeated, EventStatus.PROCESSED)
    assert await statuses(inbox) == {"evt_1": EventStatus.PROCESSED}


async def test_unknown_event_cannot_be_requeued(inbox: Inbox) -> None:
    """A mistyped id creates nothing."""
    assert await inbox.requeue("evt_none") is None
    assert await inbox.claim(10) == []


async def test_pages_cover_all_events_newest_first(inbox: Inbox) -> None:
    """Of any status or of one."""
    for event in events(7):
        await inbox.receive([replace(event, object_id=event.id, invoice=None)])
    odd = [group for group in await inbox.claim(10) if int(group.subject[4:]) % 2]
    for group in odd:
        await inbox.complete(group, EventStatus.PROCESSED)

    assert await _walk(inbox, None) == [f"evt_{i}" for i in (7, 6, 5, 4, 3, 2, 1)]
    assert await _walk(inbox, EventStatus.PROCESSED) == [f"evt_{i}" for i in (7, 5, 3, 1)]
    assert await _walk(inbox, EventStatus.FAILED) == []
    assert (await inbox.page(3, after="evt_unknown")).items == ()


async def _walk(inbox: Inbox, status: EventStatus | None) -> list[str]:
    found: list[str] = []
    while True:
        page = await inbox.page(3, found[-1] if found else None, status)
        found += [event.id for event in page.items]
        if not page.has_more:
            return found


async def test_finished_events_are_bounded_by_number(redis: Redis) -> None:
    """A year of events must not fill the ledger's memory; pending events are never dropped."""
    inbox = Inbox(redis, InboxPolicy(retention_count=3))
    await inbox.receive([replace(event, echo=True) for event in events(310)])
    await inbox.receive([replace(INVOICE, id="evt_waiting")])

    assert await inbox.trim() == 307

    assert list(await statuses(inbox)) == ["evt_waiting", "evt_310", "evt_309", "evt_308"]
    assert await inbox.get("evt_1") is None
    assert await inbox.trim() == 0


async def test_finished_events_are_bounded_by_age(redis: Redis) -> None:
    """Stripe resends nothing after thirty days, so neither is it stored."""
    inbox = Inbox(redis, InboxPolicy(retention_ms=1))
    await inbox.receive([replace(INVOICE, id="evt_echo", echo=True), INVOICE])
    [group] = await inbox.claim(10)
    await inbox.complete(group, EventStatus.PROCESSED)

    removed = 0
    while removed < 2:
        removed += await wait_until(inbox.trim, "the events are past their time")

    assert [key async for key in redis.scan_iter("*")] == [b"{inbox}:n"]


async def test_unreachable_ledger_raises_unavailable(redis: Redis) -> None:
    """The endpoint then answers 503, and Stripe delivers repeated."""
    nowhere = Inbox(Redis.from_url("redis://127.0.0.1:1"))
    with pytest.raises(LedgerUnavailable):
        await nowhere.receive([INVOICE])


async def test_poll_cursor_is_stored(inbox: Inbox) -> None:
    """A restarted worker continues from the last event."""
    assert await inbox.cursor() is None
    await inbox.move_cursor("evt_1")

    assert await inbox.cursor() == "evt_1"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["receive", "claim", "settle", "strike", "postpone", "requeue"]),
        st.integers(0, 3),
        st.integers(0, 7),
    ),
    max_size=30,
)


def test_random_operations_lose_no_event(redis_url: str) -> None:
    """Random lives of eight events on four objects: each is in exactly one list, and waiting iff pending."""
    runs = count()

    @settings(deadline=None, max_examples=25)
    @given(STEPS)
    def lives(steps: list[tuple[str, int, int]]) -> None:
        next(runs)
        asyncio.run(_live(redis_url, steps))

    lives()
    assert next(runs) >= 20


async def _live(url: str, steps: list[tuple[str, int, int]]) -> None:
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        inbox = Inbox(redis, AT_ONCE)
        known: set[str] = set()
        claimed: list[EventGroup] = []
        for step, subject, event in steps:
            await _step(inbox, step, f"in_{subject}", f"evt_{event % 2}{subject}", known, claimed)
        await _check(redis, inbox, known)


async def _step(
    inbox: Inbox, step: str, subject: str, event: str, known: set[str], claimed: list[EventGroup]
) -> None:
    if step == "receive":
        assert await inbox.receive([EventRef(event, "invoice.paid", subject)]) == [
            event not in known
        ]
        known.add(event)
    elif step == "claim":
        claimed += await inbox.claim(2)
    elif step == "requeue":
        await inbox.requeue(event)
    elif claimed:
        group = claimed.pop()
        if step == "settle":
            await inbox.complete(group, EventStatus.PROCESSED)
        elif step == "strike":
            await inbox.record_failure(group, "broken")
        else:
            await inbox.retry_later(group, "away", 0)


async def _check(redis: Redis, inbox: Inbox, known: set[str]) -> None:
    listed = [event.id for event in (await inbox.page(100)).items]
    pending = {event.id for event in (await inbox.page(100, status=EventStatus.PENDING)).items}
    waiting = {
        event.decode()
        async for key in redis.scan_iter("{inbox}:w:*")
        for event in await redis.smembers(key)
    }
    subjects = {key.decode()[len("{inbox}:w:") :] async for key in redis.scan_iter("{inbox}:w:*")}
    due = {subject.decode() for subject in await redis.zrange("{inbox}:due", 0, -1)}

    assert sorted(listed) == sorted(known)
    assert waiting == pending
    assert due == subjects
