"""Prices: which are listed, which bill a line, and how a lookup key moves."""

from typing import Any

import httpx
import pytest

Form = dict[str, str]
PER_UNIT: Form = {"currency": "usd", "product_data[name]": "Machines", "unit_amount": "2"}
MONTHLY: Form = {"recurring[interval]": "month"}
PACKAGE: Form = {"transform_quantity[divide_by]": "1000", "transform_quantity[round]": "up"}
TIERS: Form = {
    "billing_scheme": "tiered",
    "tiers_mode": "graduated",
    "tiers[0][up_to]": "100",
    "tiers[0][unit_amount]": "5",
    "tiers[1][up_to]": "inf",
    "tiers[1][unit_amount_decimal]": "2.5",
}
TIERED: Form = {"currency": "usd", "product_data[name]": "Machines", **TIERS}


async def post(http: httpx.AsyncClient, path: str, form: Form) -> dict[str, Any]:
    """Return the created or changed object."""
    answer = await http.post(path, data=form)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def refusal(http: httpx.AsyncClient, path: str, form: Form) -> dict[str, Any]:
    """Return the error of a request that is rejected with a 400."""
    answer = await http.post(path, data=form)
    assert answer.status_code == 400, answer.text
    return dict(answer.json()["error"])


async def create_price(http: httpx.AsyncClient, **form: str) -> dict[str, Any]:
    """Return a new price of two cents a unit, changed by *form*."""
    return await post(http, "/v1/prices", PER_UNIT | form)


async def listed(http: httpx.AsyncClient, **params: Any) -> list[str]:
    """Return the ids on the first page of prices."""
    page = (await http.get("/v1/prices", params=params)).json()
    return [price["id"] for price in page["data"]]


def line_of(price: dict[str, Any], quantity: str = "1") -> Form:
    """The form that adds a line at *price*."""
    return {"lines[0][pricing][price]": price["id"], "lines[0][quantity_decimal]": quantity}


async def test_list_shows_active_prices_unless_inactive_ones_are_requested(
    http: httpx.AsyncClient,
) -> None:
    """The reference: "Returns a list of your active prices ... set active to false"."""
    sold, archived = await create_price(http), await create_price(http)
    await post(http, f"/v1/prices/{archived['id']}", {"active": "false"})

    assert await listed(http) == [sold["id"]]
    assert await listed(http, active="true") == [sold["id"]]
    assert await listed(http, active="false") == [archived["id"]]
    found = await http.get(f"/v1/prices/{archived['id']}")
    assert (found.status_code, found.json()["active"]) == (200, False)


async def test_product_list_shows_archived_products_too(http: httpx.AsyncClient) -> None:
    """Only the list of prices has a default for `active`."""
    price = await create_price(http)
    await post(http, f"/v1/products/{price['product']}", {"active": "false"})

    products = (await http.get("/v1/products")).json()["data"]
    sold = (await http.get("/v1/products", params={"active": "true"})).json()["data"]

    assert [product["id"] for product in products] == [price["product"]]
    assert sold == []
    assert await listed(http) == [price["id"]]  # archiving a product leaves its prices active


async def test_inline_price_is_never_listed(http: httpx.AsyncClient, draft: Any) -> None:
    """The reference: "excluding inline prices"."""
    inline = {"currency": "usd", "product_data[name]": "x", "unit_amount": "1"}
    form = {f"lines[0][price_data]{name}": value for name, value in _nested(inline).items()}
    bill = await post(http, f"/v1/invoices/{draft.id}/add_lines", form)
    used = bill["lines"]["data"][0]["pricing"]["price_details"]["price"]

    assert await listed(http) == await listed(http, active="false") == []
    assert (await http.get(f"/v1/prices/{used}")).status_code == 200


def _nested(form: Form) -> Form:
    return {
        f"[{head}]{tail}": value
        for name, value in form.items()
        for head, tail in [(name.partition("[")[0], name[len(name.partition("[")[0]) :])]
    }


