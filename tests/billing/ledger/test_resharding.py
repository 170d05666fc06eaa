"""A slot that is moved key by key: a script that meets a key it may not touch has written nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any
from zlib import crc32

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode

from billing.audit import ActionIntent, AuditLog
from billing.errors import LedgerUnavailable
from billing.events.effects import EventRef
from billing.events.inbox import Inbox, InboxPolicy
from billing.events.records import EventStatus
from billing.invoicing.request_batch import RequestBatch
from billing.ledger import DeltaOutcome, LeasedPeriod, Ledger, NewAdjustment, keys
from billing.ledger.syncs import SyncFailure
from billing.usage import CustomerId
from tests.billing.ledger.test_cluster import cluster as cluster  # noqa: PLC0414 a fixture
from tests.support.ledger import (
    CUSTOMER,
    LINES,
    NOVEMBER,
    POLICY,
    PRICES,
    Clock,
    delta,
    outcomes,
)

SHARD = keys.shard_of(CUSTOMER)
BEFORE = [delta(f"before{n}") for n in range(30)]
DURING = [delta(f"during{n}", app=f"app{n}") for n in range(30)]
Content = list[dict[str, bytes]]


@dataclass
class Reshard:
    """The move of one slot from *source* to *target*, key by key, as ``valkey-cli --cluster reshard`` does it."""

    slot: int
    source: ClusterNode
    target: ClusterNode

    def _clients(self) -> tuple[Redis, Redis]:
        source, target = self.source, self.target
        return Redis(port=int(source.port)), Redis(port=int(target.port))

    async def begin(self) -> None:
        """Mark the slot as importing and migrating."""
        source, target = self._clients()
        async with source, target:
            ids = [await client.execute_command("CLUSTER MYID") for client in (source, target)]
            names = [name.decode() for name in ids]
            await target.execute_command("CLUSTER SETSLOT", self.slot, "IMPORTING", names[0])
            await source.execute_command("CLUSTER SETSLOT", self.slot, "MIGRATING", names[1])

    async def move(self, part: Callable[[str], bool]) -> None:
        """Move the keys of which *part* is true."""
        source, target = self._clients()
        async with source, target:
            names = await source.execute_command("CLUSTER GETKEYSINSLOT", self.slot, 1000)
            if moved := list(filter(part, names)):
                address = ("127.0.0.1", int(self.target.port), "", 0, 5000)
                await source.execute_command("MIGRATE", *address, "KEYS", *moved)

    async def finish(self) -> None:
        """Give the slot to the target."""
        await self.move(lambda _: True)
        source, target = self._clients()
        async with source, target:
            name = (await target.execute_command("CLUSTER MYID")).decode()
            for client in (target, source):
                await client.execute_command("CLUSTER SETSLOT", self.slot, "NODE", name)

    async def content(self) -> Content:
        """Every key of the slot, on either side."""
        clients = self._clients()
        async with clients[0], clients[1]:
            return [await self._dumps(client) for client in clients]

    async def _dumps(self, client: Redis) -> dict[str, bytes]:
        names = await client.execute_command("CLUSTER GETKEYSINSLOT", self.slot, 1000)
        async with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.execute_command("ASKING")
                pipeline.dump(name)
            answers = await pipeline.execute()
        return dict(zip(names, answers[1::2], strict=True))


@asynccontextmanager
async def resharding(
    cluster: RedisCluster, key: str, part: Callable[[str], bool]
) -> AsyncIterator[Reshard]:
    """Move *part* of the slot of *key* for the block, and the rest after it."""
    slot = cluster.keyslot(key)
    source = cluster.nodes_manager.get_node_from_slot(slot)
    [target] = [node for node in cluster.get_primaries() if node.name != source.name]
    reshard = Reshard(slot, source, target)
    await reshard.begin()
    await reshard.move(part)
    yield reshard
    await reshard.finish()


async def refused_untouched(
    reshard: Reshard, actions: dict[str, Callable[[], Awaitable[Any]]]
) -> list[str]:
    """The names of the *actions* that were not refused; a refused one that wrote anything fails the test."""
    accepted = []
    for name, action in actions.items():
        before = await reshard.content()
        try:
            await action()
        except LedgerUnavailable:
            assert await reshard.content() == before, name
        else:
            accepted.append(name)
    return accepted


MOVED = {
    "nothing": lambda _: False,
    "customer": lambda name: name.endswith(CUSTOMER),
    "ids": lambda name: ":ids:" in name,
    "queues": lambda name: CUSTOMER not in name,
    "half": lambda name: crc32(name.encode()) % 2 == 0,
    "all but the totals": lambda name: not name.endswith(":totals"),
}


def _actions(ledger: Ledger, leased: LeasedPeriod) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every operation of the ledger that writes by a script."""
    lease, lines = leased.lease, LINES
    adjustment = NewAdjustment(CUSTOMER, "cpu", Decimal(-1), "why", "ann", "key")
    other = NewAdjustment(CUSTOMER, "cpu", Decimal(-1), "why", "ann", "other")
    failure = SyncFailure("code", "message")
    batch = RequestBatch(4, "1:x", "0", 0, ())
    return {
        "record": lambda: ledger.usage.record(DURING, PRICES),
        "register": lambda: ledger.usage.register_customer(CUSTOMER, "usd"),
        "adjust again": lambda: ledger.adjustments.create(adjustment, PRICES["cpu"]),
        "adjust": lambda: ledger.adjustments.create(other, PRICES["cpu"]),
        "hold": lambda: ledger.holds.place(CUSTOMER, "why", "ann"),
        "hold once": lambda: ledger.holds.place_once(CUSTOMER, "why", "ann", "cause"),
        "release hold": lambda: ledger.holds.release(CUSTOMER),
        "sync": lambda: ledger.syncs.request(CUSTOMER, "ON_DEMAND"),
        "verify": lambda: ledger.periods.request_verify(CUSTOMER, NOVEMBER),
        "wake": lambda: ledger.due.wake(CUSTOMER, NOVEMBER),
        "claim": lambda: ledger.due.claim(SHARD, 10, 1000),
        "claim priority": lambda: ledger.due.claim_priority(SHARD, 10, 1000),
        "acquire": lambda: ledger.leases.acquire(CUSTOMER, NOVEMBER),
        "renew": lambda: ledger.leases.renew(lease),
        "in doubt": lambda: ledger.leases.mark_in_doubt(lease),
        "mark": lambda: ledger.leases.mark_request_done(lease, 0),
        "prepare": lambda: ledger.leases.prepare(lease, batch),
        "commit": lambda: ledger.leases.commit(
            lease, version=leased.snapshot.version, verify=None, invoice="in_1", lines=lines
        ),
        "close": lambda: ledger.periods.close(CUSTOMER, NOVEMBER),
        "seal": lambda: ledger.periods.seal(
            lease, version=leased.snapshot.version, residuals=leased.snapshot.totals
        ),
        "release": lambda: ledger.leases.release(lease),
        "park": lambda: ledger.leases.park(lease, failure),
    }


