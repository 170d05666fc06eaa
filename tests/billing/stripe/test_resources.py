"""Resources: their values survive the cache unchanged, and hold only what the gateway reads."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from billing.budget import Lane
from billing.errors import UnreadableAnswer
from billing.pagination import PageRequest
from billing.services import Services
from billing.stripe import resources
from billing.stripe.reader import ReadResult
from billing.stripe.records import InvoiceRecord
from billing.stripe.resource import Resource
from tests.support.stripe_catalog import CENTS, Shop

PAGE = PageRequest(10)


@pytest.fixture
async def examples(services: Services) -> Mapping[str, Resource[Any]]:
    """Every kind of cached resource, each of which Stripe has."""
    shop = Shop(services)
    await shop.open()
    customer = await shop.customer()

    async def write(path: str, **params: Any) -> Mapping[str, Any]:
        return (await services.stripe.write(path, params, key=path, lane=Lane.CUSTOMER)).body

    card = await write("/v1/payment_methods/pm_card_visa/attach", customer=customer)
    default = {"default_payment_method": card["id"]}
    await write(f"/v1/customers/{customer}", invoice_settings=default)
    metadata = {"gw_period": "2026-11", "gw_seq": "1"}
    draft = await write("/v1/invoices", customer=customer, metadata=metadata)
    prices = await services.price_catalog.by_sku(CENTS)
    line = {
        "pricing": {"price": prices["machine-seconds"].id},
        "quantity_decimal": "1000000",
        "metadata": {"gw_line": "machine-seconds", "gw_quantity": "1000000"},
    }
    credit = {"amount": -5, "description": "by hand"}
    await write(f"/v1/invoices/{draft['id']}/add_lines", lines=[line, credit])
    return {
        "customer": resources.customer(customer),
        "customer_with_card": resources.customer_with_card(customer),
        "customers": resources.customers(PAGE, None),
        "customers_with_cards": resources.customers_with_cards(PAGE, None),
        "invoice": resources.invoice(draft["id"]),
        "invoices": resources.invoices(customer, PAGE, None),
        "invoice_heads": resources.invoice_heads(customer, PAGE),
        "lines": resources.lines(draft["id"], PAGE),
        "payment_methods": resources.payment_methods(customer, PAGE),
        "prices": resources.prices(),
    }


def paths_in(body: Any, *above: Any) -> Iterator[tuple[Any, ...]]:
    """The path of every field in *body*, outermost key first."""
    items = body.items() if isinstance(body, dict) else enumerate(body)
    for key, value in items:
        if isinstance(body, dict):
            yield (*above, key)
        if isinstance(value, dict | list):
            yield from paths_in(value, *above, key)


def without(body: Any, path: Sequence[Any]) -> Any:
    """A copy of *body* without the field at *path*."""
    if len(path) == 1:
        return {key: value for key, value in body.items() if key != path[0]}
    changed = without(body[path[0]], path[1:])
    if isinstance(body, list):
        return [changed if n == path[0] else item for n, item in enumerate(body)]
    return body | {path[0]: changed}


def with_null(body: Any, path: Sequence[Any]) -> Any:
    """A copy of *body* in which the field at *path* is null."""
    if not path:
        return None
    changed = with_null(body[path[0]], path[1:])
    if isinstance(body, list):
        return [changed if n == path[0] else item for n, item in enumerate(body)]
    return body | {path[0]: changed}


async def test_field_that_another_api_version_lacks_is_null_or_named(
    services: Services, examples: Mapping[str, Resource[Any]]
) -> None:
    """Each field of each object that is decoded, missing or null: never an exception without words."""
    of_draft = next(r for r in examples.values() if r.path.startswith("/v1/invoices/"))
    draft = resources.remote_invoice(of_draft.path.rpartition("/")[2])
    refused: dict[str, str] = {}
    for resource in [*examples.values(), draft]:
        body = await services.stripe.read(resource.path, resource.params, lane=Lane.CUSTOMER)
        for path, change in itertools.product(paths_in(body), (without, with_null)):
            try:
                resource.decode(change(body, path))
            except UnreadableAnswer as error:
                refused[path[-1]] = error.message

    assert all("check the API version" in message for message in refused.values())
    assert refused.keys() <= {
        *("id", "status", "customer", "currency", "type", "data", "has_more", "lines"),
        *("amount", "subtotal", "total", "amount_due", "amount_paid"),
        *("created", "period", "start", "end", "period_start", "period_end"),
    }


async def read(services: Services, resource: Resource[Any]) -> ReadResult[Any]:
    """Read *resource* as the first reader."""
    await services.cache.invalidate(*resource.entry.generations)
    return await services.stripe_reader.get(resource, Lane.CUSTOMER)


async def test_cached_value_equals_loaded_value(
    services: Services, examples: Mapping[str, Resource[Any]]
) -> None:
    """A record is the same whether it was converted from Stripe's JSON or decoded from the cache's."""
    now = datetime.now(UTC)
    for name, resource in examples.items():
        loaded = (await read(services, resource)).value
        assert loaded, name
        stored = resource.entry.encode(loaded, now)
        assert resource.entry.decode(stored, resource.value_type.type) == (loaded, now), name


async def test_resources_have_different_keys(examples: Mapping[str, Resource[Any]]) -> None:
    """Two resources under one key would be decoded as each other."""
    assert len({resource.entry.key for resource in examples.values()}) == len(examples)


@pytest.mark.parametrize("name", ["invoices", "invoice_heads"])
async def test_invoice_page_has_no_lines(
    services: Services, examples: Mapping[str, Resource[Any]], name: str
) -> None:
    """The records say that there are more lines, so that a reader of lines loads them."""
    whole: InvoiceRecord = (await read(services, examples["invoice"])).value
    [head] = (await read(services, examples[name])).value.items

    assert (head.id, head.total, head.period) == (whole.id, whole.total, whole.period)
    assert (head.lines, head.has_more_lines) == ((), True)


async def test_invoice_page_includes_whole_invoices(
    services: Services, examples: Mapping[str, Resource[Any]]
) -> None:
    """The lines that came with the page are neither thrown away nor read again."""
    result = await read(services, examples["invoices"])
    [(entry, invoice)] = result.included

    assert entry == examples["invoice"].entry
    assert len(invoice.lines) == 2
    assert (await services.stripe_reader.get(examples["invoice"], Lane.CUSTOMER)).calls == 0


async def test_card_is_stored_in_part(
    services: Services, examples: Mapping[str, Resource[Any]]
) -> None:
    """Enough to display it, nothing to abuse."""
    resource = examples["customer_with_card"]
    stored = resource.entry.encode((await read(services, resource)).value, datetime.now(UTC))

    assert set(orjson.loads(stored)["value"]["card"]) == {
        "id",
        "type",
        "customer",
        "brand",
        "last4",
        "exp_month",
        "exp_year",
    }


async def test_stored_invoice_is_small(
    services: Services, examples: Mapping[str, Resource[Any]]
) -> None:
    """The panels of a hundred thousand customers have to fit into the cache."""
    resource = examples["invoice"]
    body = await services.stripe.read(resource.path, lane=Lane.CUSTOMER)
    stored = resource.entry.encode((await read(services, resource)).value, datetime.now(UTC))

    assert len(stored) < len(orjson.dumps(body)) / 2


def test_no_key_contains_an_email_address() -> None:
    """Redis shows keys to whoever watches it, and our log names them; two addresses have two keys."""
    page, emails = PageRequest(20), ("ann@example.com", "bob@example.com", None)
    keys = {
        *(resources.customers(page, email).entry.key for email in emails),
        *(resources.customers_with_cards(page, email).entry.key for email in emails),
        resources.customer_search("email:'ann@example.com'", 10).entry.key,
    }

    assert len(keys) == 7
    assert not any("@" in key for key in keys)
