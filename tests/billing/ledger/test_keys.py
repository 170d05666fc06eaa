"""The scripts spell their keys as ``billing.ledger.keys`` does, and keep a customer in one slot."""

import re
from decimal import Decimal

from redis.asyncio import Redis
from redis.crc import key_slot

from billing.invoicing.snapshot import Flight
from billing.ledger import NewAdjustment, keys
from billing.ledger.syncs import SyncFailure, SyncStatus
from tests.support.ledger import CUSTOMER, NOVEMBER, PRICES, Clock, delta, open_ledger, outcomes


async def test_every_key_is_listed_and_in_its_customers_slot(redis: Redis) -> None:
    """A key that nobody lists is one that nobody deletes, and one in another slot breaks a cluster."""
    clock = Clock()
    ledger = await open_ledger(redis, clock)
    await redis.delete(keys.customer(CUSTOMER))
    await ledger.register(CUSTOMER, "usd")
    await outcomes(ledger, delta("a", app="web", region="fra", organization="acme"))
    await ledger.adjust(NewAdjustment(CUSTOMER, "cpu", Decimal(1), "r", "b", "k"), PRICES["cpu"])
    await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    for about in ("one", "another"):
        await ledger.hold_once(CUSTOMER, "Voided", "gateway", about)
    held = await ledger.acquire(CUSTOMER, NOVEMBER)
    assert held is not None
    await ledger.commit(held.lease, version=None, verify=None, invoice=None, lines={})
    await ledger.prepare(held.lease, Flight(1, "", "", 0, ()))
    await ledger.park(held.lease, SyncFailure("refused", "Why."))

    shard = keys.shard_of(CUSTOMER)
    listed = {
        keys.due(shard),
        keys.first(shard),
        keys.untold(shard),
        keys.open_periods(shard),
        keys.epoch(shard),
        keys.parked(shard),
        keys.held(shard),
        keys.syncs(shard, SyncStatus.FAILED),
        keys.customer(CUSTOMER),
        keys.periods(CUSTOMER),
        keys.ids(CUSTOMER, clock() // (42 * 86_400_000), 0),
        keys.sync(CUSTOMER, 1),
        keys.holds(CUSTOMER),
        keys.adjustments(CUSTOMER),
        keys.adjusted(CUSTOMER),
        keys.period(CUSTOMER, NOVEMBER),
        keys.totals(CUSTOMER, NOVEMBER),
        *(keys.breakdown(CUSTOMER, NOVEMBER, each) for each in ("app", "region", "organization")),
        keys.lines(CUSTOMER, NOVEMBER),
        keys.flight(CUSTOMER, NOVEMBER),
    }
    tag = f"{{b{shard:02}}}"
    found = {key.decode() async for key in redis.scan_iter(f"{re.escape(tag)}*")}
    assert found == listed
    assert {key_slot(key.encode()) for key in listed} == {key_slot(keys.audit(CUSTOMER).encode())}
