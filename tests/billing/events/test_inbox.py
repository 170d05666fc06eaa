"""The inbox on a real Valkey: nothing lost, nothing twice, nothing for ever."""

import asyncio
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from billing.errors import LedgerUnavailable
from billing.events import Inbox, InboxPolicy
from billing.events.effects import Notice
from billing.events.events import Bundle, EventStatus
from billing.events.inbox import SLICE
from billing.usage import CustomerId, Period
from tests.support.system import until

INVOICE = Notice(
    "evt_1", "invoice.updated", "in_1", CustomerId("cus_1"), "in_1", Period(2026, 11), echo=False
)
AT_ONCE = InboxPolicy(visibility_ms=0, backoff_ms=0)


@pytest.fixture
def inbox(redis: Redis) -> Inbox:
    """An empty inbox."""
    return Inbox(redis)


def events(n: int, notice: Notice = INVOICE) -> list[Notice]:
    """*n* events of one object."""
    return [replace(notice, id=f"evt_{i}") for i in range(1, n + 1)]


async def statuses(inbox: Inbox) -> dict[str, EventStatus]:
    """Where each event stands."""
    return {each.id: each.status for each in (await inbox.page(100)).items}


async def test_an_event_is_kept_once_however_often_it_arrives(inbox: Inbox) -> None:
    """Stripe delivers at least once; also at the same moment through two processes."""
    again = Inbox(inbox._redis)
    answers = await asyncio.gather(
        *(box.receive([INVOICE, INVOICE]) for box in (inbox, again, inbox, again))
    )
    later = await inbox.receive([INVOICE])

    assert sorted(new for each in answers for new in each) == [*[False] * 7, True]
    assert later == [False]
    assert await statuses(inbox) == {"evt_1": EventStatus.PENDING}


async def test_a_claimed_event_is_what_arrived(inbox: Inbox) -> None:
    """The worker acts on identities; they have to survive the way through Redis."""
    bare = Notice("evt_2", "price.updated")
    await inbox.receive([INVOICE, bare])

    claimed = {each.subject: each.notices for each in await inbox.claim(10)}

    assert claimed == {"in_1": (INVOICE,), "evt_2": (bare,)}


async def test_a_burst_for_one_invoice_is_one_bundle(inbox: Inbox) -> None:
    """Fifty events for one invoice cost one look at it."""
    await inbox.receive(events(50))

    [bundle] = await inbox.claim(10)

    assert set(bundle.ids) == {each.id for each in events(50)}


async def test_a_script_hands_out_and_finishes_a_slice(inbox: Inbox, redis: Redis) -> None:
    """Whoever records usage waits for the ledger meanwhile; no event is left out for that."""

    async def scripts() -> int:
        calls: int = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        return calls

    await inbox.receive([INVOICE])  # each script is known to the server from here on
    await inbox.settle_all(await inbox.claim(1), EventStatus.PROCESSED)
    told = [Notice(f"evt_{n}", "price.updated", f"price_{n % 70}") for n in range(2, 252)]
    await inbox.receive(told)
    before = await scripts()

    bundles = await inbox.claim(70)
    claiming = await scripts() - before
    await inbox.settle_all(bundles, EventStatus.PROCESSED)
    settling = await scripts() - before - claiming

    assert sorted(name for each in bundles for name in each.ids) == sorted(each.id for each in told)
    assert min(claiming, settling) >= 250 / SLICE
    assert set((await statuses(inbox)).values()) == {EventStatus.PROCESSED}
    assert await inbox.claim(70) == []


async def test_the_rest_of_a_large_burst_comes_up_when_its_slice_is_settled(inbox: Inbox) -> None:
    """An object is with one worker at a time, and none of its events is forgotten."""
    await inbox.receive(events(SLICE + 20))
    [first] = await inbox.claim(10)
    assert await inbox.claim(10) == []
    await inbox.settle(first, EventStatus.PROCESSED)
    [rest] = await inbox.claim(10)

    assert (len(first.ids), len(rest.ids)) == (SLICE, 20)
    assert not {*first.ids} & {*rest.ids}