@pytest.mark.parametrize("part", MOVED)
async def test_script_that_is_refused_has_written_nothing(cluster: RedisCluster, part: str) -> None:
    """Wherever the keys are; afterwards every delta counts once, also those sent in between."""
    ledger = Ledger(cluster, policy=POLICY, clock=Clock())
    await ledger.open()
    await ledger.usage.register_customer(CUSTOMER, "usd")
    await outcomes(ledger, *BEFORE)
    adjustment = NewAdjustment(CUSTOMER, "cpu", Decimal(-1), "why", "ann", "key")
    await ledger.adjustments.create(adjustment, PRICES["cpu"])
    await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    leased = await ledger.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased is not None
    await ledger.leases.prepare(leased.lease, RequestBatch(4, "1:x", "0", 0, ()))

    async with resharding(cluster, keys.due(SHARD), MOVED[part]) as reshard:
        assert await refused_untouched(reshard, _actions(ledger, leased)) == []

    assert await outcomes(ledger, *BEFORE) == [DeltaOutcome.DUPLICATE] * len(BEFORE)
    assert await outcomes(ledger, *DURING) == [DeltaOutcome.ACCEPTED] * len(DURING)
    totals = (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals
    assert sum(totals.values()) == len(BEFORE) + len(DURING) - 1


@pytest.mark.parametrize("part", ["nothing", "counter", "records", "half"])
async def test_event_is_not_lost_while_the_inbox_is_moved(cluster: RedisCluster, part: str) -> None:
    """A record without its place in a list would be taken for a duplicate, and never be processed."""
    moved: Callable[[str], bool] = {
        "nothing": lambda _: False,
        "counter": lambda name: name.endswith(":n"),
        "records": lambda name: ":e:" in name,
        "half": lambda name: crc32(name.encode()) % 2 == 0,
    }[part]
    await cluster.initialize()
    inbox = Inbox(cluster, InboxPolicy(visibility_ms=1))
    await inbox.receive([_event(n) for n in range(4)])
    done, failing, *_ = await inbox.claim(2)
    await inbox.complete(done, EventStatus.PROCESSED)
    finished = done.ids[0]

    async with resharding(cluster, keys.inbox_due(), moved) as reshard:
        accepted = await refused_untouched(
            reshard,
            {
                "receive": lambda: inbox.receive([_event(n) for n in range(2, 8)]),
                "claim": lambda: inbox.claim(4),
                "complete": lambda: inbox.complete(failing, EventStatus.PROCESSED),
                "failure": lambda: inbox.record_failure(failing, "why"),
                "requeue": lambda: inbox.requeue(finished),
                "trim": inbox.trim,
            },
        )
        assert accepted == []

    assert await inbox.receive([_event(n) for n in range(8)]) == [False] * 4 + [True] * 4


def test_every_script_of_the_inbox_requires_a_whole_slot() -> None:
    """The ledger's have it in their prelude."""
    for script in (files("billing.events") / "scripts").iterdir():
        code = [line for line in script.read_text().splitlines() if not line.startswith("--")]
        assert code[0] == "require_whole_slot(KEYS[1])", script.name


async def test_audited_action_is_not_half_recorded(cluster: RedisCluster) -> None:
    """Its script declares its keys, so the server refuses it before it begins."""
    await cluster.initialize()
    audit = AuditLog(cluster)
    intent = ActionIntent(CUSTOMER, "ann", "holdBilling", None, {}, idempotency_key="k")
    async with resharding(cluster, keys.due(SHARD), lambda _: False) as reshard:
        await refused_untouched(reshard, {"begin": lambda: audit.begin(intent)})
    started = await audit.begin(intent)
    await audit.complete(started, {})
    assert len((await audit.page(CUSTOMER, 10)).items) == 1


async def test_process_starts_connections_during_a_reshard(cluster: RedisCluster) -> None:
    """A shard in between is nobody's; the others go on."""
    ledger = Ledger(cluster, policy=POLICY, clock=Clock())
    await ledger.open()
    async with resharding(cluster, keys.due(SHARD), lambda name: name.endswith(":epoch")):
        await cluster.aclose()
        with suppress(LedgerUnavailable):
            await ledger.usage.register_customer(CUSTOMER, "usd")
        customers = [CustomerId(f"cus_Reshard{n}") for n in range(10)]
        await asyncio.gather(
            *(
                ledger.usage.register_customer(customer, "usd")
                for customer in customers
                if keys.shard_of(customer) != SHARD
            )
        )


def _event(n: int) -> EventRef:
    return EventRef(f"evt_{n}", "invoice.paid", f"in_{n}")
