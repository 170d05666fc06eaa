"""Stripe's objects as frozen records: only what the gateway reads, each made by ``from_stripe``.

Money stays in minor units next to its currency, decimals are exact, times are aware (UTC).
``from_stripe`` takes Stripe's JSON and raises KeyError when a field that Stripe always sends is
missing: the pinned API version and the data have parted. They are msgspec's structs because a first view
makes dozens of them, which costs a fifth of what frozen dataclasses do; no cycle can go through them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self

import msgspec

from billing.invoicing import metadata_keys
from billing.usage import CustomerId, LineKey, Period

Body = Mapping[str, Any]


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
    def from_stripe(cls, body: Body) -> Self:
        """Also reads a deleted customer, of which Stripe keeps the id alone."""
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


class LineRecord(msgspec.Struct, frozen=True, gc=False):
    """One line of an invoice; *amount* and *unit_amount* in minor units.

    *key* names the line in the ledger; None says that a person or another program put it there.
    *quantity* is signed and exact: a credit goes to Stripe as a bare amount and its quantity in our
    metadata, because Stripe takes no negative quantity.
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
    def from_stripe(cls, body: Body) -> Self:
        """From a ``line_item``."""
        metadata = body.get("metadata") or {}
        pricing = body.get("pricing") or {}
        return cls(
            id=body["id"],
            key=LineKey(metadata[metadata_keys.LINE]) if metadata_keys.LINE in metadata else None,
            description=body["description"],
            quantity=_quantity(body, metadata),
            unit_amount=exact(pricing.get("unit_amount_decimal")),
            amount=body["amount"],
            currency=body["currency"],
            period_start=moment(body["period"]["start"]),
            period_end=moment(body["period"]["end"]),
        )

    @property
    def sku(self) -> str | None:
        """The SKU that this line bills; None for a correction and for a line that is not ours."""
        if self.key is None or self.key.startswith("adj:"):
            return None
        return self.key.partition("~")[0]


def _quantity(body: Body, metadata: Mapping[str, str]) -> Decimal | None:
    for found in (
        metadata.get(metadata_keys.QUANTITY),
        body.get("quantity_decimal"),
        body.get("quantity"),
    ):
        if found is not None:
            return exact(found)
    return None


class InvoiceRecord(msgspec.Struct, frozen=True, gc=False):
    """A Stripe invoice; amounts in minor units of *currency*, *tax* None when Stripe computed none.

    *period* is the billing period that we compile on it, None when it is not ours.
    *lines* is the first page that Stripe embeds; *has_more_lines* says that it is not all of them.
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
    created: datetime
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
    def from_stripe(cls, body: Body) -> Self:
        """From an ``invoice``, with or without its lines."""
        lines = body.get("lines") or {"data": [], "has_more": True}
        return cls(
            id=body["id"],
            number=body["number"],
            status=body["status"],
            customer=CustomerId(str(id_of(body["customer"]))),
            currency=body["currency"],
            subtotal=body["subtotal"],
            tax=_tax(body.get("total_taxes")),
            total=body["total"],
            amount_due=body["amount_due"],
            amount_paid=body["amount_paid"],
            created=moment(body["created"]),
            period_start=moment(body["period_start"]),
            period_end=moment(body["period_end"]),
            finalizes_at=maybe_moment(body.get("automatically_finalizes_at")),
            due_date=maybe_moment(body.get("due_date")),
            hosted_invoice_url=body.get("hosted_invoice_url"),
            invoice_pdf=body.get("invoice_pdf"),
            period=metadata_keys.period_of(body.get("metadata")),
            lines=tuple(LineRecord.from_stripe(each) for each in lines["data"]),
            has_more_lines=lines["has_more"],
        )


def _tax(taxes: list[Body] | None) -> int | None:
    return sum(each["amount"] for each in taxes) if taxes else None


class PaymentMethodRecord(msgspec.Struct, frozen=True, gc=False):
    """A way to pay; of a card or an account only what may be shown."""

    id: str
    type: str
    customer: CustomerId | None
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None

    @classmethod
    def from_stripe(cls, body: Body) -> Self:
        """From a ``payment_method``; the details live under a key named after its type."""
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


def id_of(reference: str | Body | None) -> str | None:
    """The id of a Stripe reference, expanded or not."""
    return str(reference["id"]) if isinstance(reference, Mapping) else reference


def moment(seconds: int) -> datetime:
    """Stripe's Unix *seconds* as an aware time."""
    return datetime.fromtimestamp(seconds, UTC)


def maybe_moment(seconds: int | None) -> datetime | None:
    """As ``moment``; None stays None."""
    return None if seconds is None else moment(seconds)


def exact(number: str | int | None) -> Decimal | None:
    """Stripe's decimal string as a Decimal; None stays None."""
    return None if number is None else Decimal(number)