async def test_prices_are_filtered_by_lookup_keys_type_and_interval(
    http: httpx.AsyncClient,
) -> None:
    """At most ten lookup keys; an archived price is not found by its own."""
    cpu = await create_price(http, lookup_key="cpu")
    ram = await create_price(http, lookup_key="ram")
    plan = await create_price(http, lookup_key="plan", **MONTHLY)

    assert await listed(http, **{"lookup_keys[0]": "cpu"}) == [cpu["id"]]
    assert await listed(http, **{"lookup_keys[]": ["cpu", "ram", "disk"]}) == [ram["id"], cpu["id"]]
    assert await listed(http, type="one_time") == [ram["id"], cpu["id"]]
    assert await listed(http, **{"recurring[interval]": "month"}) == [plan["id"]]
    assert await listed(http, **{"recurring[interval]": "year"}) == []
    await post(http, f"/v1/prices/{cpu['id']}", {"active": "false"})
    assert await listed(http, **{"lookup_keys[]": "cpu"}) == []
    many = await http.get("/v1/prices", params={f"lookup_keys[{n}]": str(n) for n in range(11)})
    assert (many.status_code, many.json()["error"]["param"]) == (400, "lookup_keys")


async def test_price_has_the_fields_of_its_kind(http: httpx.AsyncClient) -> None:
    """A client tells by them which price multiplies."""
    one_time, plan = await create_price(http), await create_price(http, **MONTHLY)
    package = await create_price(http, **PACKAGE)
    tiered = await post(http, "/v1/prices", TIERED | MONTHLY)
    chosen = await post(
        http,
        "/v1/prices",
        {
            "currency": "usd",
            "product_data[name]": "Gift",
            "custom_unit_amount[enabled]": "true",
            "custom_unit_amount[minimum]": "100",
        },
    )

    assert (one_time["type"], one_time["billing_scheme"]) == ("one_time", "per_unit")
    assert (one_time["recurring"], one_time["transform_quantity"]) == (None, None)
    assert plan["type"] == "recurring"
    assert {name: plan["recurring"][name] for name in ("interval", "interval_count", "meter")} == {
        "interval": "month",
        "interval_count": 1,
        "meter": None,
    }
    assert plan["recurring"]["usage_type"] == "licensed"
    assert package["transform_quantity"] == {"divide_by": 1000, "round": "up"}
    assert (tiered["billing_scheme"], tiered["tiers_mode"]) == ("tiered", "graduated")
    assert (tiered["unit_amount"], tiered["unit_amount_decimal"]) == (None, None)
    assert "tiers" not in tiered
    assert chosen["custom_unit_amount"] == {"maximum": None, "minimum": 100, "preset": None}
    assert chosen["unit_amount_decimal"] is None


async def test_tiers_are_shown_when_expanded(http: httpx.AsyncClient) -> None:
    """The last tier's bound is null."""
    tiered = await post(http, "/v1/prices", TIERED | MONTHLY)
    path = f"/v1/prices/{tiered['id']}"
    tiers = (await http.get(path, params={"expand[0]": "tiers"})).json()["tiers"]

    assert [tier["up_to"] for tier in tiers] == [100, None]
    assert [tier["unit_amount_decimal"] for tier in tiers] == ["5", "2.5"]
    assert [tier["unit_amount"] for tier in tiers] == [5, None]


@pytest.mark.parametrize(
    "form",
    [
        {"currency": "usd", "product_data[name]": "x"},
        PER_UNIT | {"unit_amount_decimal": "3"},
        PER_UNIT | {"custom_unit_amount[enabled]": "true"},
        PER_UNIT | TIERS | MONTHLY,
        TIERED,
        TIERED | MONTHLY | PACKAGE,
        {"currency": "usd", "product_data[name]": "x", "billing_scheme": "tiered", **MONTHLY},
        PER_UNIT | MONTHLY | {"recurring[usage_type]": "metered"},
        PER_UNIT | {"transform_quantity[divide_by]": "0", "transform_quantity[round]": "up"},
        PER_UNIT | {"product": "prod_x"},
    ],
    ids=[
        "no amount", "two amounts", "two kinds of amount", "tiers and an amount", "one-time tiers",
        "tiers and packages", "tiered without tiers", "metered without a meter", "packages of 0",
        "two products",
    ],
)  # fmt: skip
async def test_contradictory_price_is_rejected(http: httpx.AsyncClient, form: Form) -> None:
    """A price is one of per unit, tiered (recurring only) and custom."""
    assert (await refusal(http, "/v1/prices", form))["type"] == "invalid_request_error"


