"""`retrySync`: an immediate retry of a failed sync."""

from billing.ledger.syncs import SyncStatus
from billing.usage import CustomerId
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import RETRY, audit_entries
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
