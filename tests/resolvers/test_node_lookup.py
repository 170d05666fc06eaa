"""Node lookup by id: the nodes that it finds, and the ones that it does not reveal."""

from dataclasses import replace

import pytest
from pydantic import SecretStr

from billing.events.effects import EventRef
from billing.invoicing.request_batch import RequestKind, StripeRequest
from billing.ledger import NewAdjustment
from billing.usage import CustomerId
from resolvers.context import Viewer
from tests.resolvers.conftest import OTHER_CUSTOMER, SUPPORT, ApiHarness, panel_viewer
from tests.support.stripe_sandbox import StripeSandbox

NODES = "query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"
OWNER = "query ($id: ID!) { customer(id: $id) { id } }"
LINES = "query ($id: ID!) { invoice(id: $id) { lines { nodes { id } } } }"
SUPPORT_ONLY = {"Adjustment", "WebhookEvent"}


@pytest.fixture
async def ids(api: ApiHarness) -> dict[str, str]:
    """One id of every node type, all of one customer."""
    customer = await api.shop.customer()
    owner = CustomerId(customer)
    card = await api.attach_card(customer)
    await api.record_usage(customer, "1000000")
    await api.flush(customer)
    snapshot = await api.services.ledger.periods.snapshot(
        owner, await api.services.ledger.periods.current(owner)
    )
    assert snapshot.invoice is not None
    shown = await api.query(SUPPORT, LINES, id=snapshot.invoice)
    sync = await api.services.ledger.syncs.latest(owner)
    assert sync is not None
    await api.services.inbox.receive([EventRef("evt_1", "customer.updated", customer, owner)])
    return {
        "Customer": customer,
        "Invoice": snapshot.invoice,
        "InvoiceLine": shown["invoice"]["lines"]["nodes"][0]["id"],
        "PaymentMethod": card,
        "Sync": sync.id,
        "Adjustment": await create_adjustment(api, owner),
        "WebhookEvent": "evt_1",
    }


async def create_adjustment(api: ApiHarness, customer: CustomerId) -> str:
    """Create an adjustment; returns its id."""
    price = (await api.services.price_catalog.by_sku(["egress-gb"]))["egress-gb"]
    request = NewAdjustment(customer, "egress-gb", price.unit_amount, "goodwill", "agent", "key-1")
    return (await api.services.ledger.adjustments.create(request, price)).id


async def find_nodes(api: ApiHarness, viewer: Viewer, ids: dict[str, str]) -> dict[str, str | None]:
    """The result of `nodes` as a mapping of type name to id or None."""
    nodes = (await api.query(viewer, NODES, ids=list(ids.values())))["nodes"]
    assert all(
        node is None or node["__typename"] == kind for kind, node in zip(ids, nodes, strict=True)
    )
    return {kind: node and node["id"] for kind, node in zip(ids, nodes, strict=True)}


async def test_support_finds_every_node_by_id(api: ApiHarness, ids: dict[str, str]) -> None:
    """An id in an e-mail or in Stripe's Dashboard can be pasted as it is."""
    assert ids == await find_nodes(api, SUPPORT, ids)


async def test_panel_finds_its_own_nodes(api: ApiHarness, ids: dict[str, str]) -> None:
    """Adjustments and events are for Support alone; the customer sees all else that it owns."""
    expected = {kind: None if kind in SUPPORT_ONLY else id_ for kind, id_ in ids.items()}

    assert expected == await find_nodes(api, panel_viewer(ids["Customer"]), ids)


async def test_foreign_nodes_look_absent(api: ApiHarness, ids: dict[str, str]) -> None:
    """A token that guesses ids must not learn which ones exist."""
    absent = {kind: id_[:-1] + "Z" for kind, id_ in ids.items()}

    foreign = await find_nodes(api, OTHER_CUSTOMER, ids)

    assert set(foreign.values()) == {None}
    assert foreign == await find_nodes(api, OTHER_CUSTOMER, absent)


