"""A model of Stripe as a flush sees it; ``wire`` has the ways in which a request can fail.

Bulk calls are atomic unless a fault says otherwise; the first outcome of an idempotency key is stored
and replayed for 24 hours; invoices can only be edited while they are drafts.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from typing import Any

from billing.invoicing import diff
from tests.simulation.wire import (
    BEFORE_EXECUTION,
    DAY_MS,
    LATEST_DELIVERY_MS,
    Fault,
    Refusal,
    Reply,
    Request,
    Stored,
    copied,
    flat,
    page_of,
)

INLINE_LINES = 10


class StripeModel:
    """One account. *now* is the virtual time in ms; *units* are prices in cents by price id."""

    def __init__(self, rng: Random, now: Callable[[], int], units: Mapping[str, Decimal]) -> None:
        self.rng = rng
        self.now = now
        self.units = units
        self.archived: set[str] = set()
        self.invoices: dict[str, dict[str, Any]] = {}
        self.stored: dict[str, Stored] = {}
        self.in_flight: list[tuple[int, Request]] = []
        self.faults: dict[str, int] = {}
        self.finalized_by_us: set[str] = set()
        self.calls = 0
        self._ids = 0

    # The wire

    def post(self, request: Request, fault: Fault | None) -> Reply:
        """Return the response that the caller of *request* sees under *fault*."""
        self.calls += 1
        if fault is not None:
            self.faults[fault] = self.faults.get(fault, 0) + 1
        if fault in BEFORE_EXECUTION:
            status, code = BEFORE_EXECUTION[fault]
            return Reply(status, {"error": {"code": code}})
        if fault is Fault.LATE:
            delay = self.rng.randrange(1, LATEST_DELIVERY_MS)
            self.in_flight.append((self.now() + delay, request))
            return Reply(0)
        reply = self._receive(request, fault)
        return Reply(0) if fault is Fault.LOST_REPLY else reply

    def next_arrival(self) -> int | None:
        """Return the arrival time (ms) of the next late request."""
        return min((at for at, _ in self.in_flight), default=None)

    def deliver_late(self) -> set[str]:
        """Execute late requests that are due; return the invoices that they changed."""
        due = [request for request in self.in_flight if request[0] <= self.now()]
        self.in_flight = [request for request in self.in_flight if request[0] > self.now()]
        for _, request in due:
            self._receive(request, None)
        return {request.path.split("/")[3] for _, request in due if "/in_" in request.path}

    def undelivered(self, invoice: str) -> list[Request]:
        """Return late requests for *invoice* that would still have an effect."""
        coming = [request for _, request in self.in_flight if f"/{invoice}/" in request.path]
        return [request for request in coming if request.key not in self.stored]

    def get(self, path: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a read; Refusal if the object does not exist."""
        self.calls += 1
        parts = path.split("/")[3:]
        if not parts:
            found = [
                invoice
                for invoice in self.invoices.values()
                if invoice["customer"] == params["customer"]
            ]
            newest = sorted(
                found, key=lambda invoice: (invoice["created"], invoice["id"]), reverse=True
            )
            return page_of([self.shown(invoice) for invoice in newest], params)
        invoice = self._invoice(parts[0])
        if parts[1:] == ["lines"]:
            return page_of(self.shown_lines(invoice), params)
        return self.shown(invoice)

    def _receive(self, request: Request, fault: Fault | None) -> Reply:
        if request.method == "DELETE":
            return self._executed(request, fault)
        body = repr((request.path, sorted(flat(request.params))))
        stored = self.stored.get(request.key)
        if stored is not None and self.now() - stored.at < DAY_MS:
            if stored.body != body:
                return Reply(400, {"error": {"code": "idempotency_error"}})
            return Reply(stored.reply.status, copied(stored.reply.body), replayed=True)
        reply = self._executed(request, fault)
        self.stored[request.key] = Stored(self.now(), body, replace(reply, body=copied(reply.body)))
        return reply

    def _executed(self, request: Request, fault: Fault | None) -> Reply:
        if fault is Fault.ERROR_BEFORE:
            return Reply(500)
        try:
            answer = self._effect(request, partial=fault is Fault.ERROR_PARTIAL)
        except Refusal as refusal:
            return Reply(refusal.status, {"error": {"code": refusal.code, "param": refusal.param}})
        broken = fault in (Fault.ERROR_AFTER, Fault.ERROR_PARTIAL)
        return Reply(500) if broken else Reply(200, answer)

    # The effects

    def _effect(self, request: Request, *, partial: bool) -> dict[str, Any]:
        parts = request.path.split("/")[3:]
        if not parts:
            return self.shown(self._create(request.params))
        invoice = self._invoice(parts[0])
        if request.method == "DELETE":
            self._must_be_draft(invoice)
            del self.invoices[invoice["id"]]
            return {"id": invoice["id"], "deleted": True}
        self._must_be_draft(invoice)
        if parts[1] == "finalize":
            self.finalized_by_us.add(invoice["id"])
            self.finalize(invoice)
        else:
            self._bulk(invoice, parts[1], request.params, partial=partial)
        return self.shown(invoice)

    def _create(self, params: Mapping[str, Any]) -> dict[str, Any]:
        invoice = {
            "id": self._id("in"),
            "object": "invoice",
            "customer": params["customer"],
            "currency": params["currency"],
            "status": "draft",
            "created": self.now() // 1000,
            "metadata": dict(params["metadata"]),
            "lines": [],
        }
        self.invoices[invoice["id"]] = invoice
        return invoice

    def _bulk(
        self,
        invoice: dict[str, Any],
        verb: str,
        params: Mapping[str, Any],
        *,
        partial: bool,
    ) -> None:
        lines, sent = copied(invoice["lines"]), list(params["lines"])
        if partial:
            sent = sent[: self.rng.randrange(len(sent))]
        for item in sent:
            if verb == "add_lines":
                lines.append(
                    {
                        "id": self._id("il"),
                        **self._figures(item),
                        "description": item["description"],
                    }
                )
            else:
                at = next((n for n, line in enumerate(lines) if line["id"] == item["id"]), None)
                if at is None:
                    raise Refusal(404, "resource_missing")
                if verb == "remove_lines":
                    del lines[at]
                else:
                    lines[at] = {**lines[at], **self._figures(item, lines[at])}
        if len(lines) > max(diff.MAX_LINES, len(invoice["lines"])):
            raise Refusal(400, "too_many_lines")
        invoice["lines"] = lines
        if not partial:
            invoice["metadata"] = {**invoice["metadata"], **params["invoice_metadata"]}

    def _figures(
        self, sent: Mapping[str, Any], line: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        metadata = dict(sent["metadata"])
        if "amount" in sent:
            return {
                "amount": sent["amount"],
                "quantity_decimal": "1",
                "pricing": None,
                "metadata": metadata,
            }
        named, quantity = sent.get("pricing"), sent["quantity_decimal"]
        if named and named["price"] in self.archived:
            raise Refusal(400, "price_inactive")
        pricing = (line or {}).get("pricing") or {}
        price = named["price"] if named else pricing.get("price_details", {}).get("price")
        if price is None:
            raise Refusal(400, "no_price")
        if Decimal(quantity) < 0:
            raise Refusal(400, "invalid_quantity")
        return {**self.priced(price, quantity), "metadata": metadata}

    def priced(self, price: str, quantity: str) -> dict[str, Any]:
        """The figures of a line by price."""
        exact = Decimal(quantity) * self.units[price]
        return {
            "pricing": {"price_details": {"price": price}},
            "quantity_decimal": quantity,
            "amount": int(exact.to_integral_value(ROUND_HALF_UP)),
        }

    def finalize(self, invoice: dict[str, Any]) -> None:
        """Draft to open."""
        if not invoice["lines"]:
            raise Refusal(400, "invoice_no_customer_line_items")
        invoice["status"] = "open"

    def foreign_line(self, amount: int) -> dict[str, Any]:
        """A line as a person would add it."""
        return {
            "id": self._id("il"),
            "amount": amount,
            "quantity_decimal": "1",
            "pricing": None,
            "metadata": {},
        }

    def shown(self, invoice: Mapping[str, Any]) -> dict[str, Any]:
        """The invoice as a response has it: with its first lines."""
        lines = self.shown_lines(invoice)
        page = {"data": lines[:INLINE_LINES], "has_more": len(lines) > INLINE_LINES}
        subtotal = sum(line["amount"] for line in lines)
        return {**copied(dict(invoice)), "lines": page, "subtotal": subtotal}

    def shown_lines(self, invoice: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All lines of the invoice as a response has them."""
        lines: list[dict[str, Any]] = copied(invoice["lines"])
        return lines

    def _invoice(self, invoice: str) -> dict[str, Any]:
        if invoice not in self.invoices:
            raise Refusal(404, "resource_missing")
        return self.invoices[invoice]

    def _must_be_draft(self, invoice: Mapping[str, Any]) -> None:
        if invoice["status"] != "draft":
            raise Refusal(400, "invoice_not_editable")

    def _id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}_{self._ids:06}"