async def test_echoes_and_unknown_types_need_no_work(inbox: Inbox) -> None:
    """Most events are caused by our own flushes; they are recorded and done."""
    await inbox.receive([replace(INVOICE, echo=True)])
    await inbox.receive([Notice("evt_2", "treasury.flow.created", "trf_1")])

    assert await inbox.claim(10) == []
    assert set((await statuses(inbox)).values()) == {EventStatus.IGNORED}


async def test_a_claimed_subject_is_hidden_until_its_worker_is_late(redis: Redis) -> None:
    """Two workers do not work on one invoice; when one dies, another takes over."""
    inbox = Inbox(redis, InboxPolicy(visibility_ms=50))
    await inbox.receive([INVOICE])
    [bundle] = await inbox.claim(10)
    assert await inbox.claim(10) == []

    [again] = await until(lambda: inbox.claim(10), "the claim lapses")

    assert again.ids == bundle.ids
    assert again.events[0].strikes == 2


async def test_a_settled_event_is_done_and_kept_for_support(inbox: Inbox) -> None:
    """Support sees what became of an event, and a late duplicate is still recognised."""
    await inbox.receive([INVOICE])
    [bundle] = await inbox.claim(10)
    await inbox.settle(bundle, EventStatus.PROCESSED)

    found = await inbox.get("evt_1")
    assert found is not None
    assert found.processed_ms is not None
    assert found.processed_ms >= found.received_ms
    assert (found.status, found.attempts, found.failure) == (EventStatus.PROCESSED, 1, None)
    assert (found.type, found.object_id, found.customer) == ("invoice.updated", "in_1", "cus_1")
    assert await inbox.receive([INVOICE]) == [False]
    assert await inbox.claim(10) == []


async def test_an_event_that_comes_while_its_invoice_is_worked_on_is_not_lost(inbox: Inbox) -> None:
    """The worker may have read Stripe before the change that the new event announces."""
    await inbox.receive([INVOICE])
    [bundle] = await inbox.claim(10)
    await inbox.receive([replace(INVOICE, id="evt_2")])
    await inbox.settle(bundle, EventStatus.PROCESSED)

    [rest] = await inbox.claim(10)

    assert rest.ids == ("evt_2",)


async def test_a_late_worker_does_not_undo_what_another_has_settled(redis: Redis) -> None:
    """A worker that was frozen wakes up with events that somebody else finished meanwhile."""
    inbox = Inbox(redis, AT_ONCE)
    await inbox.receive([INVOICE])
    [frozen] = await inbox.claim(10)
    [taken_over] = await inbox.claim(10)
    await inbox.settle(taken_over, EventStatus.PROCESSED)
    await inbox.settle(frozen, EventStatus.FAILED, "too late")
    await inbox.postpone(frozen, "too late", 0)

    kept = await inbox.get("evt_1")
    assert kept is not None
    assert (kept.status, kept.failure) == (EventStatus.PROCESSED, None)
    assert await inbox.claim(10) == []


async def test_a_late_worker_brings_nothing_back_that_was_forgotten(redis: Redis) -> None:
    """A record that nobody forgets any more would stay for ever."""
    inbox = Inbox(redis, replace(AT_ONCE, keep=0))
    await inbox.receive([INVOICE])
    [frozen] = await inbox.claim(10)
    [taken_over] = await inbox.claim(10)
    await inbox.settle(taken_over, EventStatus.PROCESSED)
    assert await inbox.trim() == 1
    await inbox.postpone(frozen, "too late", 0)

    assert [key async for key in redis.scan_iter("*")] == [b"{inbox}:n"]