async def test_payment_method_is_not_read_each_time(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """A customer who asks again and again for a card, its own or another's, calls Stripe once; a new card is found."""
    customer, other = await api.shop.customer(), await api.shop.customer()
    viewer, foreign = panel_viewer(customer), await api.attach_card(other)
    card = await api.attach_card(customer)
    await sandbox.reset_counters()
    for _ in range(3):
        found = await api.query(viewer, NODES, ids=[card, foreign, "pm_invented"])
        assert [node and node["id"] for node in found["nodes"]] == [card, None, None]
    assert (await sandbox.counters())["total"] == 1

    second = await api.attach_card(customer)
    await api.services.cache.invalidate(customer)  # as its event does
    assert (await api.query(viewer, NODES, ids=[second]))["nodes"] == [
        {"__typename": "PaymentMethod", "id": second}
    ]


async def test_payment_method_of_one_of_many_customers(api: ApiHarness) -> None:
    """A token for many customers does not list the payment methods of all of them."""
    customer = await api.shop.customer()
    card = await api.attach_card(customer)
    several = panel_viewer(customer, *(f"cus_{n}" for n in range(3)))
    many = panel_viewer(customer, *(f"cus_{n}" for n in range(10)))

    for viewer in (several, many):
        assert (await api.query(viewer, NODES, ids=[card]))["nodes"][0]["id"] == card


INVALID_IDS = [
    "",
    "cus_",
    "in_../customers",
    "cus_1/../../prices",
    "x",
    "price_1",
    "sync_a",
    "sync_x_9",
    "adj_x_y",
    "adj_1",
]
INVALID_IDS += [
    "IN_1",
    "in_1\n",
    "é",
    "a" * 300,
    "il_unseen",
    "evt_absent",
    "pm_absent",
    "in_absent",
]


async def test_invalid_ids_find_nothing(api: ApiHarness) -> None:
    """Ids become paths at Stripe, so anything else is filtered; an unknown id is not an error."""
    assert await api.query(SUPPORT, NODES, ids=INVALID_IDS) == {"nodes": [None] * len(INVALID_IDS)}


async def test_any_id_finds_its_customer(api: ApiHarness, ids: dict[str, str]) -> None:
    """Support pastes the invoice that the customer quotes, and gets the customer."""
    for id_ in ids.values():
        assert await api.query(SUPPORT, OWNER, id=id_) == {"customer": {"id": ids["Customer"]}}


async def test_email_and_search_exclude_each_other(api: ApiHarness) -> None:
    """One of them would be ignored silently."""
    both = '{ customers(email: "a@fly.example", search: "acme") { nodes { id } } }'

    assert await api.error_codes(SUPPORT, both) == ["BAD_USER_INPUT"]


async def test_too_many_ids_are_refused(api: ApiHarness) -> None:
    """Each may be a call to Stripe."""
    assert await api.error_codes(SUPPORT, NODES, ids=["cus_1"] * 101) == ["BAD_USER_INPUT"]


async def test_objects_without_a_type_find_their_customer(api: ApiHarness) -> None:
    """Receipts quote credit notes and charges; only Support may look them up."""
    customer = await api.shop.customer()
    params = {"customer": customer, "amount": 900, "currency": "usd"}
    item = (await api.write_stripe("/v1/invoiceitems", params, 1))["id"]

    assert await api.query(SUPPORT, OWNER, id=item) == {"customer": {"id": customer}}
    assert await api.query(SUPPORT, OWNER, id="ii_absent") == {"customer": None}
    assert await api.query(panel_viewer(customer), OWNER, id=item) == {"customer": None}


LINKS = """query ($ids: [ID!]!, $id: ID!) {
  nodes(ids: $ids) { id
    ... on Customer { stripeDashboardUrl } ... on Invoice { stripeDashboardUrl }
    ... on InvoiceLine { stripeDashboardUrl } ... on PaymentMethod { line: stripeDashboardUrl }
    ... on Sync { stripeDashboardUrl failure { stripeDashboardUrl } }
    ... on Adjustment { stripeDashboardUrl } ... on WebhookEvent { stripeDashboardUrl } }
  customer(id: $id) { currentPeriod { bySku: usage { key stripeDashboardUrl } byApp: usage(by: APP) { stripeDashboardUrl } } } }"""
PREVIEW = """mutation ($id: ID!) { previewSync(input: {customerId: $id}) { plan { linesAdded { stripeDashboardUrl } } } }"""


@pytest.mark.parametrize("mode", ["test", "live"])
async def test_dashboard_url_of_every_node(api: ApiHarness, ids: dict[str, str], mode: str) -> None:
    """In the key's own mode; an object without a page links to the object that it belongs to."""
    if mode == "live":
        live = SecretStr("sk_live_0123456789abcdef")
        settings = api.services.settings.model_copy(update={"stripe_api_key": live})
        api.services = replace(api.services, settings=settings)
    price = (await api.services.price_catalog.by_sku(["machine-seconds"]))["machine-seconds"].id
    egress = (await api.services.price_catalog.by_sku(["egress-gb"]))["egress-gb"].id

    shown = await api.query(SUPPORT, LINKS, ids=list(ids.values()), id=ids["Customer"])
    plan = (await api.query(SUPPORT, PREVIEW, id=ids["Customer"]))["previewSync"]["plan"]

    pages = [node.get("stripeDashboardUrl") or node["line"] for node in shown["nodes"]]
    pages += [line["stripeDashboardUrl"] for line in plan["linesAdded"]]
    rows = shown["customer"]["currentPeriod"]
    pages += [row["stripeDashboardUrl"] for row in rows["bySku"] if row["key"] == "machine-seconds"]
    begin = "https://dashboard.stripe.com/" + ("test/" if mode == "test" else "")
    assert pages == [
        begin + f"customers/{ids['Customer']}",
        begin + f"invoices/{ids['Invoice']}",
        begin + f"invoices/{ids['Invoice']}",
        begin + f"customers/{ids['Customer']}",
        begin + f"invoices/{ids['Invoice']}",
        begin + f"prices/{egress}",
        begin + "events/evt_1",
        begin + f"prices/{egress}",
        begin + f"prices/{price}",
    ]
    assert {row["stripeDashboardUrl"] for row in rows["byApp"]} == {None}


async def test_dashboard_url_of_failures_and_drift_lines(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """The request in Stripe's logs, and the draft."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    await api.flush(customer)
    sync = await api.services.ledger.syncs.latest(CustomerId(customer))
    assert sync is not None
    assert sync.invoice is not None
    await sandbox.dashboard("add_line", sync.invoice, amount=700, description="a favour")
    drift = "query ($id: ID!) { customer(id: $id) { drift { lines { stripeDashboardUrl } } } }"
    failure = "query ($id: ID!) { sync(id: $id) { failure { requestId stripeDashboardUrl } } }"

    lines = (await api.query(SUPPORT, drift, id=customer))["customer"]["drift"]["lines"]
    deleted = CustomerId(await api.shop.customer("deleted"))
    delete = StripeRequest(RequestKind.DELETE, "DELETE", f"/v1/customers/{deleted}", {}, "deleted")
    await api.record_usage(deleted)
    await api.services.stripe.send(delete, lane=api.lane)
    await api.flush(deleted)
    last = await api.services.ledger.syncs.latest(deleted)
    assert last is not None
    rejected = (await api.query(SUPPORT, failure, id=last.id))["sync"]["failure"]

    begin = "https://dashboard.stripe.com/test"
    assert lines == [{"stripeDashboardUrl": f"{begin}/invoices/{sync.invoice}"}]
    assert rejected["stripeDashboardUrl"] == f"{begin}/logs/{rejected['requestId']}"
