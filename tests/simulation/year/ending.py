"""The oracle's last word: everything is at rest, and every unit is billed once, or shown as what it is."""

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing.invoicing.snapshot import PeriodState
from billing.ledger.policy import RECOVERY_WINDOW_MS
from billing.usage import Period
from tests.simulation.year.oracle import YearOracle

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

# Cents, of a line that was carried by its amount because the number of its correction was used again.
ROUNDED = 3


class Ending:
    """Checks of a schedule's end."""

    def __init__(self, world: "YearWorld", oracle: YearOracle) -> None:
        self._world = world
        self._oracle = oracle

    async def check(self) -> None:
        """Check everything."""
        self._oracle.check_lines()
        await self._check_bills()
        self._check_drafts()
        self._check_voids()
        require, items = self._oracle.require, self._world.stripe.pending_items
        require(len(items) == self._oracle.pending_items, "a person's pending item was billed")
        for invoice in self._oracle.promised & self._world.stripe.invoices.keys():
            status = self._world.stripe.invoices[invoice]["status"]
            require(status != "draft", f"{invoice} was to be finalized and never was")

    async def _check_bills(self) -> None:
        """Check that what was counted is billed, per customer, SKU and price; or unbillable.

        Usage that is sent again after a loss may be counted at another price. What a person had typed, or a bill had
        at the old price, is then carried by its amount, and a new correction may have the number of a lost one: so
        only the money can be compared.
        """
        world = self._world
        owed: dict[Any, Decimal] = dict(world.books.sums(world.books.page.entries))
        found = dict(self._oracle.bills.billed())
        for key, quantity in (await self._unbillable()).items():
            found[key] = found.get(key, Decimal()) + quantity
        for key, quantity in self._beyond_recall().items():
            found[key] = found.get(key, Decimal()) - quantity
        cents = Decimal()
        if world.losses and world.counts["repriced"]:
            owed, found = self._by_money(owed), self._by_money(found)
            cents = Decimal(sum(len(bill["lines"]) for bill in world.stripe.invoices.values()))
        elif world.losses:
            owed, found = self._without_price(owed), self._without_price(found)
        wrong = {
            key: pair
            for key in {*owed, *found}
            if _differ(key, *(pair := (owed.get(key, Decimal()), found.get(key, Decimal()))), cents)
        }
        self._oracle.require(not wrong, f"owed, billed: {wrong}")

    def _by_money(self, sums: Mapping[Any, Decimal]) -> dict[Any, Decimal]:
        found = dict[Any, Decimal]()
        for (customer, _, price), quantity in sums.items():
            amount = quantity * self._world.stripe.units[price]
            found[customer] = found.get(customer, Decimal()) + amount
        return found

    def _without_price(self, sums: Mapping[Any, Decimal]) -> dict[Any, Decimal]:
        """Add up quantities of each SKU; of corrections the money, because a lost one's number is used again."""
        found = dict[Any, Decimal]()
        for (customer, sku, price), quantity in sums.items():
            correction = sku.startswith("adj:")
            key = (customer, "corrections" if correction else sku)
            value = quantity * self._world.stripe.units[price] if correction else quantity
            found[key] = found.get(key, Decimal()) + value
        return {key: value.quantize(Decimal("1e-9")) for key, value in found.items()}

    async def _unbillable(self) -> dict[Any, Decimal]:
        """What deleted customers owe in months that have no bill, or more than their bill has."""
        world, found = self._world, dict[Any, Decimal]()
        unsealed = [
            snapshot
            for customer in world.customers
            if world.stripe.customers[customer].get("deleted")
            for month in await world.ledger.periods.list_retained(customer)
            if (snapshot := await world.ledger.periods.snapshot(customer, month)).state
            is not PeriodState.SEALED
        ]
        for snapshot in [*unsealed, *self._oracle.losses.settled.values()]:
            invoice = world.stripe.invoices.get(snapshot.invoice or "", {"lines": ()})
            for line, quantity in snapshot.totals.items():
                key = (snapshot.customer, line.split("~")[0], snapshot.prices[line])
                found[key] = found.get(key, Decimal()) + quantity
            for line in invoice["lines"]:
                if name := line["metadata"].get("gw_line"):
                    key = (snapshot.customer, name.split("~")[0], self._oracle.bills.price(line)[1])
                    found[key] = found.get(key, Decimal()) - self._oracle.bills.quantity(line)
        return found

    def _beyond_recall(self) -> dict[Any, Decimal]:
        """What is billed for months of which a ledger that was lost never learned again."""
        found = dict[Any, Decimal]()
        for invoice in self._world.stripe.invoices.values():
            if self._world.losses and self._oracle.is_ours(invoice) and self.is_beyond(invoice):
                for line in invoice["lines"]:
                    if name := line["metadata"].get("gw_line"):
                        price = self._oracle.bills.price(line)[1]
                        key = (invoice["customer"], name.split("~")[0], price)
                        found[key] = found.get(key, Decimal()) + self._oracle.bills.quantity(line)
        return found

    def is_beyond(self, invoice: Any) -> bool:
        """True if the ledger has not had the invoice's month since its last loss.

        A month that had ended less than 45 days before an invoice was listed is known from then on.
        """
        month = Period.parse(invoice["metadata"]["gw_period"])
        beyond = (invoice["customer"], month) not in self._world.books.page.months
        listed_ms = self._oracle.losses.listed_ms.get(invoice["customer"], 0)
        recent = month.end.timestamp() * 1000 > listed_ms - RECOVERY_WINDOW_MS
        self._oracle.require(
            not (beyond and listed_ms and recent), f"{invoice['id']} of {month} is not remembered"
        )
        return beyond

    def _check_drafts(self) -> None:
        """Check that no draft of ours is left, but those of a month or customer that a loss has taken."""
        left = [
            invoice["id"]
            for invoice in self._world.stripe.invoices.values()
            if invoice["status"] == "draft"
            and self._oracle.is_ours(invoice)
            and not (self._world.losses and self.is_beyond(invoice))
            and not self._world.stripe.customers[invoice["customer"]].get("deleted")
        ]
        self._oracle.require(not left, f"drafts left: {left}")

    def _check_voids(self) -> None:
        """Check that a person was told of each bill that is void, and of none that was revised."""
        if self._world.losses:
            return  # a hold may be lost with the ledger
        invoices, shown = self._world.stripe.invoices, " ".join(self._oracle.reasons)
        for invoice in invoices.values():
            last = invoices.get(invoice.get("latest_revision") or "", invoice)
            wrong = last["status"] != "void" and f"Invoice {invoice['id']} " in shown
            self._oracle.require(
                not wrong, f"{invoice['id']} was revised, and somebody was told of it"
            )
        for voided, remembered in self._oracle.voided.items():
            original = invoices[voided]
            if not self._oracle.is_ours(original):
                continue
            last = original
            while last["status"] == "void" and last.get("latest_revision"):
                last = invoices[last["latest_revision"]]
            shown_to_a_person = f"Invoice {last['id']}" in shown
            self._oracle.require(
                shown_to_a_person or not remembered or last["status"] != "void",
                f"nobody was told of {voided}",
            )


def _differ(key: Any, owed: Decimal, billed: Decimal, cents: Decimal) -> bool:
    return abs(owed - billed) > (ROUNDED if "corrections" in key else cents)