async def test_a_poison_event_fails_after_its_attempts_and_blocks_nobody(redis: Redis) -> None:
    """One event that always breaks its worker's code must not stand in front of the others."""
    inbox = Inbox(redis, AT_ONCE)
    await inbox.receive([INVOICE])
    for _ in range(5):
        [bundle] = await inbox.claim(10)
        await inbox.strike(bundle, "KeyError")
    await inbox.receive([replace(INVOICE, id="evt_2")])

    [rest] = await inbox.claim(10)

    assert rest.ids == ("evt_2",)
    failed = await inbox.get("evt_1")
    assert failed is not None
    assert (failed.status, failed.attempts, failed.failure) == (EventStatus.FAILED, 5, "KeyError")


async def test_an_event_that_kills_its_workers_fails_without_another_victim(redis: Redis) -> None:
    """A worker that dies cannot say so; the claims are counted instead."""
    inbox = Inbox(redis, AT_ONCE)
    await inbox.receive([INVOICE])
    for _ in range(5):
        [bundle] = await inbox.claim(10)
        assert bundle.events

    [empty] = await inbox.claim(10)

    assert empty.events == ()
    assert await statuses(inbox) == {"evt_1": EventStatus.FAILED}
    assert await inbox.claim(10) == []


async def test_what_waits_for_somebody_unavailable_never_fails(redis: Redis) -> None:
    """An outage of Stripe that outlasts every attempt must not turn events into failures."""
    inbox = Inbox(redis, AT_ONCE)
    await inbox.receive([INVOICE])
    for _ in range(20):
        [bundle] = await inbox.claim(10)
        await inbox.postpone(bundle, "Stripe is away.", 0)

    found = await inbox.get("evt_1")
    assert found is not None
    assert (found.status, found.attempts, found.failure) == (
        EventStatus.PENDING,
        20,
        "Stripe is away.",
    )


async def test_pauses_between_attempts_grow(redis: Redis) -> None:
    """What failed a moment ago will most likely fail again right now."""
    inbox = Inbox(redis, InboxPolicy(visibility_ms=0, backoff_ms=10_000))
    await inbox.receive([INVOICE])
    [bundle] = await inbox.claim(10)
    await inbox.strike(bundle, "KeyError")

    assert await inbox.claim(10) == []
    due = await redis.zscore("{inbox}:due", "in_1")
    seconds, _ = await redis.time()
    assert due is not None
    assert 15_000 < due - seconds * 1000 <= 22_000


@pytest.mark.parametrize("status", [EventStatus.PROCESSED, EventStatus.FAILED, EventStatus.IGNORED])
async def test_support_can_have_any_event_worked_on_again(
    inbox: Inbox, status: EventStatus
) -> None:
    """`replayWebhookEvent`: whatever became of the event, it is new again."""
    await inbox.receive([INVOICE])
    [bundle] = await inbox.claim(10)
    await inbox.settle(bundle, status, "because")

    found = await inbox.requeue("evt_1")

    assert found is not None
    assert (found.status, found.processed_ms, found.failure) == (EventStatus.PENDING, None, None)
    [again] = await inbox.claim(10)
    assert again.ids == ("evt_1",)
    assert again.events[0].strikes == 1
    await inbox.settle(again, EventStatus.PROCESSED)
    assert await statuses(inbox) == {"evt_1": EventStatus.PROCESSED}


async def test_an_event_that_never_came_cannot_be_replayed(inbox: Inbox) -> None:
    """Support mistypes an id: nothing is made up."""
    assert await inbox.requeue("evt_none") is None
    assert await inbox.claim(10) == []


async def test_pages_walk_every_event_newest_first(inbox: Inbox) -> None:
    """Support reads through all events, of any status or of one."""
    for each in events(7):
        await inbox.receive([replace(each, object_id=each.id, invoice=None)])
    odd = [each for each in await inbox.claim(10) if int(each.subject[4:]) % 2]
    for bundle in odd:
        await inbox.settle(bundle, EventStatus.PROCESSED)

    assert await _walk(inbox, None) == [f"evt_{i}" for i in (7, 6, 5, 4, 3, 2, 1)]
    assert await _walk(inbox, EventStatus.PROCESSED) == [f"evt_{i}" for i in (7, 5, 3, 1)]
    assert await _walk(inbox, EventStatus.FAILED) == []
    assert (await inbox.page(3, after="evt_unknown")).items == ()


