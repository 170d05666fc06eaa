"""Conversion of Stripe's JSON into records."""

from decimal import Decimal
from typing import Any

import pytest

from billing.stripe.records import (
    CustomerRecord,
    InvoiceRecord,
    LineRecord,
    PaymentMethodRecord,
)
from billing.usage import Period

CUSTOMER: dict[str, Any] = {
    "id": "cus_1",
    "object": "customer",
    "name": "Ada",
    "email": "ada@example.com",
    "currency": "usd",
    "delinquent": False,
    "balance": -250,
    "created": 1_764_547_200,
    "livemode": False,
    "invoice_settings": {"default_payment_method": {"id": "pm_1", "object": "payment_method"}},
    "metadata": {"organization": "ada-org"},
}

LINE: dict[str, Any] = {
    "id": "il_1",
    "object": "line_item",
    "description": "Machines",
    "amount": 1234,
    "currency": "usd",
    "quantity": 7,
    "quantity_decimal": "7.000000000001",
    "pricing": {
        "type": "price_details",
        "unit_amount_decimal": "0.000000000001",
        "price_details": {"price": "price_1", "product": "prod_1"},
    },
    "period": {"start": 1_764_547_200, "end": 1_767_225_600},
    "metadata": {"gw_line": "machine~2025-11", "gw_quantity": "7.000000000001"},
}

INVOICE: dict[str, Any] = {
    "id": "in_1",
    "object": "invoice",
    "number": None,
    "status": "draft",
    "customer": "cus_1",
    "currency": "usd",
    "subtotal": 1234,
    "total": 1334,
    "total_taxes": [{"amount": 60}, {"amount": 40}],
    "amount_due": 1334,
    "amount_paid": 0,
    "created": 1_764_547_200,
    "period_start": 1_764_547_200,
    "period_end": 1_767_225_600,
    "automatically_finalizes_at": None,
    "due_date": None,
    "hosted_invoice_url": None,
    "invoice_pdf": None,
    "livemode": False,
    "metadata": {"gw_period": "2025-12", "gw_seq": "17"},
    "lines": {"data": [LINE], "has_more": True},
}


def test_customer_has_organization_and_balance() -> None:
    """The organization is in Stripe's metadata."""
    customer = CustomerRecord.from_stripe(CUSTOMER)

    assert customer.organization == "ada-org"
    assert customer.balance == -250


def test_deleted_customer_is_readable() -> None:
    """Stripe returns the id alone; a webhook about it must not fail."""
    customer = CustomerRecord.from_stripe({"id": "cus_1", "object": "customer", "deleted": True})

    assert customer.deleted
    assert customer.email is None


def test_line_decimals_are_exact() -> None:
    """Twelve decimals of quantity and price survive; they are never floats."""
    line = LineRecord.from_stripe(LINE)

    assert line.quantity == Decimal("7.000000000001")
    assert line.unit_amount == Decimal("0.000000000001")


def test_credit_quantity_comes_from_metadata() -> None:
    """Stripe accepts no negative quantity, so a credit is sent as an amount."""
    metadata = {"gw_line": "machine", "gw_quantity": "-3.5"}
    line = LineRecord.from_stripe(
        {**LINE, "amount": -7, "quantity_decimal": "1", "metadata": metadata}
    )

    assert line.quantity == Decimal("-3.5")


@pytest.mark.parametrize(
    ("metadata", "key", "sku"),
    [
        ({"gw_line": "machine"}, "machine", "machine"),
        ({"gw_line": "machine~2025-11"}, "machine~2025-11", "machine"),
        ({"gw_line": "adj:a1"}, "adj:a1", None),
        ({}, None, None),
    ],
)
def test_line_key_and_sku_come_from_metadata(
    metadata: dict[str, str],
    key: str | None,
    sku: str | None,
) -> None:
    """A line that a person added to the draft has no key, and is never changed."""
    line = LineRecord.from_stripe({**LINE, "metadata": metadata})

    assert (line.key, line.sku) == (key, sku)


def test_invoice_has_its_billing_period() -> None:
    """The panel shows a month's bill beside its usage."""
    invoice = InvoiceRecord.from_stripe(INVOICE)

    assert invoice.period == Period(2025, 12)
    assert invoice.tax == 100
    assert invoice.has_more_lines
    assert [line.id for line in invoice.lines] == ["il_1"]


def test_foreign_invoice_has_no_billing_period() -> None:
    """Invoices created by people are shown, never changed."""
    invoice = InvoiceRecord.from_stripe({**INVOICE, "metadata": {}, "total_taxes": []})

    assert invoice.period is None
    assert invoice.tax is None


def test_invoice_without_lines_has_more_lines() -> None:
    """A list that omits lines must not look like an empty invoice."""
    body = {key: value for key, value in INVOICE.items() if key != "lines"}

    assert InvoiceRecord.from_stripe(body).has_more_lines


def test_payment_method_has_brand_and_last_digits() -> None:
    """The details are under a key named after the type."""
    card = {"brand": "visa", "last4": "4242", "exp_month": 4, "exp_year": 2030}
    method = PaymentMethodRecord.from_stripe(
        {"id": "pm_1", "type": "card", "customer": "cus_1", "card": card},
    )
    debit = PaymentMethodRecord.from_stripe(
        {"id": "pm_2", "type": "sepa_debit", "customer": None, "sepa_debit": {"last4": "3000"}},
    )

    assert (method.brand, method.last4, method.exp_month, method.exp_year) == (
        "visa",
        "4242",
        4,
        2030,
    )
    assert (debit.brand, debit.last4, debit.customer) == (None, "3000", None)


def test_records_are_frozen() -> None:
    """Readers share records, so none may change one."""
    customer = CustomerRecord.from_stripe(CUSTOMER)

    with pytest.raises(AttributeError, match="immutable"):
        customer.name = "Eve"  # type: ignore[misc]
