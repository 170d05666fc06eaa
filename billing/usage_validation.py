"""Syntax checks of a reported delta, field by field, without any lookup."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from billing.errors import ErrorCode
from billing.usage import REST_LINE, CustomerId, Period, UsageDelta

MAX_TEXT_LENGTH = 255
MAX_NUMBER_LENGTH = 64
# Zeros before and after the digits that count are allowed: FOCUS writes quantities with 18 decimals.
QUANTITY = re.compile(r"-?0*\d{1,15}(?:\.\d{1,12}0*)?", re.ASCII)
RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:(\d\d)(?:\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
# Control characters, ends of lines, overrides of the text direction and lone surrogates: they make a log or a
# bill unreadable. Everything else may be part of a name in some script.
UNREADABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb\ufffe\uffff]"
)
MONTH = re.compile(r"20\d\d-(?:0[1-9]|1[0-2])", re.ASCII)
CUSTOMER = re.compile(r"cus_[A-Za-z0-9]{1,64}", re.ASCII)
QUANTITY_FORMAT = (
    "Write the quantity as a plain decimal string without an exponent, such as 0.0000001: at most 15 digits "
    "before the point and 12 after."
)
MONTH_FORMAT = "Write the month as YYYY-MM, such as 2026-10."
TIMESTAMP_FORMAT = "Write the time as RFC 3339 with an offset, such as 2026-11-22T09:30:00Z."


class RawDelta(msgspec.Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    """A delta as a metering service reported it, not yet validated; ``UsageDeltaInput`` of the schema.

    ``POST /usage`` decodes it from JSON.
    """

    id: str
    customer_id: str
    sku: str
    quantity: Any
    occurred_at: Any
    app: str | None = None
    region: str | None = None
    organization: str | None = None


class RejectionError(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The reason of a rejection; *path* names the field, *retry_after* is in seconds."""

    code: ErrorCode
    message: str
    path: tuple[str, ...] | None = None
    retry_after: int | None = None


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """One delta that was not counted; encodes as ``RejectedDelta`` of the schema."""

    id: str
    error: RejectionError


def validate(raw: RawDelta) -> UsageDelta | Rejection:
    """Parse *raw* into exact values, or return the first error."""
    problem = _invalid_text(raw)
    if problem is not None:
        return problem
    amount = parse_quantity(raw.quantity)
    if amount is None:
        return invalid_field(raw.id, "quantity", QUANTITY_FORMAT)
    occurred_at = parse_timestamp(raw.occurred_at)
    if occurred_at is None:
        return invalid_field(raw.id, "occurredAt", TIMESTAMP_FORMAT)
    return UsageDelta(
        id=raw.id,
        customer=CustomerId(raw.customer_id),
        sku=raw.sku,
        quantity=amount,
        occurred_at=occurred_at,
        app=raw.app or None,
        region=raw.region or None,
        organization=raw.organization or None,
    )


def _invalid_text(raw: RawDelta) -> Rejection | None:
    for field, text in (("id", raw.id), ("sku", raw.sku)):
        if not text or not is_readable(text):
            return invalid_field(
                raw.id[:MAX_TEXT_LENGTH],
                field,
                f"Give {field} 1 to {MAX_TEXT_LENGTH} printable characters.",
            )
    for field, label in (
        ("app", raw.app),
        ("region", raw.region),
        ("organization", raw.organization),
    ):
        if label and not is_readable(label):
            return invalid_field(
                raw.id, field, f"Give {field} at most {MAX_TEXT_LENGTH} printable characters."
            )
    if reserved := _reserved_sku(raw.sku):
        return invalid_field(raw.id, "sku", reserved)
    if not CUSTOMER.fullmatch(raw.customer_id):
        return invalid_field(
            raw.id, "customerId", "Give the Stripe customer id, which starts with cus_."
        )
    return None


def _reserved_sku(sku: str) -> str | None:
    """Return why *sku* is a reserved name (one of the ledger's own line keys), or None."""
    if "~" in sku:
        return "No SKU has a '~' in it: the month of late usage follows one. Give the price another lookup key."
    if sku.startswith("adj:"):
        return "No SKU starts with 'adj:'; corrections are made with adjustUsage."
    if sku == REST_LINE:
        return (
            f"No SKU is called '{REST_LINE}': so is the line for all that an invoice has no room for. "
            "Give the price another lookup key."
        )
    return None


def parse_quantity(text: object) -> Decimal | None:
    """Parse a plain decimal string; None for anything else."""
    if isinstance(text, str) and len(text) <= MAX_NUMBER_LENGTH and QUANTITY.fullmatch(text):
        return Decimal(text)
    return None


def is_readable(text: str) -> bool:
    """Return True if *text* is at most 255 characters long, none of them a control character."""
    return len(text) <= MAX_TEXT_LENGTH and not UNREADABLE.search(text)


def parse_month(text: str) -> Period | None:
    """Parse `YYYY-MM`; None for anything else."""
    return Period.parse(text) if MONTH.fullmatch(text) else None


def parse_timestamp(text: object) -> datetime | None:
    """Parse an RFC 3339 string into UTC; None for anything else.

    A leap second (23:59:60 UTC) counts as the last microsecond before it, which is in the same month.
    """
    if not isinstance(text, str) or len(text) > MAX_TEXT_LENGTH:
        return None
    form = RFC_3339.fullmatch(text)
    if form is None:
        return None
    is_leap = form[1] == "60"
    written = f"{text[: form.start(1)]}59.999999{form[2]}" if is_leap else form[0]
    try:
        moment = datetime.fromisoformat(written.upper()).astimezone(UTC)
    except (ValueError, OverflowError):  # 30 February, or a year that an offset pushes below 1
        return None
    return None if is_leap and (moment.hour, moment.minute) != (23, 59) else moment


def invalid_field(delta_id: str, field: str, message: str) -> Rejection:
    """Reject the delta because of *field*."""
    return Rejection(delta_id, RejectionError(ErrorCode.INVALID_INPUT, message, (field,)))