async def _walk(inbox: Inbox, status: EventStatus | None) -> list[str]:
    found: list[str] = []
    while True:
        page = await inbox.page(3, found[-1] if found else None, status)
        found += [each.id for each in page.items]
        if not page.has_more:
            return found


async def test_finished_events_are_bounded_by_number(redis: Redis) -> None:
    """A year of events must not fill the ledger's memory; what still waits is never dropped."""
    inbox = Inbox(redis, InboxPolicy(keep=3))
    await inbox.receive([replace(each, echo=True) for each in events(310)])
    await inbox.receive([replace(INVOICE, id="evt_waiting")])

    assert await inbox.trim() == 307

    assert list(await statuses(inbox)) == ["evt_waiting", "evt_310", "evt_309", "evt_308"]
    assert await inbox.get("evt_1") is None
    assert await inbox.trim() == 0


async def test_finished_events_are_bounded_by_age(redis: Redis) -> None:
    """Stripe resends nothing after thirty days; neither do we keep it."""
    inbox = Inbox(redis, InboxPolicy(keep_ms=1))
    await inbox.receive([replace(INVOICE, id="evt_echo", echo=True), INVOICE])
    [bundle] = await inbox.claim(10)
    await inbox.settle(bundle, EventStatus.PROCESSED)

    forgotten = 0
    while forgotten < 2:
        forgotten += await until(inbox.trim, "the events are past their time")

    assert [key async for key in redis.scan_iter("*")] == [b"{inbox}:n"]


async def test_an_unreachable_ledger_is_said_to_be_unavailable(redis: Redis) -> None:
    """The door answers 503, Stripe delivers again."""
    nowhere = Inbox(Redis.from_url("redis://127.0.0.1:1"))
    with pytest.raises(LedgerUnavailable):
        await nowhere.receive([INVOICE])


async def test_the_cursor_of_the_sweep_is_kept(inbox: Inbox) -> None:
    """A worker that starts again goes on where the last one stopped."""
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


def test_whatever_happens_in_whatever_order_nothing_is_lost(redis_url: str) -> None:
    """Random lives of eight events on four objects: each is in exactly one list, and waits iff pending."""
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
        held: list[Bundle] = []
        for step, subject, event in steps:
            await _step(inbox, step, f"in_{subject}", f"evt_{event % 2}{subject}", known, held)
        await _check(redis, inbox, known)


async def _step(
    inbox: Inbox, step: str, subject: str, event: str, known: set[str], held: list[Bundle]
) -> None:
    if step == "receive":
        assert await inbox.receive([Notice(event, "invoice.paid", subject)]) == [event not in known]
        known.add(event)
    elif step == "claim":
        held += await inbox.claim(2)
    elif step == "requeue":
        await inbox.requeue(event)
    elif held:
        bundle = held.pop()
        if step == "settle":
            await inbox.settle(bundle, EventStatus.PROCESSED)
        elif step == "strike":
            await inbox.strike(bundle, "broken")
        else:
            await inbox.postpone(bundle, "away", 0)


async def _check(redis: Redis, inbox: Inbox, known: set[str]) -> None:
    listed = [each.id for each in (await inbox.page(100)).items]
    pending = {each.id for each in (await inbox.page(100, status=EventStatus.PENDING)).items}
    waiting = {
        event.decode()
        async for key in redis.scan_iter("{inbox}:w:*")
        for event in await redis.smembers(key)
    }
    subjects = {key.decode()[len("{inbox}:w:") :] async for key in redis.scan_iter("{inbox}:w:*")}
    due = {each.decode() for each in await redis.zrange("{inbox}:due", 0, -1)}

    assert sorted(listed) == sorted(known)
    assert waiting == pending
    assert due == subjects
