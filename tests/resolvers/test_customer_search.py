"""Customer search by anything that people type."""

import pytest

from billing.budget import Lane
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.stripe_sandbox import StripeSandbox

SEARCH = "query ($text: String) { customers(search: $text) { nodes { id } } }"


async def create_customer(api: ApiHarness, name: str, email: str) -> str:
    """A customer with this *name* and *email*; returns the id."""
    params = {"name": name, "email": email}
    made = await api.write_stripe("/v1/customers", params, next(api.key_numbers))
    return str(made["id"])


@pytest.mark.parametrize("lag", [0, 3600], ids=["indexed", "new"])
async def test_customer_search_takes_what_people_type(
    api: ApiHarness, sandbox: StripeSandbox, lag: int
) -> None:
    """Capitals and punctuation make no difference, whether Stripe's search index knows the customer or not."""
    await sandbox.settings(search_lag=lag)
    await api.shop.customer("acme")
    name = 'O\'Brien & "Söhne" \\ a/b (Ltd.)'
    customer = await create_customer(api, name, "Ben.Miller@Example.COM")

    for text in (
        *("ben.miller@example.com", "BEN.MILLER@EXAMPLE.COM", "Ben.Miller@Example.COM"),
        *("miller@example", "o'brien", '"Söhne"', "\\ a/b", "(ltd.)", name, name.upper()),
    ):
        shown = await api.query(SUPPORT, SEARCH, text=text)
        assert shown == {"customers": {"nodes": [{"id": customer}]}}, text


async def test_email_filter_ignores_capitals(api: ApiHarness, sandbox: StripeSandbox) -> None:
    """It is exact otherwise."""
    await sandbox.settings(search_lag=0)
    customer = await create_customer(api, "Ben", "Ben.Miller@Example.COM")
    query = "query ($email: String) { customers(email: $email) { nodes { id } } }"

    found = [
        await api.query(SUPPORT, query, email=email)
        for email in ("ben.miller@example.com", "Ben.Miller@Example.COM", "miller@example.com")
    ]

    assert [[node["id"] for node in f["customers"]["nodes"]] for f in found] == [
        [customer],
        [customer],
        [],
    ]


async def test_customer_search_finds_the_owner_of_an_invoice_number(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """The only id that a customer who calls has in hand."""
    await sandbox.settings(search_lag=0)
    customer = await api.shop.customer("umbrella")
    await api.shop.customer("acme")
    invoice = await api.create_invoice(customer, 100)
    await api.finalize_invoice(invoice)
    final = await api.services.stripe.read(f"/v1/invoices/{invoice}", lane=Lane.SUPPORT)
    number = final["number"]

    for text in (number, number.lower(), f" {number} "):
        shown = await api.query(SUPPORT, SEARCH, text=text)
        assert shown == {"customers": {"nodes": [{"id": customer}]}}, text
    shown = await api.query(SUPPORT, SEARCH, text="999-0001")
    assert shown == {"customers": {"nodes": []}}


async def test_customer_search_finds_the_owner_of_a_charge(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """Bank statements and Stripe's e-mails name charges and payment intents."""
    customer = await api.shop.customer("umbrella")
    await api.attach_card(customer)
    invoice = await api.create_invoice(customer, 5000)
    await api.finalize_invoice(invoice)
    await api.write_stripe(f"/v1/invoices/{invoice}/pay", {}, 1)
    charges = await api.services.stripe.list_all("/v1/charges", lane=Lane.SUPPORT)

    for charge in charges:
        for text in (charge["id"], charge["payment_intent"]):
            shown = await api.query(SUPPORT, SEARCH, text=text)
            assert shown == {"customers": {"nodes": [{"id": customer}]}}, text
    for text in ("ch_absent", "pi_absent", "seti_absent", "sub_absent", "cn_absent", "re_absent"):
        shown = await api.query(SUPPORT, SEARCH, text=text)
        assert shown == {"customers": {"nodes": []}}, text


async def test_customer_search_shows_several_matches(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """Two customers may have one e-mail address or one name."""
    await sandbox.settings(search_lag=0)
    made = {await create_customer(api, f"Atlas Orion {n}", "ben@example.com") for n in range(3)}

    for text in ("BEN@example.com", "ben@example.com", "atlas"):
        shown = await api.query(SUPPORT, SEARCH, text=text)
        assert {node["id"] for node in shown["customers"]["nodes"]} == made, text


async def test_too_long_customer_search_is_refused_without_a_read(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """Somebody pasted a whole e-mail."""
    await sandbox.reset_counters()
    result = await api.execute(SUPPORT, SEARCH, text="x" * 256)

    assert [error.message for error in result.errors or ()] == [
        "Search for at most 255 characters: an id, an e-mail address or a name."
    ]
    assert (await sandbox.counters())["reads"] == 0


async def test_customer_search_by_id_email_organization_or_name(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """The search accepts an e-mail address, an organization, a name or any id."""
    await sandbox.settings(search_lag=0)
    customer = await api.shop.customer("umbrella")
    await api.shop.customer("acme")
    invoice = await api.create_invoice(customer, 100)

    for text in (customer, invoice, "billing@umbrella.example", " umbrella ", "Umbrel"):
        shown = await api.query(SUPPORT, SEARCH, text=text)
        assert shown == {"customers": {"nodes": [{"id": customer}]}}, text


async def test_customer_search_finds_a_new_customer(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """A new customer is found although Stripe's search lags by a minute."""
    await sandbox.settings(search_lag=3600)
    customer = await api.shop.customer("umbrella")

    for text in ("umbrella", "UMBR"):
        shown = await api.query(SUPPORT, SEARCH, text=text)
        assert shown == {"customers": {"nodes": [{"id": customer}]}}, text


@pytest.mark.parametrize(
    "text", ['"', "'\\", "cus_absent", "nobody@nowhere.example", '" OR name:"', "\x00\n", "~", "\\"]
)
async def test_customer_search_without_match_is_empty(api: ApiHarness, text: str) -> None:
    """Search text never becomes part of Stripe's query language."""
    await api.shop.customer()

    assert await api.query(SUPPORT, SEARCH, text=text) == {"customers": {"nodes": []}}


async def test_blank_customer_search_lists_all(api: ApiHarness) -> None:
    """A blank search returns the first page of all customers."""
    customer = await api.shop.customer()

    assert await api.query(SUPPORT, SEARCH, text=" ") == {
        "customers": {"nodes": [{"id": customer}]}
    }
