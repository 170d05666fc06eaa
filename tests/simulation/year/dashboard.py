"""People in Stripe's Dashboard, who act between any two steps of the gateway's."""

from typing import TYPE_CHECKING, Any

from tests.simulation.year.account import Account, Record

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld


class Dashboard:
    """What people do to invoices, items and customers."""

    def __init__(self, world: "YearWorld") -> None:
        self._world = world
        self._account: Account = world.stripe

    def edit_draft(self) -> None:
        """Change a draft of the gateway's."""
        drafts = self._invoices("draft")
        if not drafts:
            return
        draft = self._world.rng.choice(drafts)
        deeds = [self._retype, self._retype, self._drop, self._add, self._add, self._delete]
        deeds += [self._finalize, self._set_timer]
        self._world.rng.choice(deeds)(draft)

    def end_invoice(self) -> None:
        """Mark an open invoice as paid, now and then void it."""
        if found := self._invoices("open"):
            status = "void" if self._world.rng.random() < 0.4 else "paid"
            self._end(self._world.rng.choice(found), status)

    def void(self) -> None:
        """Void an open invoice."""
        if found := self._invoices("open"):
            self._end(self._world.rng.choice(found), "void")

    def add_pending_item(self) -> None:
        """Leave an item for the customer's next invoice; usage bills do not take it."""
        world = self._world
        customer = world.rng.choice(world.customers)
        item = {"customer": customer, "line": self._account.foreign_line(777)}
        self._account.pending_items.append(item)
        world.oracle.pending_items += 1
        self._did("pending item", customer)

    def revise(self) -> None:
        """Begin a revision of an open invoice, change it, and finalize or drop it."""
        world = self._world
        revisions = [
            invoice
            for invoice in self._account.invoices.values()
            if invoice.get("from_invoice") and invoice["status"] in ("draft", "open")
        ]
        if revisions and world.rng.random() < 0.6:
            revision = world.rng.choice(revisions)
            if revision["status"] == "open":
                self._end(revision, "void")
            elif world.rng.random() < 0.3:
                world.oracle.unregister_foreign_lines(revision["id"])
                self._account.delete_draft(revision)
            else:
                self._finalize_revision(revision)
        elif found := self._invoices("open"):
            metadata = world.rng.random() < 0.5
            original = world.rng.choice(found)
            copied = self._account.copy_invoice(original, metadata=metadata, revision=True)
            self._change_copy(copied)
            self._did("revision", copied["id"])

    def duplicate(self) -> None:
        """Copy a bill whose month is sealed, with or without its metadata."""
        world = self._world
        if found := self._sealed_bills():
            metadata = world.rng.random() < 0.5
            bill = world.rng.choice(found)
            copied = self._account.copy_invoice(bill, metadata=metadata, revision=False)
            world.oracle.duplicates.add(copied["id"])
            self._change_copy(copied)
            self._did("duplicate", copied["id"])

    def delete_customer(self) -> None:
        """Delete a customer, one at most, who may have usage that is on no invoice."""
        world = self._world
        customer = world.customers[-1]
        if not self._account.customers[customer].get("deleted"):
            self._account.delete_customer(customer)
            self._did("customer deleted", customer)

    def change_price(self) -> None:
        """Change a price, archive it or its product, or activate them again."""
        deed = self._account.catalog.change(self._world.rng)
        self._world.counts["repriced"] += 1
        self._did(f"price: {deed.split()[0]}", deed)

    def _sealed_bills(self) -> list[Record]:
        oracle = self._world.oracle
        return [bill for bill in self._invoices("open", "paid") if oracle.is_sealed(bill)]

    def _change_copy(self, copied: Record) -> None:
        line = self._account.foreign_line(self._world.rng.randrange(-500, 500))
        copied["lines"].append(line)
        self._world.oracle.protect(copied)
        self._account.edited(copied)

    def _finalize_revision(self, revision: Record) -> None:
        original = self._account.invoices[revision["from_invoice"]["invoice"]]
        if original["status"] == "open":
            self._did("revision finalized", revision["id"])
            self._account.finalize(revision)

    def _end(self, invoice: Record, status: str) -> None:
        self._did(status, invoice["id"])
        self._account.end(invoice, status)
        if status == "void":
            self._world.oracle.record_void(invoice)

    def _retype(self, draft: Record) -> None:
        """Type another quantity or amount over one of our lines."""
        if line := self._our_line(draft):
            rng = self._world.rng
            if line["pricing"] is None or rng.random() < 0.4:
                typed = {"amount": rng.randrange(-400, 400), "pricing": None}
                line.update(typed, quantity_decimal="1")
            else:
                price = line["pricing"]["price_details"]["price"]
                line.update(self._account.priced(price, str(rng.randrange(0, 9, 2))))
            self._edited("line retyped", draft)

    def _drop(self, draft: Record) -> None:
        if line := self._our_line(draft):
            draft["lines"].remove(line)
            self._edited("line dropped", draft)

    def _add(self, draft: Record) -> None:
        line = self._account.foreign_line(self._world.rng.randrange(-500, 500))
        draft["lines"].append(line)
        self._world.oracle.record_foreign_line(draft["id"], line)
        self._edited("line added", draft)

    def _delete(self, draft: Record) -> None:
        self._world.oracle.unregister_foreign_lines(draft["id"])
        self._account.delete_draft(draft)
        self._edited("draft deleted", draft)

    def _finalize(self, draft: Record) -> None:
        if draft["lines"]:
            self._edited("finalized", draft)
            self._account.finalize(draft)

    def _set_timer(self, draft: Record) -> None:
        self._edited("timer set", draft)
        self._account.set_timer(draft)

    def _edited(self, deed: str, draft: Record) -> None:
        self._did(deed, draft["id"])
        self._world.counts["repriced"] += deed == "line retyped"
        self._world.oracle.record_edit(draft)
        if draft["id"] in self._account.invoices:
            self._account.edited(draft)

    def _our_line(self, draft: Record) -> Any:
        ours = [line for line in draft["lines"] if line["metadata"].get("gw_line")]
        return self._world.rng.choice(ours) if ours else None

    def _invoices(self, *statuses: str) -> list[Record]:
        """The gateway's own invoices of some status."""
        return [
            invoice
            for invoice in self._account.invoices.values()
            if invoice["status"] in statuses and self._world.oracle.is_ours(invoice)
        ]

    def _did(self, deed: str, subject: str) -> None:
        self._world.note(f"dashboard: {deed} {subject}")
        self._world.counts[f"dashboard: {deed}"] += 1
