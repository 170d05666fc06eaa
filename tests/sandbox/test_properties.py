"""Whatever is done in whatever order: sums hold, states follow the arrows, nothing changes in silence."""

from fractions import Fraction
from math import floor
from operator import itemgetter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sandbox.admin import World
from sandbox.errors import StripeError
from sandbox.faults import Settings

ARROWS = {
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
places = st.integers(0, 30)


class AnyOrder(RuleBasedStateMachine):
    """Calls operations as Stripe's clients and Dashboard would, mostly on one customer."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Settings())
        self.customer = self.call("POST /v1/customers", {"payment_method": "pm_card_visa"})["id"]
        self.product = self.call("POST /v1/products", {"name": "P"})["id"]
        self.invoices: list[str] = []
        self.prices: list[str] = []
        self.seen: dict[str, str] = {}
        self.priced: dict[str, tuple[str, str]] = {}

    def call(self, endpoint: str, params: dict[str, Any], *ids: str) -> Any:
        """Do one operation; a refusal must leave everything as it was."""
        before = self.everything()
        try:
            return self.world.perform(endpoint, params, *ids)
        except StripeError:
            assert self.everything() == before
            return None

    def everything(self) -> dict[str, dict[str, Any]]:
        """Return all records by kind and id."""
        return {kind: dict(rows) for kind, rows in self.world.account.rows.items() if rows}

    def pick(self, place: int) -> str:
        """Return one of the invoices."""
        return self.invoices[place % len(self.invoices)] if self.invoices else "in_none"

    def line(self, invoice: str, place: int) -> str:
        """Return one of an invoice's lines."""
        record = self.world.account.rows["invoices"].get(invoice, {"held": ()})
        lines = record["held"]
        return str(lines[place % len(lines)]["line"]) if lines else "il_none"

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

    @rule(place=places, amounts=st.lists(amounts, min_size=1, max_size=4), bad=st.booleans())
    def add_amounts(self, place: int, amounts: list[int], bad: bool) -> None:
        """Add plain lines, sometimes with one that cannot be."""
        lines: list[dict[str, Any]] = [{"amount": amount} for amount in amounts]
        if bad:
            lines.append({"pricing": {"price": "price_none"}})
        self.call(f"{INVOICE}/add_lines", {"lines": lines}, self.pick(place))

    @rule(place=places, which=places, quantity=quantities)
    def add_usage(self, place: int, which: int, quantity: str) -> None:
        """Add a line with a price."""
        if self.prices:
            price = self.prices[which % len(self.prices)]
            line = {"pricing": {"price": price}, "quantity_decimal": quantity}
            self.call(f"{INVOICE}/add_lines", {"lines": [line]}, self.pick(place))

    @rule(place=places, which=places, quantity=quantities)
    def update(self, place: int, which: int, quantity: str) -> None:
        """Set a line's quantity."""
        invoice = self.pick(place)
        line = {"id": self.line(invoice, which), "quantity_decimal": quantity}
        self.call(f"{INVOICE}/update_lines", {"lines": [line]}, invoice)

    @rule(place=places, which=places, behavior=st.sampled_from(["delete", "unassign"]))
    def remove(self, place: int, which: int, behavior: str) -> None:
        """Remove a line."""
        invoice = self.pick(place)
        line = {"id": self.line(invoice, which), "behavior": behavior}
        self.call(f"{INVOICE}/remove_lines", {"lines": [line]}, invoice)

    @rule(place=places, verb=st.sampled_from(["finalize", "void", "mark_uncollectible", "send"]))
    def step(self, place: int, verb: str) -> None:
        """Push an invoice along."""
        self.call(f"{INVOICE}/{verb}", {}, self.pick(place))

    @rule(place=places)
    def pay(self, place: int) -> None:
        """Pay an invoice."""
        self.call(f"{INVOICE}/pay", {"payment_method": "pm_card_visa"}, self.pick(place))

    @rule(place=places)
    def delete(self, place: int) -> None:
        """Delete an invoice, if it can be."""
        self.call("DELETE /v1/invoices/{invoice}", {}, self.pick(place))

    @rule(amount=amounts)
    def adjust(self, amount: int) -> None:
        """Move the customer's balance."""
        params = {"amount": amount, "currency": "usd"}
        self.call("POST /v1/customers/{customer}/balance_transactions", params, self.customer)

    @rule(place=places, amount=st.integers(1, 5000))
    def credit(self, place: int, amount: int) -> None:
        """Write a credit note."""
        self.call("POST /v1/credit_notes", {"invoice": self.pick(place), "amount": amount})

    @invariant()
    def totals_are_the_sum_of_lines_each_rounded_on_its_own(self) -> None:
        """No invoice shows another total than its lines."""
        for record in self.world.account.rows["invoices"].values():
            shown = self.world.perform("GET /v1/invoices/{invoice}", {}, record["id"])
            assert shown["total"] == sum(_exact(line) for line in record["held"])
            if shown["status"] == "paid":
                assert shown["amount_remaining"] == 0

    @invariant()
    def a_line_is_its_item(self) -> None:
        """Whichever side is asked, it says the same; nobody else claims to be on the invoice."""
        state = self.world.account
        for invoice, record in state.rows["invoices"].items():
            items = [
                each for each in state.rows["invoiceitems"].values() if each["invoice"] == invoice
            ]
            assert sorted(record["held"], key=itemgetter("id")) == sorted(
                items, key=itemgetter("id")
            )

    @invariant()
    def states_follow_the_arrows(self) -> None:
        """Each invoice is where it was, or one arrow further."""
        rows = self.world.account.rows["invoices"]
        for invoice, record in rows.items():
            old = self.seen.get(invoice, "draft")
            assert old == record["status"] or (old, record["status"]) in ARROWS
            self.seen[invoice] = record["status"]
        for invoice in self.seen.keys() - rows.keys():
            assert self.seen[invoice] == "draft"

    @invariant()
    def the_last_event_shows_what_is(self) -> None:
        """A change without an event would leave every cache stale."""
        state = self.world.account
        last = {e["after"]["id"]: e for e in state.rows["events"].values()}
        for kind in ("invoices", "prices", "products", "credit_notes"):
            for object_id, record in state.rows[kind].items():
                assert last[object_id]["after"] == record

    @invariant()
    def the_balance_is_the_sum_of_its_entries(self) -> None:
        """Money on the customer's account comes from somewhere."""
        state = self.world.account
        entries = state.rows["balance_transactions"].values()
        balance = state.rows["customers"][self.customer].get("balance", 0)
        assert balance == sum(entry["amount"] for entry in entries)


def _exact(line: dict[str, Any]) -> int:
    if line["unit_amount_decimal"] is None:
        return int(line["amount"])
    exact = Fraction(line["quantity_decimal"]) * Fraction(line["unit_amount_decimal"])
    return floor(exact + Fraction(1, 2))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
