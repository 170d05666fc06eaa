"""The sandbox accepts the SDK's parameters and responds with the SDK's types."""

import re
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from sandbox import sdk
from sandbox.actions import Routes
from sandbox.errors import StripeError
from sandbox.params import NOT_SIMULATED
from sandbox.sdk import KINDS
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.stripe_types import problems

ROUTES = Routes()


def test_not_simulated_list_matches_the_sdk_version() -> None:
    """A newer SDK brings new parameters: read its changes, then update this test."""
    assert sdk.API_VERSION == "2026-10-28.endive"
    known = {name for endpoint in sdk.operations() for name in _names(sdk.params_of(endpoint))}
    assert {name.rpartition(".")[2] for name in NOT_SIMULATED} <= known


@pytest.mark.parametrize("endpoint", sorted(ROUTES.operations))
def test_every_accepted_parameter_has_an_effect(endpoint: str) -> None:
    """A parameter is rejected, stored in its object, or named in the code."""
    sources = (Path(__file__).parents[2] / "sandbox").glob("*.py")
    code = "".join(path.read_text() for path in sources if path.name != "params.py")
    stored = KINDS[ROUTES.operations[endpoint].kind].type.__annotations__
    hints, _ = sdk.fields(sdk.params_of(endpoint))
    accepted = {name for name in hints if f"{endpoint.split('/')[2]}.{name}" not in NOT_SIMULATED}
    others = accepted - NOT_SIMULATED - stored.keys() - {"ids", "lookup_keys", "types"}

    assert [name for name in others if f'"{name}"' not in code] == []


@cache
def _names(kind: type) -> frozenset[str]:
    hints, _ = sdk.fields(kind)
    inner = [part for hint in hints.values() for part in _structures(hint)]
    return frozenset(hints).union(*(_names(part) for part in inner))


def _structures(hint: Any) -> list[type]:
    if hasattr(hint, "__required_keys__"):
        return [hint]
    return [found for option in get_args(hint) for found in _structures(option)]


def test_every_sdk_operation_is_simulated_or_501() -> None:
    """404 means that Stripe has no such path."""
    lacking: dict[str, int] = {}
    for endpoint in sdk.operations():
        method, template = endpoint.split(" ")
        try:
            ROUTES.match(method, re.sub(r"\{\w+\}", "x_1", template))
        except StripeError as error:
            lacking[endpoint] = error.status

    assert set(lacking.values()) == {501}
    assert lacking.keys() == sdk.operations().keys() - ROUTES.operations.keys()
    assert {"POST /v1/subscriptions", "POST /v1/refunds", "GET /v1/balance"} < lacking.keys()


Send = Callable[..., Awaitable[Any]]