async def test_lookup_key_is_unique_until_it_is_transferred(http: httpx.AsyncClient) -> None:
    """An archived price still has its key; the transfer clears it and emits price.updated."""
    old = await create_price(http, lookup_key="cpu")
    await post(http, f"/v1/prices/{old['id']}", {"active": "false"})
    taken = await refusal(http, "/v1/prices", PER_UNIT | {"lookup_key": "cpu"})
    new = await create_price(http, lookup_key="cpu", transfer_lookup_key="true")
    events = (await http.get("/v1/events", params={"type": "price.updated"})).json()["data"]

    assert taken["message"] == f"A price (`{old['id']}`) already uses that lookup key."
    assert taken["param"] == "lookup_key"
    assert new["lookup_key"] == "cpu"
    assert (await http.get(f"/v1/prices/{old['id']}")).json()["lookup_key"] is None
    assert events[0]["data"]["object"]["id"] == old["id"]
    assert events[0]["data"]["previous_attributes"] == {"lookup_key": "cpu"}


async def test_lookup_key_is_transferred_by_an_update_too(http: httpx.AsyncClient) -> None:
    """Back to the price before; a price's own key is no conflict."""
    old = await create_price(http, lookup_key="cpu")
    new = await create_price(http, lookup_key="cpu", transfer_lookup_key="true")
    back = {"lookup_key": "cpu", "transfer_lookup_key": "true"}
    await post(http, f"/v1/prices/{old['id']}", back)
    await post(http, f"/v1/prices/{old['id']}", {"lookup_key": "cpu"})

    assert await listed(http, **{"lookup_keys[0]": "cpu"}) == [old["id"]]
    assert (await http.get(f"/v1/prices/{new['id']}")).json()["lookup_key"] is None


async def test_recurring_price_bills_no_line(http: httpx.AsyncClient, draft: Any) -> None:
    """Stripe's words, as public code quotes them."""
    plan = await create_price(http, **MONTHLY)
    error = await refusal(http, f"/v1/invoices/{draft.id}/add_lines", line_of(plan))

    assert error["message"] == (
        "The price specified is set to `type=recurring` but this field only accepts prices with "
        "`type=one_time`."
    )


async def test_archived_price_bills_no_new_line_and_stays_on_an_old_one(
    http: httpx.AsyncClient, draft: Any
) -> None:
    """A new quantity alone does not name the price, so it is accepted (a guess)."""
    price = await create_price(http)
    bill = await post(http, f"/v1/invoices/{draft.id}/add_lines", line_of(price, "3"))
    line = {"lines[0][id]": bill["lines"]["data"][0]["id"]}
    await post(http, f"/v1/prices/{price['id']}", {"active": "false"})
    update = f"/v1/invoices/{draft.id}/update_lines"

    added = await refusal(http, f"/v1/invoices/{draft.id}/add_lines", line_of(price))
    repriced = await refusal(http, update, line | line_of(price, "4"))
    changed = await post(http, update, line | {"lines[0][quantity_decimal]": "5"})

    inactive = "The price specified is inactive. This field only accepts active prices."
    assert added["message"] == repriced["message"] == inactive
    [shown] = changed["lines"]["data"]
    assert (shown["amount"], shown["pricing"]["price_details"]["price"]) == (10, price["id"])


async def test_price_of_an_archived_product_bills_no_line(
    http: httpx.AsyncClient, draft: Any
) -> None:
    """The price itself is still active."""
    price = await create_price(http)
    await post(http, f"/v1/products/{price['product']}", {"active": "false"})
    error = await refusal(http, f"/v1/invoices/{draft.id}/add_lines", line_of(price))

    assert error["message"] == (
        f"Price `{price['id']}` is not available to be purchased because its product is not active."
    )


async def test_price_with_a_custom_amount_bills_no_line(
    http: httpx.AsyncClient, draft: Any
) -> None:
    """Its amount is chosen in Checkout (a guess)."""
    form = {"currency": "usd", "product_data[name]": "x", "custom_unit_amount[enabled]": "true"}
    price = await post(http, "/v1/prices", form)

    await refusal(http, f"/v1/invoices/{draft.id}/add_lines", line_of(price))


@pytest.mark.parametrize(("rounding", "amount"), [("up", 6), ("down", 4)])
async def test_package_price_divides_and_rounds_the_quantity(
    http: httpx.AsyncClient, draft: Any, rounding: str, amount: int
) -> None:
    """2.5 packages of a thousand, two cents a package."""
    price = await create_price(http, **PACKAGE | {"transform_quantity[round]": rounding})
    bill = await post(http, f"/v1/invoices/{draft.id}/add_lines", line_of(price, "2500"))
    [line] = bill["lines"]["data"]

    assert (line["amount"], line["quantity_decimal"]) == (amount, "2500")
    edit = {"lines[0][id]": line["id"], "lines[0][quantity_decimal]": "1000"}
    bill = await post(http, f"/v1/invoices/{draft.id}/update_lines", edit)
    assert bill["total"] == 2
