"""Any operations in any order: totals are right, transitions are valid, every change has an event."""

from fractions import Fraction
from math import floor
from operator import itemgetter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sandbox.admin import Sandbox
from sandbox.errors import StripeError
from sandbox.settings import Settings

TRANSITIONS = {
    ("draft", "open"),
    ("draft", "paid"),
    ("open", "paid"),
    ("open", "void"),
    ("open", "uncollectible"),
    ("uncollectible", "paid"),
    ("uncollectible", "void"),
}
INVOICE = "POST /v1/invoices/{invoice}"
amounts = st.integers(-2000, 5000)
quantities = st.decimals(0, 10**6, places=12).map("{:f}".format)
unit_amounts = st.decimals(0, 100, places=12).map("{:f}".format)
indexes = st.integers(0, 30)


class AnyOperations(RuleBasedStateMachine):
    """Calls operations as Stripe's clients and Dashboard would, mostly on one customer."""

    def __init__(self) -> None:
        super().__init__()
        self.sandbox = Sandbox(Settings())
        self.customer = self.call("POST /v1/customers", {"payment_method": "pm_card_visa"})["id"]
        self.product = self.call("POST /v1/products", {"name": "P"})["id"]
        self.invoices: list[str] = []
        self.prices: list[str] = []
        self.statuses: dict[str, str] = {}
        self.priced: dict[str, tuple[str, str]] = {}

    def call(self, endpoint: str, params: dict[str, Any], *ids: str) -> Any:
        """Run one operation; an error must change nothing."""
        before = self.snapshot()
        try:
            return self.sandbox.perform(endpoint, params, *ids)
        except StripeError:
            assert self.snapshot() == before
            return None

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Return all records by kind and id."""
        return {kind: dict(rows) for kind, rows in self.sandbox.account.rows.items() if rows}

    def pick(self, index: int) -> str:
        """Return one of the invoices."""
        return self.invoices[index % len(self.invoices)] if self.invoices else "in_none"

    def line(self, invoice: str, index: int) -> str:
        """Return one of an invoice's lines."""
        record = self.sandbox.account.rows["invoices"].get(invoice, {"held": ()})
        lines = record["held"]
        return str(lines[index % len(lines)]["line"]) if lines else "il_none"

    @rule(pending=st.booleans())
    def create(self, pending: bool) -> None:
        """Create a draft."""
        behavior = "include" if pending else "exclude"
        params = {"customer": self.customer, "pending_invoice_items_behavior": behavior}
        self.invoices.append(self.call("POST /v1/invoices", params)["id"])

    @rule(unit=unit_amounts)
    def price(self, unit: str) -> None:
        """Create a price."""
        params = {"currency": "usd", "product": self.product, "unit_amount_decimal": unit}
        self.prices.append(self.call("POST /v1/prices", params)["id"])

    @rule(index=indexes, amounts=st.lists(amounts, min_size=1, max_size=4), bad=st.booleans())
    def add_amounts(self, index: int, amounts: list[int], bad: bool) -> None:
        """Add lines of plain amounts, sometimes with an invalid one."""
        lines: list[dict[str, Any]] = [{"amount": amount} for amount in amounts]
        if bad:
            lines.append({"pricing": {"price": "price_none"}})
        self.call(f"{INVOICE}/add_lines", {"lines": lines}, self.pick(index))

    @rule(index=indexes, which=indexes, quantity=quantities)
    def add_usage(self, index: int, which: int, quantity: str) -> None:
        """Add a line with a price."""
        if self.prices:
            price = self.prices[which % len(self.prices)]
            line = {"pricing": {"price": price}, "quantity_decimal": quantity}
            self.call(f"{INVOICE}/add_lines", {"lines": [line]}, self.pick(index))

    @rule(index=indexes, which=indexes, quantity=quantities)
    def update(self, index: int, which: int, quantity: str) -> None:
        """Set a line's quantity."""
        invoice = self.pick(index)
        line = {"id": self.line(invoice, which), "quantity_decimal": quantity}
        self.call(f"{INVOICE}/update_lines", {"lines": [line]}, invoice)

    @rule(index=indexes, which=indexes, behavior=st.sampled_from(["delete", "unassign"]))
    def remove(self, index: int, which: int, behavior: str) -> None:
        """Remove a line."""
        invoice = self.pick(index)
        line = {"id": self.line(invoice, which), "behavior": behavior}
        self.call(f"{INVOICE}/remove_lines", {"lines": [line]}, invoice)

    @rule(index=indexes, verb=st.sampled_from(["finalize", "void", "mark_uncollectible", "send"]))
    def step(self, index: int, verb: str) -> None:
        """Apply a transition."""
        self.call(f"{INVOICE}/{verb}", {}, self.pick(index))

    @rule(index=indexes)
    def pay(self, index: int) -> None:
        """Pay an invoice."""
        self.call(f"{INVOICE}/pay", {"payment_method": "pm_card_visa"}, self.pick(index))

    @rule(index=indexes)
    def delete(self, index: int) -> None:
        """Delete an invoice if it is a draft."""
        self.call("DELETE /v1/invoices/{invoice}", {}, self.pick(index))

    @rule(amount=amounts)
    def adjust(self, amount: int) -> None:
        """Adjust the customer's balance."""
        params = {"amount": amount, "currency": "usd"}
        self.call("POST /v1/customers/{customer}/balance_transactions", params, self.customer)

    @rule(index=indexes, amount=st.integers(1, 5000))
    def credit(self, index: int, amount: int) -> None:
        """Create a credit note."""
        self.call("POST /v1/credit_notes", {"invoice": self.pick(index), "amount": amount})

    @invariant()
    def totals_are_the_sum_of_lines_each_rounded_on_its_own(self) -> None:
        """An invoice's total is the sum of its lines."""
        for record in self.sandbox.account.rows["invoices"].values():
            shown = self.sandbox.perform("GET /v1/invoices/{invoice}", {}, record["id"])
            assert shown["total"] == sum(_exact(line) for line in record["held"])
            if shown["status"] == "paid":
                assert shown["amount_remaining"] == 0

    @invariant()
    def lines_equal_their_items(self) -> None:
        """An invoice's lines are its items, and no other item is on the invoice."""
        state = self.sandbox.account
        for invoice, record in state.rows["invoices"].items():
            items = [
                item for item in state.rows["invoiceitems"].values() if item["invoice"] == invoice
            ]
            assert sorted(record["held"], key=itemgetter("id")) == sorted(
                items, key=itemgetter("id")
            )

    @invariant()
    def statuses_follow_valid_transitions(self) -> None:
        """Each invoice has its old status or one that a transition allows."""
        rows = self.sandbox.account.rows["invoices"]
        for invoice, record in rows.items():
            old = self.statuses.get(invoice, "draft")
            assert old == record["status"] or (old, record["status"]) in TRANSITIONS
            self.statuses[invoice] = record["status"]
        for invoice in self.statuses.keys() - rows.keys():
            assert self.statuses[invoice] == "draft"

    @invariant()
    def the_last_event_shows_the_current_record(self) -> None:
        """A change without an event would leave every cache stale."""
        state = self.sandbox.account
        last = {e["after"]["id"]: e for e in state.rows["events"].values()}
        for kind in ("invoices", "prices", "products", "credit_notes"):
            for object_id, record in state.rows[kind].items():
                assert last[object_id]["after"] == record

    @invariant()
    def the_balance_is_the_sum_of_its_transactions(self) -> None:
        """Every change of the balance is recorded."""
        state = self.sandbox.account
        entries = state.rows["balance_transactions"].values()
        balance = state.rows["customers"][self.customer].get("balance", 0)
        assert balance == sum(entry["amount"] for entry in entries)


def _exact(line: dict[str, Any]) -> int:
    if line["unit_amount_decimal"] is None:
        return int(line["amount"])
    exact = Fraction(line["quantity_decimal"]) * Fraction(line["unit_amount_decimal"])
    return floor(exact + Fraction(1, 2))


TestAnyOperations = AnyOperations.TestCase
TestAnyOperations.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
