"""Value objects of metering: a usage delta, the price it is counted at, the period it falls in."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NewType, Self

CustomerId = NewType("CustomerId", str)
"""A Stripe customer id, ``cus_…``."""

LineKey = NewType("LineKey", str)
"""Key of one line of a period's bill: ``sku``, ``sku~2026-10`` (late usage of another period) or ``adj:<id>`` (an
adjustment). What is carried to a month that has this line at another price gets that price's id: ``sku~2026-10~price_1``."""

REST_LINE = LineKey("rest")
"""The line that sums up all lines beyond an invoice's limit; a reserved SKU name."""


@dataclass(frozen=True, slots=True)
class UsageDelta:
    """A signed change of usage, as a metering service reports it.

    *quantity* is in the unit that the SKU's price counts, at most 15 digits before the point and 12
    after. *id* is the reporter's idempotency key: a repeated report counts once.
    """

    id: str
    customer: CustomerId
    sku: str
    quantity: Decimal
    occurred_at: datetime
    app: str | None = None
    region: str | None = None
    organization: str | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """A Stripe Price that counts one SKU (its ``lookup_key``); immutable at Stripe but for its labels.

    *unit_amount* is in minor units, up to 12 decimals. *description* is its product's name, *unit* the
    product's ``unit_label``. *billable*: Stripe accepts new invoice lines by it; False if it or its product
    is archived.
    """

    id: str
    sku: str
    currency: str
    unit_amount: Decimal
    description: str | None = None
    unit: str | None = None
    billable: bool = True


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """A calendar month in UTC, the unit of billing; ``str(period)`` is ``2026-11``."""

    year: int
    month: int

    @classmethod
    def containing(cls, moment: datetime) -> Self:
        """The period that contains *moment* (aware)."""
        utc = moment.astimezone(UTC)
        return cls(utc.year, utc.month)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the form of ``str(period)``; ValueError for anything else."""
        year, _, month = text.partition("-")
        if len(year) != 4 or len(month) != 2 or not 1 <= int(month) <= 12:  # noqa: PLR2004 the shape itself
            raise ValueError(f"{text!r} is not a billing period; write it as YYYY-MM")
        return cls(int(year), int(month))

    @property
    def start(self) -> datetime:
        """The first moment of the period, inclusive."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first moment after the period, exclusive."""
        return self.next().start

    def next(self) -> Self:
        """The following month."""
        return self._shifted(1)

    def previous(self) -> Self:
        """The month before."""
        return self._shifted(-1)

    def _shifted(self, months: int) -> Self:
        year, month = divmod(self.year * 12 + self.month - 1 + months, 12)
        return type(self)(year, month + 1)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"


ADJUSTMENT_PREFIX = "adj:"
"""Prefix of the line keys of adjustments; a reserved beginning of SKU names."""


def carried_line_key(sku: str, origin: Period) -> LineKey:
    """Key of the line that bills late usage of *origin* in a later period."""
    return LineKey(f"{sku}~{origin}")


def adjustment_line_key(adjustment_id: str) -> LineKey:
    """Key of the line of one adjustment."""
    return LineKey(f"{ADJUSTMENT_PREFIX}{adjustment_id}")
