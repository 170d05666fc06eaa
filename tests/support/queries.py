"""The questions that journeys ask over and over."""

from decimal import Decimal
from typing import Any

from tests.support.system import Caller
from tests.support.wait import wait_until

PERIOD = """query Period($id: ID!) { customer(id: $id) {
  currentPeriod { state inStripe { amount } claimed { amount } pending { amount } total { amount } invoice { id status total { amount } } }
  syncState { status pendingDeltas }
  invoices(first: 5) { nodes { id status total { amount } hostedInvoiceUrl } }
  freshness { source } } }"""
SYNC = """mutation Sync($id: ID!) { syncBilling(input: {customerId: $id}) { coalesced errors { code message } sync { id status } } }"""
SYNC_STATUS = """query Status($id: ID!) { sync(id: $id) { status stripeCalls linesAdded linesUpdated linesRemoved failure { code message } } }"""


async def synced(caller: Caller, customer: str) -> dict[str, Any]:
    """Ask for a sync and wait until it has finished; the finished Sync."""
    payload = (await caller.execute(SYNC, id=customer))["syncBilling"]
    assert payload["errors"] == []

    async def finished() -> Any:
        sync = (await caller.execute(SYNC_STATUS, id=payload["sync"]["id"]))["sync"]
        assert sync["status"] != "FAILED", sync
        return sync if sync["status"] == "SUCCEEDED" else None

    found: dict[str, Any] = await wait_until(finished, "the sync has finished", seconds=60)
    return found


async def current_period(caller: Caller, customer: str) -> dict[str, Decimal]:
    """The four numbers of a customer's period."""
    period = (await caller.execute(PERIOD, id=customer))["customer"]["currentPeriod"]
    return {
        name: Decimal(period[name]["amount"])
        for name in ("inStripe", "claimed", "pending", "total")
    }
