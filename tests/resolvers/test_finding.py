"""Ids pasted anywhere: what they find, and what they do not give away."""

import pytest

from billing.effects import Notice
from billing.ledger import NewAdjustment
from billing.usage import CustomerId
from resolvers.context import Viewer
from tests.resolvers.conftest import SOMEBODY_ELSE, SUPPORT, Desk, panel_of

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


async def test_too_many_ids_are_refused(desk: Desk) -> None:
    """Each may be a call to Stripe."""
    assert await desk.refused(SUPPORT, NODES, ids=["cus_1"] * 101) == ["BAD_USER_INPUT"]
