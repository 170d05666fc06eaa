"""The stored fields of Stripe's objects are exactly those that the records read."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from billing.budget import Lane
from billing.cache import kept
from billing.services import Services
from billing.stripe.records import (
    CustomerRecord,
    InvoiceRecord,
    LineRecord,
    PaymentMethodRecord,
)
from tests.support.stripe_catalog import CENTS, Shop


@pytest.fixture
async def bodies(services: Services) -> Mapping[str, Mapping[str, Any]]:
    """One of each of Stripe's objects, as Stripe sends them."""
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
    expand = {"expand": ["invoice_settings.default_payment_method"]}
    read = services.stripe.read
    return {
        "customer": await read(f"/v1/customers/{customer}", expand, lane=Lane.CUSTOMER),
        "invoice": await read(f"/v1/invoices/{draft['id']}", lane=Lane.CUSTOMER),
        "payment_method": card,
    }


async def test_records_of_trimmed_objects_equal_those_of_whole_objects(
    bodies: Mapping[str, Mapping[str, Any]],
) -> None:
    """Also after encoding as JSON."""
    customer, invoice, card = bodies["customer"], bodies["invoice"], bodies["payment_method"]
    read = {
        CustomerRecord.from_stripe: (customer, kept.customer(customer)),
        InvoiceRecord.from_stripe: (invoice, kept.invoice(invoice)),
        PaymentMethodRecord.from_stripe: (card, kept.payment_method(card)),
        LineRecord.from_stripe: (
            invoice["lines"]["data"][0],
            kept.line(invoice["lines"]["data"][0]),
        ),
    }
    for from_stripe, (whole, part) in read.items():
        assert from_stripe(orjson.loads(orjson.dumps(part))) == from_stripe(whole)


async def test_invoice_page_is_stored_without_lines(
    bodies: Mapping[str, Mapping[str, Any]],
) -> None:
    """The record says that there are more, so that readers who need them load them."""
    head = InvoiceRecord.from_stripe(kept.invoice_head(bodies["invoice"]))
    whole = InvoiceRecord.from_stripe(bodies["invoice"])
    assert (head.id, head.total, head.period) == (whole.id, whole.total, whole.period)
    assert (head.lines, head.has_more_lines) == ((), True)


async def test_default_card_is_stored_in_part(bodies: Mapping[str, Mapping[str, Any]]) -> None:
    """Enough to display it, nothing to abuse."""
    card = kept.customer(bodies["customer"])["invoice_settings"]["default_payment_method"]
    assert set(card) == {"id", "type", "customer", "card"}
    assert set(card["card"]) <= {"brand", "last4", "exp_month", "exp_year"}


async def test_stored_objects_are_small(bodies: Mapping[str, Mapping[str, Any]]) -> None:
    """A hundred thousand customers' panels have to fit."""
    whole, part = (
        len(orjson.dumps(body)) for body in (bodies["invoice"], kept.invoice(bodies["invoice"]))
    )
    assert part < whole / 2
