"""Lists, searches and expansions give pages as Stripe does."""

import httpx
import pytest

from tests.support.stripe_sandbox import StripeSandbox


async def names(http: httpx.AsyncClient, **params: str) -> tuple[list[str], bool]:
    """Return the names on one page of customers, and whether there are more."""
    page = (await http.get("/v1/customers", params=params)).json()
    return [customer["name"] for customer in page["data"]], page["has_more"]


@pytest.fixture
async def five(http: httpx.AsyncClient) -> list[str]:
    """The ids of five customers named 0 to 4, oldest first."""
    made = [await http.post("/v1/customers", data={"name": str(n)}) for n in range(5)]
    return [answer.json()["id"] for answer in made]


async def test_pages_go_newest_first_and_both_ways(
    http: httpx.AsyncClient, five: list[str]
) -> None:
    """The cursors are ids, and exclude the object that they name."""
    assert await names(http, limit="2") == (["4", "3"], True)
    assert await names(http, limit="2", starting_after=five[3]) == (["2", "1"], True)
    assert await names(http, limit="2", starting_after=five[1]) == (["0"], False)
    assert await names(http, limit="2", ending_before=five[0]) == (["2", "1"], True)
    assert await names(http, limit="9", ending_before=five[3]) == (["4"], False)


async def test_a_deleted_object_does_not_move_the_pages(
    http: httpx.AsyncClient, five: list[str]
) -> None:
    """It is left out, nothing else is."""
    await http.delete(f"/v1/customers/{five[2]}")

    assert await names(http, limit="3") == (["4", "3", "1"], True)


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
async def test_a_page_that_makes_no_sense_is_refused(
    http: httpx.AsyncClient, params: dict[str, str]
) -> None:
    """With a 400 that names the parameter."""
    answer = await http.get("/v1/customers", params=params)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"]


async def test_invoices_are_filtered_by_customer_status_and_time(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """What the gateway lists before it creates anything."""
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


async def test_search_finds_by_metadata_but_not_at_once(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """Search lags; whoever reads its own writes through it loses."""
    await sandbox.settings(search_lag=60)
    await http.post("/v1/customers", data={"metadata[org]": "o1"})
    await http.post("/v1/customers", data={"metadata[org]": "o2"})
    query = {"query": "metadata['org']:'o1' AND created>0"}
    assert (await http.get("/v1/customers/search", params=query)).json()["data"] == []
    await sandbox.advance(61)
    found = (await http.get("/v1/customers/search", params=query)).json()["data"]
    assert [customer["metadata"] for customer in found] == [{"org": "o1"}]
    for bad in ("shoe_size:9", "created>soon", "email>5 OR created>1 AND created>2", ""):
        answer = await http.get("/v1/customers/search", params={"query": bad})
        assert answer.status_code == 400


async def test_expand_replaces_ids_by_objects(http: httpx.AsyncClient) -> None:
    """In one object, in lists, and not at all where it makes no sense."""
    customer = (await http.post("/v1/customers", data={"name": "A"})).json()["id"]
    await http.post("/v1/invoices", data={"customer": customer})
    page = await http.get("/v1/invoices", params={"expand[0]": "data.customer"})
    bad = await http.get("/v1/invoices", params={"expand[0]": "data.status"})
    deep = await http.get("/v1/invoices", params={"expand[0]": "data.lines.data.parent.type"})

    assert page.json()["data"][0]["customer"]["name"] == "A"
    assert (bad.status_code, deep.status_code) == (400, 400)
