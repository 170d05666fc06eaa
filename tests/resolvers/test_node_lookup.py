"""Ids pasted anywhere: what they find, and what they do not give away."""

from dataclasses import replace

import pytest
from pydantic import SecretStr

from billing.events.effects import Notice
from billing.invoicing.snapshot import Op, OpKind
from billing.ledger import NewAdjustment
from billing.usage import CustomerId
from resolvers.context import Viewer
from tests.resolvers.conftest import SOMEBODY_ELSE, SUPPORT, Desk, panel_of
from tests.support.stripe_sandbox import StripeSandbox

NODES = "query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"
OWNER = "query ($id: ID!) { customer(id: $id) { id } }"
LINES = "query ($id: ID!) { invoice(id: $id) { lines { nodes { id } } } }"
FOR_SUPPORT = {"Adjustment", "WebhookEvent"}


@pytest.fixture
async def ids(desk: Desk) -> dict[str, str]:
    """One of everything that has an id, all of one customer."""
    customer = await desk.shop.customer()
    owner = CustomerId(customer)
    card = await desk.card(customer)
    await desk.use(customer, "1000000")
    await desk.flush(customer)
    snapshot = await desk.services.ledger.peek(owner, await desk.services.ledger.open_period(owner))
    assert snapshot.invoice is not None
    shown = await desk.ask(SUPPORT, LINES, id=snapshot.invoice)
    sync = await desk.services.syncs.of(owner)
    assert sync is not None
    await desk.services.inbox.receive([Notice("evt_1", "customer.updated", customer, owner)])
    return {
        "Customer": customer,
        "Invoice": snapshot.invoice,
        "InvoiceLine": shown["invoice"]["lines"]["nodes"][0]["id"],
        "PaymentMethod": card,
        "Sync": sync.id,
        "Adjustment": await adjusted(desk, owner),
        "WebhookEvent": "evt_1",
    }


async def adjusted(desk: Desk, customer: CustomerId) -> str:
    """The id of a new correction."""
    price = (await desk.services.catalogue.by_sku(["egress-gb"]))["egress-gb"]
    asked = NewAdjustment(customer, "egress-gb", price.unit_amount, "goodwill", "agent", "key-1")
    return (await desk.services.ledger.adjust(asked, price)).id


async def found(desk: Desk, viewer: Viewer, ids: dict[str, str]) -> dict[str, str | None]:
    """What `nodes` answers for each id, as kind → id or None."""
    nodes = (await desk.ask(viewer, NODES, ids=list(ids.values())))["nodes"]
    assert all(
        node is None or node["__typename"] == kind for kind, node in zip(ids, nodes, strict=True)
    )
    return {kind: node and node["id"] for kind, node in zip(ids, nodes, strict=True)}


async def test_support_finds_everything_by_its_id_alone(desk: Desk, ids: dict[str, str]) -> None:
    """What stands in an e-mail or in Stripe's Dashboard can be pasted as it is."""
    assert ids == await found(desk, SUPPORT, ids)


async def test_the_panel_finds_what_is_its_own(desk: Desk, ids: dict[str, str]) -> None:
    """Corrections and events are Support's to look at, everything else is the customer's too."""
    expected = {kind: None if kind in FOR_SUPPORT else each for kind, each in ids.items()}

    assert expected == await found(desk, panel_of(ids["Customer"]), ids)


async def test_what_is_foreign_looks_like_what_is_not_there(
    desk: Desk, ids: dict[str, str]
) -> None:
    """A token that guesses ids must not learn which ones exist."""
    absent = {kind: each[:-1] + "Z" for kind, each in ids.items()}

    foreign = await found(desk, SOMEBODY_ELSE, ids)

    assert set(foreign.values()) == {None}
    assert foreign == await found(desk, SOMEBODY_ELSE, absent)


