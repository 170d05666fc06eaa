"""A period's invoice as Stripe shows it. Our metadata separates our lines from foreign ones."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Self

from billing.errors import UnreadableAnswer
from billing.invoicing import metadata_keys
from billing.invoicing.request_batch import PlannedLine, RequestBatch, RequestKind
from billing.invoicing.snapshot import StripeLine
from billing.usage import REST_LINE, LineKey

DRAFT = "draft"
VOID = "void"


@dataclass(frozen=True, slots=True)
class RemoteLine:
    """One line of an invoice; *key* is None for a foreign line.

    A line by price has Stripe's quantity, which a person may have edited. A line by bare amount (a credit,
    the rest, usage at an archived price) has quantity and price from our metadata. If a person turned a
    line by price into a bare amount, or edited that of usage, only its metadata still names the price.
    """

    key: LineKey | None
    line: StripeLine

    @classmethod
    def from_stripe(cls, body: Mapping[str, Any]) -> Self:
        """Return the line in *body*, a Stripe ``line_item``."""
        metadata = body.get("metadata") or {}
        key = LineKey(metadata[metadata_keys.LINE]) if metadata.get(metadata_keys.LINE) else None
        price, sent = _price_id(body), _parse_decimal(metadata.get(metadata_keys.QUANTITY))
        bare = price is None and metadata.get(metadata_keys.AMOUNT) == str(body["amount"])
        if key == REST_LINE or (sent is not None and (sent < 0 or bare)):
            price, quantity = metadata.get(metadata_keys.PRICE), sent
        else:
            quantity = _parse_decimal(body.get("quantity_decimal"))
        if quantity is None:
            quantity = Decimal(body.get("quantity") or 0)
        metadata_price = "" if price else metadata.get(metadata_keys.PRICE, "")
        amount = int(body["amount"])
        line = StripeLine(body["id"], quantity, price or "", amount, metadata_price, bare)
        return cls(key, line)


@dataclass(frozen=True, slots=True)
class RemoteInvoice:
    """An invoice with all of its lines, oldest first."""

    id: str
    status: str
    created: int
    metadata: Mapping[str, str]
    lines: tuple[RemoteLine, ...]

    @classmethod
    def from_stripe(
        cls,
        body: Mapping[str, Any],
        lines: Iterable[Mapping[str, Any]] | None = None,
    ) -> Self:
        """Return the invoice in *body*, or UnreadableAnswer.

        Pass *lines* if ``body`` embeds only the first page of them.
        """
        try:
            shown = body["lines"]["data"] if lines is None else lines
            return cls(
                id=body["id"],
                status=body["status"],
                created=int(body.get("created") or 0),
                metadata=body.get("metadata") or {},
                lines=tuple(RemoteLine.from_stripe(line) for line in shown),
            )
        except UnreadableAnswer.CAUSES as error:
            raise UnreadableAnswer("an invoice", error) from None

    def with_changes(self, batch: RequestBatch) -> Self:
        """Return this invoice as *batch*, which adds no line, changes it."""
        removed = {
            line["id"]
            for request in batch.requests
            if request.kind is RequestKind.REMOVE_LINES
            for line in request.params["lines"]
        }
        lines = [line for line in self.lines if line.line.id not in removed]
        return replace(self, lines=tuple(_as_planned(line, batch.expected_lines) for line in lines))

    def as_shown(self, body: Mapping[str, Any]) -> Self | None:
        """Return this invoice with the status of *body*, which embeds only some lines, if it has these lines.

        It does if the lines that *body* embeds are among them, and its sum is theirs; else None.
        """
        shown = self.from_stripe(body)
        amounts = sum(line.line.amount for line in self.lines)
        if body.get("subtotal") != amounts or not set(shown.lines) <= set(self.lines):
            return None
        return replace(shown, lines=self.lines)

    @property
    def is_draft(self) -> bool:
        """True if the invoice can still be edited."""
        return self.status == DRAFT

    @property
    def seq(self) -> int:
        """Number of the last flush that reached this invoice; 0 if none did."""
        text = self.metadata.get(metadata_keys.SEQ, "")
        return int(text) if text.isdecimal() else 0

    @property
    def version(self) -> str | None:
        """Ledger version of the last flush that reached this invoice."""
        return self.metadata.get(metadata_keys.VERSION)

    @property
    def own_lines(self) -> Sequence[tuple[LineKey, StripeLine]]:
        """Our lines in Stripe's order; a key that appears twice is a duplicated line."""
        return [(line.key, line.line) for line in self.lines if line.key is not None]

    @property
    def foreign_line_count(self) -> int:
        """Number of lines that are not ours."""
        return sum(line.key is None for line in self.lines)

    @property
    def lines_by_key(self) -> dict[LineKey, StripeLine]:
        """Our lines by key; of a duplicated line the oldest."""
        found: dict[LineKey, StripeLine] = {}
        for key, line in self.own_lines:
            found.setdefault(key, line)
        return found


def originals(invoices: Iterable[RemoteInvoice]) -> list[RemoteInvoice]:
    """Return *invoices* of one period, oldest first, without a person's copies of bills.

    A copy has the metadata of the bill, and no two invoices are changed by the same flush.
    """
    found: list[RemoteInvoice] = []
    billed = set[tuple[int, str]]()
    for invoice in sorted(invoices, key=lambda invoice: (invoice.created, invoice.id)):
        flush = (invoice.seq, invoice.version or "")
        if flush in billed:
            continue
        found.append(invoice)
        if invoice.version and not invoice.is_draft:
            billed.add(flush)
    return found


def has_all_lines(body: Mapping[str, Any]) -> bool:
    """Return True if *body*, an invoice, embeds all of its lines (Stripe embeds the first page)."""
    return not (body.get("lines") or {}).get("has_more", True)


def _as_planned(line: RemoteLine, planned: Mapping[LineKey, PlannedLine]) -> RemoteLine:
    if line.key is None or line.key not in planned:
        return line
    plan = planned[line.key]
    changed = replace(line.line, quantity=plan.quantity, price=plan.price, amount=plan.amount)
    return replace(line, line=changed)


def _price_id(body: Mapping[str, Any]) -> str | None:
    details = (body.get("pricing") or {}).get("price_details") or {}
    price = details.get("price")
    return price["id"] if isinstance(price, dict) else price


def _parse_decimal(text: object) -> Decimal | None:
    try:
        return None if text is None else Decimal(str(text))
    except InvalidOperation:
        return None
