"""Stripe's objects as frozen records, limited to the fields that the gateway reads.

Amounts are in minor units next to their currency, decimals are exact, times are aware (UTC).
``from_stripe`` takes Stripe's JSON; what another API version may lack is None. Without a field that nothing can
stand in for it raises KeyError, which `Resource.decode` turns into an UnreadableAnswer. Records are msgspec
structs, which cost a fifth of frozen dataclasses to create (a first view creates dozens).
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Self

import msgspec

from billing.invoicing import metadata_keys
from billing.stripe.values import StripeObject, from_unix, id_of, optional_decimal, optional_time
from billing.usage import CustomerId, LineKey, Period


class CustomerRecord(msgspec.Struct, frozen=True, gc=False):
    """A Stripe customer; *balance* in minor units, negative when Fly owes the customer.

    *organization* is the slug in the customer's metadata, *currency* None before the first invoice.
    """

    id: CustomerId
    organization: str | None
    name: str | None
    email: str | None
    currency: str | None
    delinquent: bool
    balance: int
    deleted: bool

    @classmethod
    def from_stripe(cls, body: StripeObject) -> Self:
        """From a ``customer``, also a deleted one, of which Stripe returns the id alone."""
        return cls(
            id=CustomerId(body["id"]),
            organization=(body.get("metadata") or {}).get("organization"),
            name=body.get("name"),
            email=body.get("email"),
            currency=body.get("currency"),
            delinquent=bool(body.get("delinquent")),
            balance=body.get("balance", 0),
            deleted=body.get("deleted", False),
        )


class CustomerWithCard(msgspec.Struct, frozen=True, gc=False):
    """A customer, and the payment method of its next invoice."""

    customer: CustomerRecord
    card: "PaymentMethodRecord | None"

    @classmethod
    def from_stripe(cls, body: StripeObject) -> Self:
        """From a ``customer`` whose default payment method is expanded."""
        card = (body.get("invoice_settings") or {}).get("default_payment_method")
        return cls(
            CustomerRecord.from_stripe(body),
            PaymentMethodRecord.from_stripe(card) if isinstance(card, Mapping) else None,
        )


class LineRecord(msgspec.Struct, frozen=True, gc=False):
    """One line of an invoice; *amount* and *unit_amount* in minor units.

    *key* is the line's key in the ledger; None if the gateway did not create the line.
    *quantity* is signed and exact. The quantity of a credit is in the line's metadata, because Stripe
    accepts no negative quantity.
    """

    id: str
    key: LineKey | None
    description: str | None
    quantity: Decimal | None
    unit_amount: Decimal | None
    amount: int
    currency: str
    period_start: datetime
    period_end: datetime

    @classmethod
    def from_stripe(cls, body: StripeObject) -> Self:
        """From a ``line_item``."""
        metadata = body.get("metadata") or {}
        pricing = body.get("pricing") or {}
        return cls(
            id=body["id"],
            key=LineKey(metadata[metadata_keys.LINE]) if metadata_keys.LINE in metadata else None,
            description=body.get("description"),
            quantity=_quantity(body, metadata),
            unit_amount=optional_decimal(pricing.get("unit_amount_decimal")),
            amount=body["amount"],
            currency=body["currency"],
            period_start=from_unix(body["period"]["start"]),
            period_end=from_unix(body["period"]["end"]),
        )

    @property
    def sku(self) -> str | None:
        """The SKU that this line bills; None for an adjustment and for a line not created by the gateway."""
        if self.key is None or self.key.startswith("adj:"):
            return None
        return self.key.partition("~")[0]


def _quantity(body: StripeObject, metadata: Mapping[str, str]) -> Decimal | None:
    candidates = (
        metadata.get(metadata_keys.QUANTITY),
        body.get("quantity_decimal"),
        body.get("quantity"),
    )
    return optional_decimal(next((number for number in candidates if number is not None), None))


class InvoiceRecord(msgspec.Struct, frozen=True, gc=False):
    """A Stripe invoice; amounts in minor units of *currency*, *tax* None if Stripe computed none.

    *tax_included* is the part of it that the lines contain; *credited* are credit notes of an open invoice,
    *starting_balance* and *ending_balance* the customer's, negative in their favor. *period* is the billing
    period that it bills, None if the gateway did not create the invoice.
    *lines* is the first page, which Stripe embeds; *has_more_lines* if there are more.
    """

    id: str
    number: str | None
    status: str
    customer: CustomerId
    currency: str
    subtotal: int
    tax: int | None
    total: int
    amount_due: int
    amount_paid: int
    amount_remaining: int
    discount: int
    tax_included: int
    credited: int
    starting_balance: int
    ending_balance: int | None
    collection_method: str
    attempt_count: int
    next_attempt: datetime | None
    created: datetime
    finalized: datetime | None
    paid: datetime | None
    period_start: datetime
    period_end: datetime
    finalizes_at: datetime | None
    due_date: datetime | None
    hosted_invoice_url: str | None
    invoice_pdf: str | None
    period: Period | None
    lines: tuple[LineRecord, ...]
    has_more_lines: bool

    @classmethod
    def from_stripe(cls, body: StripeObject) -> Self:
        """From an ``invoice``, with or without its lines."""
        lines = body.get("lines") or {"data": [], "has_more": True}
        taxes, times = body.get("total_taxes") or (), body.get("status_transitions") or {}
        return cls(
            id=body["id"],
            number=body.get("number"),
            status=body["status"],
            customer=_owner(body),
            currency=body["currency"],
            subtotal=body["subtotal"],
            tax=_sum(taxes) if taxes else None,
            total=body["total"],
            amount_due=body["amount_due"],
            amount_paid=body["amount_paid"],
            amount_remaining=body.get("amount_remaining", body["amount_due"] - body["amount_paid"]),
            discount=_sum(body.get("total_discount_amounts") or ()),
            tax_included=_sum(tax for tax in taxes if tax.get("tax_behavior") == "inclusive"),
            credited=body.get("pre_payment_credit_notes_amount") or 0,
            starting_balance=body.get("starting_balance") or 0,
            ending_balance=body.get("ending_balance"),
            collection_method=body.get("collection_method") or "charge_automatically",
            attempt_count=body.get("attempt_count") or 0,
            next_attempt=optional_time(body.get("next_payment_attempt")),
            created=from_unix(body["created"]),
            finalized=optional_time(times.get("finalized_at")),
            paid=optional_time(times.get("paid_at")),
            period_start=from_unix(body["period_start"]),
            period_end=from_unix(body["period_end"]),
            finalizes_at=optional_time(body.get("automatically_finalizes_at")),
            due_date=optional_time(body.get("due_date")),
            hosted_invoice_url=body.get("hosted_invoice_url"),
            invoice_pdf=body.get("invoice_pdf"),
            period=metadata_keys.period_of(body),
            lines=tuple(LineRecord.from_stripe(line) for line in lines["data"]),
            has_more_lines=lines["has_more"],
        )


def _owner(body: StripeObject) -> CustomerId:
    customer = id_of(body.get("customer"))
    if customer is None:
        raise KeyError("customer")
    return CustomerId(customer)


def _sum(parts: Iterable[StripeObject]) -> int:
    return sum(part["amount"] for part in parts)


class PaymentMethodRecord(msgspec.Struct, frozen=True, gc=False):
    """A payment method; of a card or bank account only the fields that may be displayed."""

    id: str
    type: str
    customer: CustomerId | None
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None

    @classmethod
    def from_stripe(cls, body: StripeObject) -> Self:
        """From a ``payment_method``; its details are under a key named after its type."""
        details = body.get(body["type"]) or {}
        customer = id_of(body.get("customer"))
        return cls(
            id=body["id"],
            type=body["type"],
            customer=CustomerId(customer) if customer else None,
            brand=details.get("brand") or details.get("bank_name"),
            last4=details.get("last4"),
            exp_month=details.get("exp_month"),
            exp_year=details.get("exp_year"),
        )
