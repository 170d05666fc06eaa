"""`retrySync`: an immediate retry of a failed sync."""

from redis.asyncio import Redis

from billing.ledger import keys
from billing.ledger.syncs import SyncStatus
from billing.usage import CustomerId
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import RETRY, audit_entries, last_month_draft
from tests.support.stripe_sandbox import StripeSandbox


async def test_retry_runs_a_failed_sync_at_once(api: ApiHarness, sandbox: StripeSandbox) -> None:
    """Support does not wait for the next scheduled attempt."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    await sandbox.fault("error_500_before", "POST /v1/invoices", times=100)
    await api.flush(customer)
    failed = await api.services.ledger.syncs.latest(CustomerId(customer))
    assert failed is not None
    assert failed.status is SyncStatus.RETRYING
    await sandbox.clear_faults()

    retried = (await api.query(SUPPORT, RETRY, id=failed.id))["retrySync"]
    await api.flush(customer)

    assert retried["errors"] == []
    sync = await api.services.ledger.syncs.get(retried["sync"]["id"])
    assert sync is not None
    assert sync.status is SyncStatus.SUCCEEDED
    assert (await audit_entries(api, customer))[0]["action"] == "retrySync"
    absent = (await api.query(SUPPORT, RETRY, id="sync_x_1"))["retrySync"]
    assert absent["errors"][0]["path"] == ["input", "syncId"]


async def test_retry_of_a_closed_month_is_refused(api: ApiHarness, redis: Redis) -> None:
    """Its bill is final; once it is forgotten too, a flush would begin it empty and credit its whole bill."""
    customer, last_month, _ = await last_month_draft(api)
    sync = await api.services.ledger.syncs.latest(customer)
    assert sync is not None
    await api.services.ledger.periods.close(customer, last_month)
    await api.flush(customer, last_month)
    sealed = (await api.query(SUPPORT, RETRY, id=sync.id))["retrySync"]
    forgotten = last_month.previous().previous().previous()
    number = int(sync.id.rpartition("_")[2])
    await redis.hset(keys.sync(customer, number), "period", str(forgotten))
    expired = (await api.query(SUPPORT, RETRY, id=sync.id))["retrySync"]

    for refused, month in ((sealed, last_month), (expired, forgotten)):
        [error] = refused["errors"]
        assert (error["code"], error["path"]) == ("PERIOD_CLOSED", ["input", "syncId"])
        assert str(month) in error["message"]
    assert forgotten not in await api.services.ledger.periods.list_retained(customer)
    assert [entry["outcome"] for entry in await audit_entries(api, customer)] == ["REFUSED"] * 2