NO_IDS = [
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
NO_IDS += ["IN_1", "in_1\n", "é", "a" * 300, "il_unseen", "evt_absent", "pm_absent", "in_absent"]


async def test_what_is_no_id_finds_nothing(desk: Desk) -> None:
    """Ids become paths at Stripe: nothing but an id gets there, and an unknown one is no error."""
    assert await desk.ask(SUPPORT, NODES, ids=NO_IDS) == {"nodes": [None] * len(NO_IDS)}


async def test_any_id_finds_its_customer(desk: Desk, ids: dict[str, str]) -> None:
    """Support pastes the invoice that the customer quotes, and is at the customer."""
    for each in ids.values():
        assert await desk.ask(SUPPORT, OWNER, id=each) == {"customer": {"id": ids["Customer"]}}


async def test_an_address_and_a_search_are_not_both_asked_for(desk: Desk) -> None:
    """One of them would be dropped in silence."""
    both = '{ customers(email: "a@fly.example", search: "acme") { nodes { id } } }'

    assert await desk.refused(SUPPORT, both) == ["BAD_USER_INPUT"]


async def test_too_many_ids_are_refused(desk: Desk) -> None:
    """Each may be a call to Stripe."""
    assert await desk.refused(SUPPORT, NODES, ids=["cus_1"] * 101) == ["BAD_USER_INPUT"]


async def test_what_has_no_type_here_finds_its_customer_too(desk: Desk) -> None:
    """Receipts quote credit notes and charges; a customer's own token learns nothing by them."""
    customer = await desk.shop.customer()
    asked = {"customer": customer, "amount": 900, "currency": "usd"}
    item = (await desk.write("/v1/invoiceitems", asked, 1))["id"]

    assert await desk.ask(SUPPORT, OWNER, id=item) == {"customer": {"id": customer}}
    assert await desk.ask(SUPPORT, OWNER, id="ii_absent") == {"customer": None}
    assert await desk.ask(panel_of(customer), OWNER, id=item) == {"customer": None}


LINKS = """query ($ids: [ID!]!, $id: ID!) {
  nodes(ids: $ids) { id
    ... on Customer { stripeDashboardUrl } ... on Invoice { stripeDashboardUrl }
    ... on InvoiceLine { stripeDashboardUrl } ... on PaymentMethod { line: stripeDashboardUrl }
    ... on Sync { stripeDashboardUrl failure { stripeDashboardUrl } }
    ... on Adjustment { stripeDashboardUrl } ... on WebhookEvent { stripeDashboardUrl } }
  customer(id: $id) { currentPeriod { bySku: usage { key stripeDashboardUrl } byApp: usage(by: APP) { stripeDashboardUrl } } } }"""
PREVIEWED = """mutation ($id: ID!) { previewSync(input: {customerId: $id}) { plan { linesAdded { stripeDashboardUrl } } } }"""


@pytest.mark.parametrize("mode", ["test", "live"])
async def test_everything_leads_into_stripes_dashboard(
    desk: Desk, ids: dict[str, str], mode: str
) -> None:
    """In the key's own mode; what has no page of its own leads to what it belongs to."""
    if mode == "live":
        live = SecretStr("sk_live_0123456789abcdef")
        settings = desk.services.settings.model_copy(update={"stripe_api_key": live})
        desk.services = replace(desk.services, settings=settings)
    price = (await desk.services.catalogue.by_sku(["machine-seconds"]))["machine-seconds"].id
    egress = (await desk.services.catalogue.by_sku(["egress-gb"]))["egress-gb"].id

    shown = await desk.ask(SUPPORT, LINKS, ids=list(ids.values()), id=ids["Customer"])
    plan = (await desk.ask(SUPPORT, PREVIEWED, id=ids["Customer"]))["previewSync"]["plan"]

    pages = [each.get("stripeDashboardUrl") or each["line"] for each in shown["nodes"]]
    pages += [each["stripeDashboardUrl"] for each in plan["linesAdded"]]
    rows = shown["customer"]["currentPeriod"]
    pages += [
        each["stripeDashboardUrl"] for each in rows["bySku"] if each["key"] == "machine-seconds"
    ]
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
    assert {each["stripeDashboardUrl"] for each in rows["byApp"]} == {None}


async def test_a_refusal_of_stripes_and_a_drifting_line_lead_there_too(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """To the request in Stripe's logs, and to the draft."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000")
    await desk.flush(customer)
    sync = await desk.services.syncs.of(CustomerId(customer))
    assert sync is not None
    assert sync.invoice is not None
    await sandbox.dashboard("add_line", sync.invoice, amount=700, description="a favour")
    drift = "query ($id: ID!) { customer(id: $id) { drift { lines { stripeDashboardUrl } } } }"
    failure = "query ($id: ID!) { sync(id: $id) { failure { requestId stripeDashboardUrl } } }"

    lines = (await desk.ask(SUPPORT, drift, id=customer))["customer"]["drift"]["lines"]
    gone = CustomerId(await desk.shop.customer("gone"))
    delete = Op(OpKind.DELETE, "DELETE", f"/v1/customers/{gone}", {}, "gone")
    await desk.use(gone)
    await desk.services.stripe.send(delete, lane=desk.lane)
    await desk.flush(gone)
    last = await desk.services.syncs.of(gone)
    assert last is not None
    refused = (await desk.ask(SUPPORT, failure, id=last.id))["sync"]["failure"]

    begin = "https://dashboard.stripe.com/test"
    assert lines == [{"stripeDashboardUrl": f"{begin}/invoices/{sync.invoice}"}]
    assert refused["stripeDashboardUrl"] == f"{begin}/logs/{refused['requestId']}"