async def test_every_response_matches_the_sdk_types(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """One walk through every operation."""
    checked: list[str] = []

    async def send(endpoint: str, *ids: str, **params: Any) -> Any:
        method, template = endpoint.split(" ")
        path = template
        for object_id in ids:
            path = re.sub(r"\{\w+\}", object_id, path, count=1)
        form = {key: str(value) for key, value in params.items()}
        given = {"params" if method == "GET" else "data": form} if form else {}
        answer = await http.request(method, path, **given)
        assert answer.status_code == 200, answer.text
        assert list(problems(answer.json())) == [], endpoint
        checked.append(endpoint)
        return answer.json()

    await _walk_catalog_and_customers(send)
    await _walk_invoices(send)
    await _walk_the_rest(send)
    await _walk_the_company(send, sandbox)

    assert set(checked) == set(ROUTES.operations)
    for event in await _all_events(http):
        assert list(problems(event)) + list(problems(event["data"]["object"])) == [], event["type"]


async def _all_events(http: httpx.AsyncClient) -> list[Any]:
    events: list[Any] = []
    more = True
    while more:
        after = {"starting_after": events[-1]["id"]} if events else {}
        page = (await http.get("/v1/events", params={"limit": 100, **after})).json()
        events, more = events + page["data"], page["has_more"]
    return events


async def _walk_catalog_and_customers(send: Send) -> None:
    await send("POST /v1/products", id="prod_m", name="Machines", unit_label="second")
    await send("POST /v1/products/{id}", "prod_m", description="By the second")
    await send("GET /v1/products/{id}", "prod_m")
    await send("GET /v1/products", active="true")
    price = await send(
        "POST /v1/prices",
        currency="usd",
        product="prod_m",
        unit_amount_decimal="0.0123",
        lookup_key="m",
    )
    await send("POST /v1/prices/{price}", price["id"], nickname="cheap")
    await send("GET /v1/prices/{price}", price["id"])
    await send("GET /v1/prices", **{"lookup_keys[0]": "m", "expand[0]": "data.product"})
    customer = {"id": "cus_a"}
    made = await send(
        "POST /v1/customers", email="a@example.com", name="A", **{"address[city]": "Porto"}
    )
    customer = made["id"]
    await send("POST /v1/customers/{customer}", customer, description="x", **{"metadata[org]": "o"})
    await send("GET /v1/customers/{customer}", customer)
    await send("GET /v1/customers", email="a@example.com")
    await send("GET /v1/customers/search", query="email:'a@example.com'")
    method = await send(
        "POST /v1/payment_methods/{payment_method}/attach", "pm_card_visa", customer=customer
    )
    await send("GET /v1/payment_methods/{payment_method}", method["id"])
    await send("GET /v1/customers/{customer}/payment_methods", customer)
    await send(
        "GET /v1/customers/{customer}/payment_methods/{payment_method}", customer, method["id"]
    )
    await send("POST /v1/payment_methods/{payment_method}/detach", method["id"])
    entry = await send(
        "POST /v1/customers/{customer}/balance_transactions", customer, amount=-5, currency="usd"
    )
    entries = "/v1/customers/{customer}/balance_transactions"
    await send(f"POST {entries}/{{transaction}}", customer, entry["id"], description="a gift")
    await send(f"GET {entries}/{{transaction}}", customer, entry["id"])
    await send(f"GET {entries}", customer)
    flow = {"flow_data[type]": "payment_method_update"}
    await send(
        "POST /v1/billing_portal/sessions", customer=customer, return_url="https://x.test", **flow
    )
    await send("DELETE /v1/customers/{customer}", customer)
    await send("GET /v1/customers/{customer}", customer)


async def _walk_invoices(send: Send) -> None:
    customer = (
        await send("POST /v1/customers", email="b@example.com", payment_method="pm_card_visa")
    )["id"]
    methods = await send("GET /v1/customers/{customer}/payment_methods", customer)
    default = {"invoice_settings[default_payment_method]": methods["data"][0]["id"]}
    await send("POST /v1/customers/{customer}", customer, **default)
    price = (await send("GET /v1/prices"))["data"][0]["id"]
    invoice = (await send("POST /v1/invoices", customer=customer))["id"]
    await send("POST /v1/invoices/{invoice}", invoice, description="March")
    lines = {
        "lines[0][pricing][price]": price,
        "lines[0][quantity_decimal]": "123456.789",
        "lines[1][amount]": "900",
        "lines[1][period][start]": "1",
        "lines[1][period][end]": "2",
        "lines[2][price_data][currency]": "usd",
        "lines[2][price_data][product_data][name]": "Inline",
        "lines[2][price_data][unit_amount]": "7",
        "invoice_metadata[seq]": "1",
    }
    made = (await send("POST /v1/invoices/{invoice}/add_lines", invoice, **lines))["lines"]["data"]
    first, _, third = (line["id"] for line in made)
    edit = {"lines[0][id]": first, "lines[0][quantity]": "500000"}
    await send("POST /v1/invoices/{invoice}/update_lines", invoice, **edit)
    unassigned = {"lines[0][id]": third, "lines[0][behavior]": "unassign"}
    await send("POST /v1/invoices/{invoice}/remove_lines", invoice, **unassigned)
    await send("GET /v1/invoices/{invoice}/lines", invoice, limit=1)
    item = await send("POST /v1/invoiceitems", customer=customer, amount=100)
    await send("POST /v1/invoiceitems/{invoiceitem}", item["id"], description="pending")
    await send("GET /v1/invoiceitems/{invoiceitem}", item["id"])
    await send("GET /v1/invoiceitems", customer=customer)
    preview = {"invoice_items[0][amount]": "40", "customer": customer}
    await send("POST /v1/invoices/create_preview", **preview)
    await send("DELETE /v1/invoiceitems/{invoiceitem}", item["id"])
    await send("GET /v1/invoices/{invoice}", invoice)
    await send("POST /v1/invoices/{invoice}/finalize", invoice)
    await send("POST /v1/invoices/{invoice}/send", invoice)
    await send("POST /v1/invoices/{invoice}/pay", invoice)
    await send(
        "GET /v1/invoices/{invoice}", invoice, **{"expand[0]": "payments", "expand[1]": "customer"}
    )
    await send("GET /v1/invoices", customer=customer, status="paid")
    payment = (await send("GET /v1/invoice_payments", invoice=invoice))["data"][0]["id"]
    await send("GET /v1/invoice_payments/{invoice_payment}", payment)
    intents = await send("GET /v1/payment_intents", customer=customer)
    await send("GET /v1/payment_intents/{intent}", intents["data"][0]["id"])
    charges = await send("GET /v1/charges", customer=customer)
    await send("GET /v1/charges/{charge}", charges["data"][0]["id"])
    await send("GET /v1/invoices/search", query=f"customer:'{customer}'")
    note = (await send("POST /v1/credit_notes", invoice=invoice, amount=10, memo="sorry"))["id"]
    await send("POST /v1/credit_notes/{id}", note, memo="very sorry")
    await send("GET /v1/credit_notes/{id}", note)
    await send("GET /v1/credit_notes", invoice=invoice)


async def _walk_the_company(send: Send, sandbox: StripeSandbox) -> None:
    customer = (await send("POST /v1/customers", email="d@example.com"))["id"]
    placed = await sandbox.put_object("subscriptions", customer=customer, status="active")
    setup = await sandbox.put_object("setup_intents", customer=customer, status="succeeded")
    await send("GET /v1/setup_intents", customer=customer)
    await send("GET /v1/setup_intents/{intent}", setup["id"])
    await send("GET /v1/account")
    await send("GET /v1/tax/settings")
    portals = await send("GET /v1/billing_portal/configurations")
    portal = portals["data"][0]["id"]
    await send("GET /v1/billing_portal/configurations/{configuration}", portal)
    await send("GET /v1/subscriptions", status="active")
    clocks, ahead = "/v1/test_helpers/test_clocks", int(await sandbox.now()) + 60
    clock = (await send(f"POST {clocks}", frozen_time=ahead))["id"]
    await send("POST /v1/customers", test_clock=clock)
    await send(f"POST {clocks}/{{test_clock}}/advance", clock, frozen_time=ahead + 60)
    await send(f"GET {clocks}/{{test_clock}}", clock)
    await send(f"GET {clocks}")
    await send(f"DELETE {clocks}/{{test_clock}}", clock)
    await _walk_taxes_and_discounts(send, customer)
    await send("GET /v1/subscriptions/{subscription_exposed_id}", placed["id"])


async def _walk_taxes_and_discounts(send: Send, customer: str) -> None:
    coupon = (await send("POST /v1/coupons", percent_off="12.5", name="Friends"))["id"]
    await send("POST /v1/coupons/{coupon}", coupon, name="Old friends")
    await send("GET /v1/coupons/{coupon}", coupon)
    await send("GET /v1/coupons")
    rate = {"display_name": "VAT", "percentage": "19", "inclusive": "false"}
    tax_rate = (await send("POST /v1/tax_rates", **rate))["id"]
    await send("POST /v1/tax_rates/{tax_rate}", tax_rate, active="false")
    await send("GET /v1/tax_rates/{tax_rate}", tax_rate)
    await send("GET /v1/tax_rates", inclusive="false")
    given = {"discounts[0][coupon]": coupon, "default_tax_rates[0]": tax_rate}
    invoice = (await send("POST /v1/invoices", customer=customer, **given))["id"]
    lines = {"lines[0][amount]": "900", "lines[0][discountable]": "true"}
    await send("POST /v1/invoices/{invoice}/add_lines", invoice, **lines)
    await send("GET /v1/invoices/{invoice}/lines", invoice)
    await send("GET /v1/invoices/{invoice}", invoice, **{"expand[0]": "discounts"})
    await send("DELETE /v1/coupons/{coupon}", coupon)
    automatic = {"automatic_tax[enabled]": "true"}
    await send("POST /v1/invoices", customer=customer, **automatic)
    address = {"address[country]": "DE"}
    await send("POST /v1/customers/{customer}", customer, **address)
    priced = {"currency": "usd", "unit_amount": "5", "product_data[name]": "Unit"}
    options = {"currency_options[eur][unit_amount]": "4", "tax_behavior": "exclusive"}
    price = (await send("POST /v1/prices", **priced, **options))["id"]
    await send("GET /v1/prices/{price}", price, **{"expand[0]": "currency_options"})


async def _walk_the_rest(send: Send) -> None:
    customer = (await send("POST /v1/customers", email="c@example.com"))["id"]
    await send("POST /v1/invoiceitems", customer=customer, amount=900)
    empty = (await send("POST /v1/invoices", customer=customer))["id"]
    await send("DELETE /v1/invoices/{invoice}", empty)
    including = {"customer": customer, "pending_invoice_items_behavior": "include"}
    bill = await send("POST /v1/invoices", **including)
    await send("POST /v1/invoices/{invoice}/finalize", bill["id"])
    await send("POST /v1/invoices/{invoice}/mark_uncollectible", bill["id"])
    await send("POST /v1/invoices/{invoice}/void", bill["id"])
    events = await send("GET /v1/events", limit=100)
    await send("GET /v1/events/{id}", events["data"][0]["id"])
    made = await send(
        "POST /v1/webhook_endpoints",
        url="http://127.0.0.1:9/x",
        **{"enabled_events[0]": "invoice.paid"},
    )
    endpoint = "/v1/webhook_endpoints/{webhook_endpoint}"
    await send(f"POST {endpoint}", made["id"], disabled="true")
    await send(f"GET {endpoint}", made["id"])
    await send("GET /v1/webhook_endpoints")
    await send(f"DELETE {endpoint}", made["id"])
