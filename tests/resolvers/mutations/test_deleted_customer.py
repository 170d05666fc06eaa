"""Support can settle the billing of a customer that was deleted at Stripe."""

from billing.invoicing.request_batch import RequestKind, StripeRequest
from tests.resolvers.conftest import OTHER_CUSTOMER, SUPPORT, ApiHarness, panel_viewer

ADJUST = """mutation ($id: ID!, $quantity: Decimal!) {
  adjustUsage(input: {customerId: $id, sku: "egress-gb", quantity: $quantity, reason: "gone", idempotencyKey: "k"}) {
    adjustment { quantity } errors { code } } }"""
HOLD = """mutation ($id: ID!) { holdBilling(input: {customerId: $id, reason: "gone"}) {
  hold { reason } errors { code } } }"""
RELEASE = """mutation ($id: ID!) { releaseBilling(input: {customerId: $id, reason: "gone"}) {
  customer { id name hold { reason } } errors { code } } }"""


async def deleted_customer(api: ApiHarness) -> str:
    """Return a customer with usage that was deleted at Stripe."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "500", sku="egress-gb")
    path = f"/v1/customers/{customer}"
    request = StripeRequest(RequestKind.DELETE, "DELETE", path, {}, f"delete {customer}")
    await api.services.stripe.send(request, lane=api.lane)
    await api.services.cache.invalidate(customer)
    return customer


async def test_support_settles_a_deleted_customer(api: ApiHarness) -> None:
    """Hold, write off and release; each used to be NOT_FOUND."""
    customer = await deleted_customer(api)
    placed = (await api.query(SUPPORT, HOLD, id=customer))["holdBilling"]
    adjusted = (await api.query(SUPPORT, ADJUST, id=customer, quantity="-500"))["adjustUsage"]
    released = (await api.query(SUPPORT, RELEASE, id=customer))["releaseBilling"]

    assert placed == {"hold": {"reason": "gone"}, "errors": []}
    assert adjusted == {"adjustment": {"quantity": "-500"}, "errors": []}
    assert released == {"customer": {"id": customer, "name": None, "hold": None}, "errors": []}


async def test_deleted_customer_without_usage_is_not_found(api: ApiHarness) -> None:
    """The ledger has nothing to settle."""
    customer = await api.shop.customer()
    path = f"/v1/customers/{customer}"
    request = StripeRequest(RequestKind.DELETE, "DELETE", path, {}, "delete")
    await api.services.stripe.send(request, lane=api.lane)
    answer = (await api.query(SUPPORT, HOLD, id=customer))["holdBilling"]

    assert [error["code"] for error in answer["errors"]] == ["NOT_FOUND"]


async def test_deleted_customer_stays_hidden_from_others(api: ApiHarness) -> None:
    """A panel may not hold, and a token of somebody else learns nothing."""
    customer = await deleted_customer(api)

    for viewer in (panel_viewer(customer), OTHER_CUSTOMER):
        result = await api.execute(viewer, HOLD, id=customer)
        assert result.errors or (result.data and result.data["holdBilling"]["errors"])


SEEN = """query ($id: ID!, $text: String!) {
  customer(id: $id) { id name currentPeriod { total { amount } } invoices(first: 1) { nodes { id } } }
  customers(search: $text) { nodes { id } }
  syncs(first: 9) { nodes { customer { id name } } }
  one: syncs(first: 9, customerId: $id) { nodes { id } } }"""


async def test_support_sees_a_deleted_customer_and_everybody_else(api: ApiHarness) -> None:
    """What is left is shown with its usage, and no list over many fails for one."""
    other = await api.shop.customer("other")
    await api.record_usage(other)
    await api.flush(other)
    customer = await deleted_customer(api)
    await api.flush(customer)

    seen = await api.query(SUPPORT, SEEN, id=customer, text=customer)

    assert seen["customer"] == {
        "id": customer,
        "name": None,
        "currentPeriod": {"total": {"amount": "10"}},
        "invoices": {"nodes": []},
    }
    assert seen["customers"] == {"nodes": [{"id": customer}]}
    shown = {node["customer"]["id"]: node["customer"]["name"] for node in seen["syncs"]["nodes"]}
    assert shown == {customer: None, other: "Other"}
    assert len(seen["one"]["nodes"]) == 1


async def test_repair_for_a_deleted_customer_is_recorded(api: ApiHarness) -> None:
    """Support may try again what a worker parked."""
    repair = """mutation ($id: ID!) { repairDrift(input: {customerId: $id, reason: "look again"}) {
      sync { status } errors { code } } }"""
    customer = await deleted_customer(api)

    answer = (await api.query(SUPPORT, repair, id=customer))["repairDrift"]

    assert answer == {"sync": {"status": "QUEUED"}, "errors": []}
