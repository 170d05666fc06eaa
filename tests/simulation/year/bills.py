"""Bills: what the lines of the gateway's say on the invoices of an account."""

from collections import defaultdict
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from billing.usage import Period
from tests.simulation.year.account import Account
from tests.simulation.year.books import Sums

Invoice = dict[str, Any]


class Bills:
    """Reads the lines of the invoices that *is_ours* names."""

    def __init__(self, account: Account, is_ours: Callable[[Invoice], bool]) -> None:
        self._account = account
        self._is_ours = is_ours

    def price(self, line: Invoice) -> tuple[Decimal, str]:
        """Unit amount and id of the price that a line of ours bills."""
        units, pricing = self._account.units, line["pricing"]
        named = pricing["price_details"]["price"] if pricing else line["metadata"]["gw_price"]
        return units[named], named

    def quantity(self, line: Invoice) -> Decimal:
        """The billed quantity; an amount that a person typed counts as the quantity that it buys."""
        if line["pricing"] is not None:
            return Decimal(line["quantity_decimal"])
        unit, _ = self.price(line)
        stated = Decimal(line["metadata"]["gw_quantity"])
        meant = int((stated * unit).to_integral_value(ROUND_HALF_UP))
        by_amount = stated < 0 or "gw_amount" in line["metadata"]
        return stated if by_amount and meant == line["amount"] else line["amount"] / unit

    def billed(self) -> Sums:
        """Add up the lines of ours on all invoices, void ones included."""
        found: Sums = defaultdict(Decimal)
        for invoice in self._account.invoices.values():
            if self._is_ours(invoice):
                for line in invoice["lines"]:
                    if key := line["metadata"].get("gw_line"):
                        sku, (_, price) = key.split("~")[0], self.price(line)
                        found[invoice["customer"], sku, price] += self.quantity(line)
        return found

    def by_sku(self) -> dict[tuple[str, str], Decimal]:
        """Add up the quantities of each customer and SKU."""
        return by_sku(self.billed())


def by_sku(sums: Sums) -> dict[tuple[str, str], Decimal]:
    """Add up *sums* whatever their price."""
    found: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for (customer, sku, _), quantity in sums.items():
        found[customer, sku] += quantity
    return dict(found)


def month_of(invoice: Invoice) -> Period:
    """The month that an invoice of the gateway's bills."""
    return Period.parse(invoice["metadata"]["gw_period"])
