"""What Stripe shows of a period's invoice: our lines, told from other people's by our ``marks``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Self

from billing.invoicing import metadata_keys
from billing.invoicing.snapshot import StripeLine
from billing.usage import REST, LineKey

DRAFT = "draft"
VOID = "void"


@dataclass(frozen=True, slots=True)
class SeenLine:
    """One line of an invoice; *key* is None for a line that somebody else put there.

    *standing* is the line as it counts now. A line by price has Stripe's own quantity, which a person
    may have edited; a line by bare amount (a credit, the rest) has quantity and price from our
    metadata. A line by price that a person turned into a bare amount has no price but the marked one.
    """

    key: LineKey | None
    standing: StripeLine

    @classmethod
    def from_stripe(cls, body: Mapping[str, Any]) -> Self:
        """The line in *body*, a Stripe ``line_item``."""
        metadata = body.get("metadata") or {}
        key = LineKey(metadata[metadata_keys.LINE]) if metadata.get(metadata_keys.LINE) else None
        price, told = _price_of(body), _decimal(metadata.get(metadata_keys.QUANTITY))
        if key == REST or (told is not None and told < 0):
            price, quantity = metadata.get(metadata_keys.PRICE), told
        else:
            quantity = _decimal(body.get("quantity_decimal"))
        if quantity is None:
            quantity = Decimal(body.get("quantity") or 0)
        marked = "" if price else metadata.get(metadata_keys.PRICE, "")
        line = StripeLine(body["id"], quantity, price or "", int(body["amount"]), marked)
        return cls(key, line)


@dataclass(frozen=True, slots=True)
class SeenInvoice:
    """An invoice of a period with all of its lines, oldest first, as Stripe just showed it."""

    id: str
    status: str
    created: int
    metadata: Mapping[str, str]
    lines: tuple[SeenLine, ...]

    @classmethod
    def from_stripe(
        cls,
        body: Mapping[str, Any],
        lines: Iterable[Mapping[str, Any]] | None = None,
    ) -> Self:
        """The invoice in *body*; *lines* when ``body`` embeds only the first page of them."""
        shown = body["lines"]["data"] if lines is None else lines
        return cls(
            id=body["id"],
            status=body["status"],
            created=int(body.get("created") or 0),
            metadata=body.get("metadata") or {},
            lines=tuple(SeenLine.from_stripe(line) for line in shown),
        )

    @property
    def is_draft(self) -> bool:
        """Whether the invoice can still be edited."""
        return self.status == DRAFT

    @property
    def seq(self) -> int:
        """The number of the last flush that reached this invoice; 0 when none did."""
        text = self.metadata.get(metadata_keys.SEQ, "")
        return int(text) if text.isdecimal() else 0

    @property
    def version(self) -> str | None:
        """The ledger version that the last flush brought here."""
        return self.metadata.get(metadata_keys.VERSION)

    @property
    def ours(self) -> Sequence[tuple[LineKey, StripeLine]]:
        """Our lines in Stripe's order; a key that appears twice is a line that was doubled."""
        return [(line.key, line.standing) for line in self.lines if line.key is not None]

    @property
    def foreign(self) -> int:
        """How many lines somebody else put here."""
        return sum(line.key is None for line in self.lines)

    @property
    def by_key(self) -> dict[LineKey, StripeLine]:
        """Our lines by key; of a doubled one the oldest."""
        found: dict[LineKey, StripeLine] = {}
        for key, line in self.ours:
            found.setdefault(key, line)
        return found


def lines_are_complete(body: Mapping[str, Any]) -> bool:
    """Whether *body*, an invoice, embeds all of its lines (Stripe embeds the first page)."""
    return not body["lines"].get("has_more")


def _price_of(body: Mapping[str, Any]) -> str | None:
    details = (body.get("pricing") or {}).get("price_details") or {}
    price = details.get("price")
    return price["id"] if isinstance(price, dict) else price


def _decimal(text: object) -> Decimal | None:
    try:
        return None if text is None else Decimal(str(text))
    except InvalidOperation:
        return None
