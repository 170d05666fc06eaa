"""Support's corrections of a bill."""

from dataclasses import dataclass
from decimal import Decimal

import orjson

from billing.errors import ErrorCode, Refused
from billing.ledger import keys
from billing.ledger.base import Door
from billing.ledger.quantities import OutOfRange, as_text
from billing.pagination import Page
from billing.usage import CustomerId, LineKey, Period, Price, adjustment_line


@dataclass(frozen=True, slots=True)
class NewAdjustment:
    """A correction as Support asks for it: *quantity* of *sku*, negative for a credit.

    *by* is the token subject; the same *idempotency_key* makes the same correction once. *period* is
    whose bill it corrects, None for the current month's.
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
    """A correction with a line of its own in *period*; *price* is the Price id it counts by."""

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
        """The line that it is billed on."""
        return adjustment_line(self.id)


class Support(Door):
    """Corrections survive every sync."""

    async def adjust(self, adjustment: NewAdjustment, price: Price) -> Adjustment:
        """Correct a month's bill, once per idempotency key.

        Refused: IDEMPOTENCY_CONFLICT when the key made another correction, PERIOD_CLOSED when the
        month's bill is final, SYNC_IN_PROGRESS while it may become so, NOT_FOUND, INVALID_INPUT.
        """
        content = {
            "sku": adjustment.sku,
            "quantity": _quantity(adjustment.quantity),
            "reason": adjustment.reason,
            "by": adjustment.by,
            "price": price.id,
        }
        outcome, *kept = await self._server.run(
            "adjust",
            keys.customer(adjustment.customer),
            adjustment.idempotency_key,
            price.currency,
            price.id,
            content["quantity"],
            orjson.dumps(content),
            self._policy.interval(self._nonce()),
            str(adjustment.period or ""),
            self._policy.settle_ms,
            self._policy.quiet_ms,
        )
        if outcome not in (b"made", b"known"):
            raise _refusal(outcome, adjustment, kept)
        number, text = kept
        made = _adjustment(adjustment.customer, int(number), text.decode())
        if (made.sku, made.quantity, made.reason, made.period) != (
            adjustment.sku,
            adjustment.quantity,
            adjustment.reason,
            adjustment.period or made.period,
        ):
            raise Refused(
                ErrorCode.IDEMPOTENCY_CONFLICT,
                f"This idempotency key made another correction, {made.id}; use a new key for a new one.",
                ("idempotencyKey",),
            )
        return made

    async def is_adjusted(self, customer: CustomerId, idempotency_key: str) -> bool:
        """Whether this key has made a correction."""
        return bool(await self._server.ask("HEXISTS", keys.adjusted(customer), idempotency_key))

    async def correctable(self, customer: CustomerId, month: Period | None) -> Period:
        """The month whose bill a correction would go on, None for the current one; Refused as `adjust` is."""
        why, *months = await self._server.run(
            "correctable",
            keys.customer(customer),
            str(month or ""),
            self._policy.settle_ms,
            self._policy.quiet_ms,
        )
        if why:
            raise _uncorrectable(why, months)
        return Period.parse(months[0].decode())

    async def adjustment(self, adjustment_id: str) -> Adjustment | None:
        """The correction of this id."""
        customer, _, number = adjustment_id.removeprefix("adj_").rpartition("_")
        owner = CustomerId(f"cus_{customer}")
        text = await self._server.ask("HGET", keys.adjustments(owner), number)
        return _adjustment(owner, int(number), text.decode()) if text else None

    async def adjustments(
        self,
        customer: CustomerId,
        first: int,
        after: str | None = None,
    ) -> Page[Adjustment]:
        """At most *first* corrections that are older than the one of id *after*, newest first."""
        if after is None:
            count = await self._server.ask("HLEN", keys.adjustments(customer))
        else:
            number = after.rpartition("_")[2]
            count = int(number) - 1 if number.isdecimal() else 0
        numbers = list(range(count, max(0, count - first - 1), -1))
        if not numbers:
            return Page((), has_more=False)
        texts = await self._server.ask("HMGET", keys.adjustments(customer), *numbers)
        found = [
            _adjustment(customer, number, text.decode())
            for number, text in zip(numbers, texts, strict=True)
            if text
        ]
        return Page.of(found, first)


def _quantity(quantity: Decimal) -> str:
    try:
        return as_text(quantity)
    except OutOfRange as error:
        raise Refused(ErrorCode.INVALID_INPUT, str(error), ("quantity",)) from error


def _adjustment(customer: CustomerId, number: int, text: str) -> Adjustment:
    period, at_ms, said = text.split(" ", 2)
    content = orjson.loads(said)
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


def _refusal(outcome: bytes, asked: NewAdjustment, kept: list[bytes]) -> Refused:
    if outcome == b"currency":
        return Refused(
            ErrorCode.INVALID_INPUT,
            f"The price of {asked.sku} is in another currency than the customer's invoices; use a "
            "SKU priced in theirs.",
            ("sku",),
        )
    if outcome == b"unknown":
        return Refused(
            ErrorCode.NOT_FOUND,
            f"The ledger knows no customer {asked.customer}; check the id.",
            ("customerId",),
        )
    return _uncorrectable(outcome, kept)


def _uncorrectable(why: bytes, months: list[bytes]) -> Refused:
    month, current = (each.decode() for each in months)
    if why == b"busy":
        return Refused(
            ErrorCode.SYNC_IN_PROGRESS,
            f"The bill of {month} may be becoming final right now. Ask again in ten minutes: while it is"
            " a draft it can be corrected; once it is final, write a credit note in Stripe.",
            ("month",),
        )
    if why == b"future":
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
