"""The scripts use the keys of ``billing.ledger.keys``, all in the customer's slot."""

import re
from decimal import Decimal

from redis.asyncio import Redis
from redis.crc import key_slot

from billing.invoicing.request_batch import RequestBatch
from billing.ledger import NewAdjustment, keys
from billing.ledger.books import Difference, DifferenceKind
from billing.ledger.syncs import SyncFailure, SyncStatus
from tests.support.ledger import CUSTOMER, NOVEMBER, PRICES, Clock, delta, open_ledger, outcomes


async def test_every_key_is_listed_and_in_its_customers_slot(redis: Redis) -> None:
    """An unlisted key would never be deleted; a key in another slot would break a cluster."""
    clock = Clock()
    ledger = await open_ledger(redis, clock)
    await redis.delete(keys.customer(CUSTOMER))
    await ledger.usage.register_customer(CUSTOMER, "usd")
    await outcomes(ledger, delta("a", app="web", region="fra", organization="acme"))
    await ledger.adjustments.create(
        NewAdjustment(CUSTOMER, "cpu", Decimal(1), "r", "b", "k"), PRICES["cpu"]
    )
    await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    for cause in ("one", "another"):
        await ledger.holds.place_once(CUSTOMER, "Voided", "gateway", cause)
    leased = await ledger.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased is not None
    await ledger.leases.commit(leased.lease, version=None, verify=None, invoice=None, lines={})
    await ledger.leases.prepare(leased.lease, RequestBatch(1, "", "", 0, ()))
    await ledger.leases.park(leased.lease, SyncFailure("refused", "Why."))
    await ledger.books.record([Difference(CUSTOMER, NOVEMBER, DifferenceKind.LOST, -5)])

    shard = keys.shard_of(CUSTOMER)
    listed = {
        keys.due(shard),
        keys.priority(shard),
        keys.unsynced(shard),
        keys.open_periods(shard),
        keys.epoch(shard),
        keys.parked(shard),
        keys.on_hold(shard),
        keys.books(shard),
        keys.book_sums(shard),
        keys.syncs_by_status(shard, SyncStatus.FAILED),
        keys.customer(CUSTOMER),
        keys.periods(CUSTOMER),
        keys.delta_ids(CUSTOMER, clock() // (42 * 86_400_000), 0),
        keys.sync(CUSTOMER, 1),
        keys.queued_holds(CUSTOMER),
        keys.adjustments(CUSTOMER),
        keys.adjustment_keys(CUSTOMER),
        keys.period(CUSTOMER, NOVEMBER),
        keys.totals(CUSTOMER, NOVEMBER),
        *(
            keys.breakdown(CUSTOMER, NOVEMBER, dimension)
            for dimension in ("app", "region", "organization")
        ),
        keys.lines(CUSTOMER, NOVEMBER),
        keys.request_batch(CUSTOMER, NOVEMBER),
    }
    tag = f"{{b{shard:02}}}"
    found = {key.decode() async for key in redis.scan_iter(f"{re.escape(tag)}*")}
    assert found == listed
    assert {key_slot(key.encode()) for key in listed} == {key_slot(keys.audit(CUSTOMER).encode())}
