"""A delta as a metering service wrote it, and what is wrong with it: field by field, knowing nobody."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from billing.errors import ErrorCode
from billing.usage import REST, CustomerId, Period, UsageDelta

MAX_TEXT = 255
QUANTITY = re.compile(r"-?\d{1,15}(?:\.\d{1,12})?", re.ASCII)
RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)
MONTH = re.compile(r"20\d\d-(?:0[1-9]|1[0-2])", re.ASCII)
CUSTOMER = re.compile(r"cus_[A-Za-z0-9]{1,64}", re.ASCII)
QUANTITY_FORM = (
    "Write the quantity as a plain decimal string, at most 15 digits before the point and 12 after."
)
MONTH_FORM = "Write the month as YYYY-MM, such as 2026-10."
MOMENT_FORM = "Write the time as RFC 3339 with an offset, such as 2026-11-22T09:30:00Z."


@dataclass(frozen=True, slots=True)
class ReportedDelta:
    """A delta as a metering service wrote it, nothing checked yet; the contract's ``UsageDeltaInput``."""

    id: str
    customer_id: str
    sku: str
    quantity: object
    occurred_at: object
    app: str | None = None
    region: str | None = None
    organization: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one delta was not counted; *path* names the field, *retry_after* the seconds until it may be sent again."""

    id: str
    code: ErrorCode
    message: str
    path: tuple[str, ...] = ()
    retry_after: int | None = None


def checked(raw: ReportedDelta) -> UsageDelta | Rejection:
    """*raw* as exact values, or the first thing that is wrong with it."""
    problem = _wrong_text(raw)
    if problem is not None:
        return problem
    amount = quantity(raw.quantity)
    if amount is None:
        return invalid(raw.id, "quantity", QUANTITY_FORM)
    occurred_at = moment(raw.occurred_at)
    if occurred_at is None:
        return invalid(raw.id, "occurredAt", MOMENT_FORM)
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


def _wrong_text(raw: ReportedDelta) -> Rejection | None:
    for field, text in (("id", raw.id), ("sku", raw.sku)):
        if not 0 < len(text) <= MAX_TEXT or not text.isprintable():
            return invalid(
                raw.id[:MAX_TEXT], field, f"Give {field} 1 to {MAX_TEXT} printable characters."
            )
    for field, label in (
        ("app", raw.app),
        ("region", raw.region),
        ("organization", raw.organization),
    ):
        if label is not None and (len(label) > MAX_TEXT or not label.isprintable()):
            return invalid(raw.id, field, f"Give {field} at most {MAX_TEXT} printable characters.")
    if taken := _taken(raw.sku):
        return invalid(raw.id, "sku", taken)
    if not CUSTOMER.fullmatch(raw.customer_id):
        return invalid(raw.id, "customerId", "Give the Stripe customer id, which starts with cus_.")
    return None


def _taken(sku: str) -> str | None:
    """Why no SKU has this name: a bill's own lines go by it. None for a name that is free."""
    if "~" in sku:
        return "No SKU has a '~' in it: the month of late usage follows one. Give the price another lookup key."
    if sku.startswith("adj:"):
        return "No SKU starts with 'adj:'; corrections are made with adjustUsage."
    if sku == REST:
        return (
            f"No SKU is called '{REST}': so is the line for all that an invoice has no room for. "
            "Give the price another lookup key."
        )
    return None


def quantity(sent: object) -> Decimal | None:
    """The number that *sent* spells out, None for anything but a plain decimal string."""
    if isinstance(sent, str) and QUANTITY.fullmatch(sent):
        return Decimal(sent)
    return None


def month(sent: str) -> Period | None:
    """The month that *sent* names; None when it names none."""
    return Period.parse(sent) if MONTH.fullmatch(sent) else None


def moment(sent: object) -> datetime | None:
    """The UTC time that *sent*, an RFC 3339 string, names; None when it names none."""
    if not isinstance(sent, str) or not RFC_3339.fullmatch(sent):
        return None
    try:
        return datetime.fromisoformat(sent).astimezone(UTC)
    except (ValueError, OverflowError):  # 30 February, or a year that an offset pushes below 1
        return None


def invalid(delta_id: str, field: str, message: str) -> Rejection:
    """The delta of this id has something wrong in *field*."""
    return Rejection(delta_id, ErrorCode.INVALID_INPUT, message, (field,))
