"""Lists, searches and expansions return pages as Stripe does."""

import httpx
import pytest

from tests.support.stripe_sandbox import StripeSandbox


async def list_names(http: httpx.AsyncClient, **params: str) -> tuple[list[str], bool]:
    """Return the names on one page of customers, and True if there are more."""
    page = (await http.get("/v1/customers", params=params)).json()
    return [customer["name"] for customer in page["data"]], page["has_more"]


@pytest.fixture
async def five_customers(http: httpx.AsyncClient) -> list[str]:
    """The ids of five customers named 0 to 4, oldest first."""
    responses = [await http.post("/v1/customers", data={"name": str(n)}) for n in range(5)]
    return [response.json()["id"] for response in responses]


async def test_pages_are_newest_first_in_both_directions(
    http: httpx.AsyncClient, five_customers: list[str]
) -> None:
    """Cursors are ids and exclude their object."""
    assert await list_names(http, limit="2") == (["4", "3"], True)
    assert await list_names(http, limit="2", starting_after=five_customers[3]) == (["2", "1"], True)
    assert await list_names(http, limit="2", starting_after=five_customers[1]) == (["0"], False)
    assert await list_names(http, limit="2", ending_before=five_customers[0]) == (["2", "1"], True)
    assert await list_names(http, limit="9", ending_before=five_customers[3]) == (["4"], False)


async def test_deleted_object_is_left_out_of_pages(
    http: httpx.AsyncClient, five_customers: list[str]
) -> None:
    """No other object is."""
    await http.delete(f"/v1/customers/{five_customers[2]}")

    assert await list_names(http, limit="3") == (["4", "3", "1"], True)


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"starting_after": "cus_none"},
        {"nope": "1"},
        {"created[x]": "1"},
    ],
)
async def test_invalid_page_parameters_are_rejected(
    http: httpx.AsyncClient, params: dict[str, str]
) -> None:
    """A 400 names the parameter."""
    answer = await http.get("/v1/customers", params=params)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"]


async def test_invoices_are_filtered_by_customer_status_and_time(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """The gateway lists so before it creates an invoice."""
    a, b = [(await http.post("/v1/customers")).json()["id"] for _ in range(2)]
    first = (await http.post("/v1/invoices", data={"customer": a})).json()["id"]
    await http.post("/v1/invoices", data={"customer": b})
    await sandbox.advance(100)
    second = (await http.post("/v1/invoices", data={"customer": a})).json()
    await http.post(f"/v1/invoices/{first}/finalize")

    async def listed(**params: str) -> list[str]:
        page = (await http.get("/v1/invoices", params=params)).json()
        return [invoice["id"] for invoice in page["data"]]

    assert await listed(customer=a) == [second["id"], first]
    assert await listed(customer=a, status="draft") == [second["id"]]
    assert await listed(**{"created[gte]": str(second["created"])}) == [second["id"]]
    assert await listed(customer=a, collection_method="send_invoice") == []


async def test_search_finds_by_metadata_after_the_search_lag(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """A client must not read its own writes through Search."""
    await sandbox.settings(search_lag=60)
    await http.post("/v1/customers", data={"metadata[org]": "o1"})
    await http.post("/v1/customers", data={"metadata[org]": "o2"})
    query = {"query": "metadata['org']:'o1' AND created>0"}
    assert (await http.get("/v1/customers/search", params=query)).json()["data"] == []
    await sandbox.advance(61)
    found = (await http.get("/v1/customers/search", params=query)).json()["data"]
    assert [customer["metadata"] for customer in found] == [{"org": "o1"}]
    for query in ("shoe_size:9", "created>soon", "email>5 OR created>1 AND created>2", ""):
        answer = await http.get("/v1/customers/search", params={"query": query})
        assert answer.status_code == 400


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("O'Brien", 'name:"o\'brien"'),
        ("O'Brien", r"name:'O\'Brien'"),
        ('The "Sky" Inc', r'name~"\"sky\" i"'),
        ("back\\slash", r'name:"back\\slash"'),
        ("a/b & c", 'name~"/b & "'),
    ],
)
async def test_search_text_may_have_escaped_quotes(
    http: httpx.AsyncClient, name: str, query: str
) -> None:
    """Stripe's documentation: a backslash escapes a quote within quotes; capitals make no difference."""
    await http.post("/v1/customers", data={"name": name})
    await http.post("/v1/customers", data={"name": "somebody else"})

    answer = await http.get("/v1/customers/search", params={"query": query})

    assert [found["name"] for found in answer.json()["data"]] == [name]


@pytest.mark.parametrize(
    "query", ['name~"ab"', " OR ".join(['name:"a"'] * 11), 'name:"a', "name:'a' name:'b'"]
)
async def test_search_refuses_what_stripe_refuses(http: httpx.AsyncClient, query: str) -> None:
    """A substring of two characters, an eleventh clause, an open quote, two clauses without a join."""
    answer = await http.get("/v1/customers/search", params={"query": query})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "query")


async def test_search_finds_an_invoice_by_its_number(http: httpx.AsyncClient) -> None:
    """A customer who calls has nothing else in hand."""
    customer = (await http.post("/v1/customers")).json()["id"]
    invoice = (await http.post("/v1/invoices", data={"customer": customer})).json()["id"]
    number = (await http.post(f"/v1/invoices/{invoice}/finalize")).json()["number"]

    query = {"query": f'number:"{number}"'}
    [found] = (await http.get("/v1/invoices/search", params=query)).json()["data"]

    assert (found["id"], found["customer"]) == (invoice, customer)


async def test_attempts_to_collect_are_charges(http: httpx.AsyncClient) -> None:
    """A charge that failed, and the one that succeeded, both by id."""
    card = {"payment_method": "pm_card_chargeCustomerFail"}
    customer = (await http.post("/v1/customers")).json()["id"]
    item = {"customer": customer, "amount": "500", "currency": "usd"}
    await http.post("/v1/invoiceitems", data=item)
    bill = {"customer": customer, "pending_invoice_items_behavior": "include"}
    invoice = (await http.post("/v1/invoices", data=bill)).json()["id"]
    await http.post(f"/v1/invoices/{invoice}/finalize")
    await http.post(f"/v1/invoices/{invoice}/pay", data=card)
    await http.post(f"/v1/invoices/{invoice}/pay", data={"payment_method": "pm_card_visa"})

    charges = (await http.get("/v1/charges", params={"customer": customer})).json()["data"]
    one = (await http.get(f"/v1/charges/{charges[0]['id']}")).json()

    assert [(charge["status"], charge["paid"]) for charge in charges] == [
        ("succeeded", True),
        ("failed", False),
    ]
    assert (one["customer"], one["amount"]) == (customer, 500)


async def test_expand_replaces_ids_by_objects(http: httpx.AsyncClient) -> None:
    """In one object and in lists; a 400 for a field that cannot be expanded."""
    customer = (await http.post("/v1/customers", data={"name": "A"})).json()["id"]
    await http.post("/v1/invoices", data={"customer": customer})
    page = await http.get("/v1/invoices", params={"expand[0]": "data.customer"})
    bad = await http.get("/v1/invoices", params={"expand[0]": "data.status"})
    deep = await http.get("/v1/invoices", params={"expand[0]": "data.lines.data.parent.type"})

    assert page.json()["data"][0]["customer"]["name"] == "A"
    assert (bad.status_code, deep.status_code) == (400, 400)
