"""A Stripe account: customers, prices, events, and invoices that end, beside the drafts of the smaller model."""

from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from typing import Any

from tests.simulation.stripe_model import StripeModel
from tests.simulation.wire import DAY_MS, HOUR_MS, Refusal, Reply, Request, copied, page_of
from tests.simulation.year.catalog import Catalog

EVENT_DAYS = 30
Record = dict[str, Any]


class Account(StripeModel):
    """One account; every change is an event, ours quote their idempotency key."""

    def __init__(self, rng: Random, now: Callable[[], int], page: int) -> None:
        self.catalog = Catalog(self.emit)
        super().__init__(rng, now, self.catalog.units)
        self.customers: dict[str, Record] = {}
        self.events: list[Record] = []
        self.pending_items: list[Record] = []
        self._page = page
        self._key: str | None = None

    # Reading

    def get(self, path: str, params: Mapping[str, Any]) -> Record:
        """Answer a read; a page has at most as many items as this account allows."""
        kind, *rest = path.split("/")[2:]
        if kind == "invoices":
            return super().get(path, params)
        self.calls += 1
        if kind == "events":
            return self._event(rest[0]) if rest else self._list_events(params)
        if kind == "prices":
            return self.catalog.get(rest[0]) if rest else self.catalog.list(params)
        if kind == "customers" and rest[0] in self.customers:
            return copied(self.customers[rest[0]])
        raise Refusal(404, "resource_missing")

    def _event(self, event: str) -> Record:
        found = next((listed for listed in self._listed() if listed["id"] == event), None)
        if found is None:
            raise Refusal(404, "resource_missing")
        return found

    def _listed(self) -> list[Record]:
        since = (self.now() - EVENT_DAYS * DAY_MS) // 1000
        return [event for event in self.events if event["created"] >= since]

    def _list_events(self, params: Mapping[str, Any]) -> Record:
        """List events, newest first; ``ending_before`` asks for the page of the next newer ones."""
        events = self._listed()
        for cursor in (params.get("ending_before"), params.get("starting_after")):
            if cursor is not None:
                self._event(cursor)
        since = params.get("created", {}).get("gte", 0)
        found = [event for event in events if event["created"] >= since]
        if params.get("delivery_success") == "false":
            found = [event for event in found if not event["delivered"]]
        limit = min(int(params.get("limit", 10)), self._page)
        if (after := params.get("ending_before")) is not None:
            newer = [event for event in found if event["id"] > after]
            return {"data": newer[:limit][::-1], "has_more": len(newer) > limit}
        older = [event for event in found if event["id"] < params.get("starting_after", "evt_z")]
        return page_of(older[::-1], {"limit": limit})

    def shown(self, invoice: Mapping[str, Any]) -> Record:
        """The invoice as a response has it."""
        total = sum(line["amount"] for line in invoice["lines"])
        sums = dict.fromkeys(("subtotal", "total", "amount_due"), total)
        times = {"period_start": invoice["created"], "period_end": invoice["created"]}
        return {"number": None, "amount_paid": 0, **sums, **times, **super().shown(invoice)}

    def shown_lines(self, invoice: Mapping[str, Any]) -> list[Record]:
        """All lines of the invoice as a response has them."""
        span = {"start": invoice["created"], "end": invoice["created"]}
        fixed = {"description": None, "currency": invoice["currency"], "period": span}
        return [{**fixed, **line} for line in super().shown_lines(invoice)]

    # Changes that requests make

    def _receive(self, request: Request, fault: Any) -> Reply:
        self._key = request.key
        try:
            return super()._receive(request, fault)
        finally:
            self._key = None

    def _effect(self, request: Request, *, partial: bool) -> Record:
        parts = request.path.split("/")[3:]
        if len(parts) == 1 and request.method == "POST":
            invoice = self._invoice(parts[0])
            self._must_be_draft(invoice)
            invoice["auto_advance"] = request.params["auto_advance"]
            return self._changed("updated", invoice)
        deleted = self.invoices.get(parts[0]) if request.method == "DELETE" else None
        answer = super()._effect(request, partial=partial)
        if deleted is not None:
            self.emit("invoice.deleted", deleted)
        elif parts[1:] != ["finalize"]:
            verb = "updated" if parts else "created"
            self.emit(f"invoice.{verb}", self.invoices[answer["id"]])
        return answer

    def _create(self, params: Mapping[str, Any]) -> Record:
        customer = self.customers.get(params["customer"], {"deleted": True})
        if customer.get("deleted"):
            raise Refusal(400, "resource_missing", "customer")
        invoice = super()._create(params)
        invoice["auto_advance"] = params.get("auto_advance", False)
        invoice["by_us"] = True
        customer["currency"] = customer["currency"] or params["currency"]
        if params.get("pending_invoice_items_behavior") == "include":
            mine = [item for item in self.pending_items if item["customer"] == params["customer"]]
            self.pending_items = [item for item in self.pending_items if item not in mine]
            invoice["lines"] += [item["line"] for item in mine]
        return invoice

    def _figures(self, sent: Mapping[str, Any], line: Mapping[str, Any] | None = None) -> Record:
        self.archived = self.catalog.archived()
        words = {"description": sent["description"]} if "description" in sent else {}
        return {**super()._figures(sent, line), **words}

    def priced(self, price: str, quantity: str) -> Record:
        """The figures of a line by price: recurring ones are refused, packages are divided."""
        record = self.catalog.prices[price]
        if record["type"] == "recurring":
            raise Refusal(400, "price_type_mismatch")
        figures = super().priced(price, quantity)
        if package := record["transform_quantity"]:
            packages = -(-Decimal(quantity) // package["divide_by"])
            exact = packages * self.units[price]
            figures["amount"] = int(exact.to_integral_value(ROUND_HALF_UP))
        return figures

    # Changes that people make, or that Stripe makes by itself

    def add_customer(self, customer: str, currency: str | None) -> None:
        """Create a customer; without invoices it has no currency."""
        self.customers[customer] = {"id": customer, "object": "customer", "currency": currency}

    def delete_customer(self, customer: str) -> None:
        """Delete a customer; drafts stay, as the sandbox guesses."""
        self.customers[customer] = {"id": customer, "object": "customer", "deleted": True}
        self.emit("customer.deleted", self.customers[customer])

    def finalize(self, invoice: Record) -> None:
        """Draft to open; a revision voids what it revises."""
        super().finalize(invoice)
        self._changed("finalized", invoice)
        source = invoice.get("from_invoice")
        if source is not None:
            original = self.invoices[source["invoice"]]
            original["latest_revision"] = invoice["id"]
            self.end(original, "void")

    def end(self, invoice: Record, status: str) -> None:
        """Void an invoice, or mark it as paid."""
        invoice["status"] = status
        self._changed("voided" if status == "void" else status, invoice)

    def delete_draft(self, invoice: Record) -> None:
        """Delete a draft."""
        del self.invoices[invoice["id"]]
        self.emit("invoice.deleted", invoice)

    def copy_invoice(self, invoice: Record, *, metadata: bool, revision: bool) -> Record:
        """Duplicate an invoice as a draft, or begin a revision of it."""
        clone = copied(invoice)
        lines = [{**line, "id": self._id("il")} for line in clone["lines"]]
        if not metadata:
            lines = [{**line, "metadata": {}} for line in lines]
        clone |= {"id": self._id("in"), "status": "draft", "lines": lines, "by_us": False}
        clone |= {"created": self.now() // 1000, "latest_revision": None}
        clone["metadata"] = clone["metadata"] if metadata else {}
        source = {"action": "revision", "invoice": invoice["id"]} if revision else None
        clone["from_invoice"] = source
        self.invoices[clone["id"]] = clone
        self._changed("created", clone)
        return clone

    def set_timer(self, invoice: Record) -> None:
        """Have Stripe finalize a draft in an hour."""
        invoice |= {"auto_advance": True, "timer": self.now() + HOUR_MS}
        self._changed("updated", invoice)

    def run_timers(self) -> list[str]:
        """Finalize the drafts whose hour is over; return them."""
        timed = [invoice for invoice in self.invoices.values() if invoice.get("auto_advance")]
        over = [
            invoice
            for invoice in timed
            if invoice["status"] == "draft" and invoice.get("timer", self.now() + 1) <= self.now()
        ]
        for invoice in over:
            if invoice["lines"]:
                self.finalize(invoice)
        return [invoice["id"] for invoice in over]

    def edited(self, invoice: Record) -> None:
        """Announce that a person has changed a draft."""
        self._changed("updated", invoice)

    def _changed(self, verb: str, invoice: Record) -> Record:
        self.emit(f"invoice.{verb}", invoice)
        return self.shown(invoice)

    def emit(self, type_: str, subject: Mapping[str, Any]) -> None:
        """Record an event about *subject*; nobody has got it yet."""
        names = ("id", "object", "customer", "metadata", "from_invoice")
        body = {name: subject[name] for name in names if name in subject}
        self.events.append(
            {
                "id": f"evt_{len(self.events):07}",
                "object": "event",
                "type": type_,
                "created": self.now() // 1000,
                "delivered": False,
                "data": {"object": copied(body)},
                "request": {"idempotency_key": self._key},
            }
        )
