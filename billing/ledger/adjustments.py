"""Adjustments: Support's corrections of a bill."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import orjson

from billing.errors import ErrorCode, Refused
from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.quantities import QuantityOutOfRange, format_quantity
from billing.pagination import Page
from billing.usage import CustomerId, LineKey, Period, Price, adjustment_line_key


@dataclass(frozen=True, slots=True)
class NewAdjustment:
    """An adjustment that Support requests: *quantity* of *sku*, negative for a credit.

    *by* is the token's subject. The same *idempotency_key* creates the adjustment once. *period* is
    the month to correct, None for the current month.
    """

    customer: CustomerId
    sku: str
    quantity: Decimal
    reason: str
    by: str
    idempotency_key: str
    period: Period | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """An adjustment with an invoice line of its own in *period*; *price* is its Price id."""

    id: str
    customer: CustomerId
    period: Period
    sku: str
    quantity: Decimal
    price: str
    reason: str
    by: str
    at_ms: int

    @property
    def line(self) -> LineKey:
        """The key of the line that it is billed on."""
        return adjustment_line_key(self.id)


class Adjustments(LedgerPart):
    """Adjustments have their own invoice lines, so a sync never overwrites them."""

    async def create(self, adjustment: NewAdjustment, price: Price) -> Adjustment:
        """Correct a month's bill, once per idempotency key.

        Refused: IDEMPOTENCY_CONFLICT if the key created a different adjustment, PERIOD_CLOSED if
        the month's bill is final, SYNC_IN_PROGRESS while it may become final, NOT_FOUND,
        INVALID_INPUT. LedgerUnavailable: it may be created, send it again under the same key.
        """
        content = {
            "sku": adjustment.sku,
            "quantity": _quantity_text(adjustment.quantity),
            "reason": adjustment.reason,
            "by": adjustment.by,
            "price": price.id,
        }
        outcome, *details = await self._run_acknowledged(
            "adjust",
            keys.customer(adjustment.customer),
            adjustment.idempotency_key,
            price.currency,
            price.id,
            content["quantity"],
            orjson.dumps(content),
            self._flush_interval(),
            str(adjustment.period or ""),
            self._policy.settle_ms,
            self._policy.quiet_ms,
        )
        if outcome not in (b"made", b"known"):
            raise _refused(outcome, adjustment, details)
        number, text = details
        created = _decode(adjustment.customer, int(number), text.decode())
        _require_same(created, adjustment)
        return created

    async def created_by(self, customer: CustomerId, idempotency_key: str) -> Adjustment | None:
        """Return the adjustment that this idempotency key has created, if any."""
        number = await self._server.execute("HGET", keys.adjustment_keys(customer), idempotency_key)
        return await self._numbered(customer, number.decode()) if number else None

    async def adjustable_period(self, customer: CustomerId, month: Period | None) -> Period:
        """Return the month that an adjustment of *month* (None: the current one) would be billed in.

        Refused as in `create`.
        """
        refusal, *months = await self._server.run_script(
            "correctable",
            keys.customer(customer),
            str(month or ""),
            self._policy.settle_ms,
            self._policy.quiet_ms,
        )
        if refusal:
            raise _period_refused(refusal, months)
        return Period.parse(months[0].decode())

    async def get(self, adjustment_id: str) -> Adjustment | None:
        """Return the adjustment with this id, None if there is none."""
        customer, _, number = adjustment_id.removeprefix("adj_").rpartition("_")
        return await self._numbered(CustomerId(f"cus_{customer}"), number)

    async def get_many(self, customer: CustomerId, ids: Sequence[str]) -> list[Adjustment]:
        """Return those adjustments of *customer* that have one of *ids*, in one round trip."""
        numbers = [adjustment_id.rpartition("_")[2] for adjustment_id in ids]
        return await self._all_numbered(customer, numbers)

    async def _numbered(self, customer: CustomerId, number: str) -> Adjustment | None:
        text = await self._server.execute("HGET", keys.adjustments(customer), number)
        return _decode(customer, int(number), text.decode()) if text else None

    async def page(
        self,
        customer: CustomerId,
        first: int,
        after: str | None = None,
    ) -> Page[Adjustment]:
        """Return at most *first* adjustments older than the one with id *after*, newest first."""
        if after is None:
            count = await self._server.execute("HLEN", keys.adjustments(customer))
        else:
            number = after.rpartition("_")[2]
            count = int(number) - 1 if number.isdecimal() else 0
        numbers = list(range(count, max(0, count - first - 1), -1))
        return Page.from_items(await self._all_numbered(customer, numbers), first)

    async def _all_numbered(
        self, customer: CustomerId, numbers: Sequence[str | int]
    ) -> list[Adjustment]:
        if not numbers:
            return []
        texts = await self._server.execute("HMGET", keys.adjustments(customer), *numbers)
        return [
            _decode(customer, int(number), text.decode())
            for number, text in zip(numbers, texts, strict=True)
            if text
        ]


def wrong_currency(sku: str) -> Refused:
    """Return the refusal of a correction whose price has another currency than the customer."""
    return Refused(
        ErrorCode.INVALID_INPUT,
        f"The price of {sku} is in another currency than the customer's invoices; use a SKU priced in theirs.",
        ("sku",),
    )


def _require_same(created: Adjustment, requested: NewAdjustment) -> None:
    """Refuse if the key of *requested* created a different adjustment."""
    if (created.sku, created.quantity, created.reason, created.period) != (
        requested.sku,
        requested.quantity,
        requested.reason,
        requested.period or created.period,
    ):
        raise Refused(
            ErrorCode.IDEMPOTENCY_CONFLICT,
            f"This idempotency key made another correction, {created.id}; use a new key for a new one.",
            ("idempotencyKey",),
        )


def _quantity_text(quantity: Decimal) -> str:
    try:
        return format_quantity(quantity)
    except QuantityOutOfRange as error:
        raise Refused(ErrorCode.INVALID_INPUT, str(error), ("quantity",)) from error


def _decode(customer: CustomerId, number: int, text: str) -> Adjustment:
    period, at_ms, content_json = text.split(" ", 2)
    content = orjson.loads(content_json)
    return Adjustment(
        id=f"adj_{customer.removeprefix('cus_')}_{number}",
        customer=customer,
        period=Period.parse(period),
        sku=content["sku"],
        quantity=Decimal(content["quantity"]),
        price=content["price"],
        reason=content["reason"],
        by=content["by"],
        at_ms=int(at_ms),
    )


def _refused(outcome: bytes, adjustment: NewAdjustment, months: list[bytes]) -> Refused:
    if outcome == b"currency":
        return wrong_currency(adjustment.sku)
    if outcome == b"unknown":
        return Refused(
            ErrorCode.NOT_FOUND,
            f"The ledger knows no customer {adjustment.customer}; check the id.",
            ("customerId",),
        )
    return _period_refused(outcome, months)


def _period_refused(reason: bytes, months: list[bytes]) -> Refused:
    month, current = (text.decode() for text in months)
    if reason == b"busy":
        return Refused(
            ErrorCode.SYNC_IN_PROGRESS,
            f"The bill of {month} may be becoming final right now. Try again in ten minutes: while it is"
            " a draft it can be corrected; once it is final, write a credit note in Stripe.",
            ("month",),
        )
    if reason == b"future":
        return Refused(
            ErrorCode.INVALID_INPUT,
            f"{month} has not begun, so there is nothing to correct; {current} is the current month.",
            ("month",),
        )
    return Refused(
        ErrorCode.PERIOD_CLOSED,
        f"The bill of {month} is final, or there was none. Write a credit note in Stripe, or correct"
        f" the bill of {current}.",
        ("month",),
    )
