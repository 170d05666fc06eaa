"""`syncBilling`: requests for a sync."""

from billing.usage import CustomerId
from tests.resolvers.conftest import SUPPORT, ApiHarness, panel_viewer
from tests.support.mutations import SYNC, audit_entries


async def test_only_syncs_requested_by_support_are_audited(api: ApiHarness) -> None:
    """A customer's request for a sync is not an action of Support."""
    customer = await api.shop.customer()
    sync = """mutation ($id: ID!) { syncBilling(input: {customerId: $id}) { sync { id } } }"""
    await api.record_usage(customer)
    await api.query(panel_viewer(customer), sync, id=customer)
    mine = (await api.query(SUPPORT, sync, id=customer))["syncBilling"]["sync"]["id"]

    [entry] = await audit_entries(api, customer)
    assert (entry["action"], entry["detail"]["after"]) == ("syncBilling", {"sync": mine})


async def test_second_request_returns_the_waiting_sync(api: ApiHarness) -> None:
    """Repeated clicks cause one sync."""
    customer = await api.shop.customer()
    await api.record_usage(customer)

    first = (await api.query(panel_viewer(customer), SYNC, id=customer))["syncBilling"]
    second = (await api.query(SUPPORT, SYNC, id=customer))["syncBilling"]

    assert (first["coalesced"], second["coalesced"]) == (False, True)
    assert first["sync"] == second["sync"]
    assert (first["sync"]["status"], first["sync"]["trigger"]) == ("QUEUED", "ON_DEMAND")


async def test_requested_sync_can_be_followed_by_id(api: ApiHarness) -> None:
    """The id in the payload finds the sync until it has finished."""
    customer = await api.shop.customer()
    await api.record_usage(customer)
    requested = (await api.query(panel_viewer(customer), SYNC, id=customer))["syncBilling"]["sync"]

    await api.flush(customer)

    query = "query ($id: ID!) { sync(id: $id) { status linesAdded stripeCalls deltas startedAt finishedAt failure { code } } }"
    shown = (await api.query(panel_viewer(customer), query, id=requested["id"]))["sync"]
    assert (shown["status"], shown["linesAdded"], shown["deltas"]) == ("SUCCEEDED", 1, 1)
    assert shown["startedAt"] <= shown["finishedAt"]


async def test_sync_of_a_customer_on_hold_is_refused(api: ApiHarness) -> None:
    """The customer learns of the hold, but not its reason."""
    customer = await api.shop.customer()
    await api.services.ledger.holds.place(CustomerId(customer), "fraud?", "agent")

    refused = (await api.query(panel_viewer(customer), SYNC, id=customer))["syncBilling"]

    assert (refused["sync"], refused["errors"][0]["code"]) == (None, "ON_HOLD")
    assert "fraud" not in refused["errors"][0]["message"]


async def test_mutations_of_one_document_see_earlier_effects(api: ApiHarness) -> None:
    """The dataloaders are reset between mutations of a document."""
    customer = await api.shop.customer()
    document = """mutation ($id: ID!) {
      first: syncBilling(input: {customerId: $id}) { errors { code } }
      holdBilling(input: {customerId: $id, reason: "disputed"}) { errors { code } }
      then: syncBilling(input: {customerId: $id}) { errors { code } } }"""

    done = await api.query(SUPPORT, document, id=customer)

    assert done["first"]["errors"] == done["holdBilling"]["errors"] == []
    assert done["then"]["errors"] == [{"code": "ON_HOLD"}]
