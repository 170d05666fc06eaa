"""An invoice's amounts beyond its lines: discounts, taxes and totals, each line rounded on its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from sandbox.account import Account, Record
from sandbox.errors import StripeError, bad_request

# Percent of automatic tax by the customer's country; elsewhere nothing is collected. Stripe knows regions.
RATES: Final[Mapping[str, str]] = {
    "US": "8.875",
    "DE": "19",
    "FR": "20",
    "GB": "20",
    "IE": "23",
    "JP": "10",
    "KW": "0",
}
# A customer's `tax_exempt` → the reason for which nothing is taxed.
EXEMPTIONS: Final = {"exempt": "customer_exempt", "reverse": "reverse_charge"}
INCOMPATIBLE: Final = (
    "Invoice items with negative amounts or tax_behavior=unspecified, and tax rates, cannot be"
    " combined with automatic tax."
)


@dataclass(slots=True)
class LineTotals:
    """One line: its discounts by id, and its taxes as Stripe shows them."""

    discounts: dict[str, int] = field(default_factory=dict)
    taxes: list[Record] = field(default_factory=list)


@dataclass(slots=True)
class Totals:
    """All amounts of an invoice in minor units, and its lines in their order."""

    subtotal: int
    lines: list[LineTotals]
    untaxed: int = 0
    total: int = 0
    discounts: dict[str, int] = field(default_factory=dict)
    taxes: list[Record] = field(default_factory=list)


def compute(account: Account, invoice: Record) -> Totals:
    """Return the totals of *invoice* as it stands."""
    items: Sequence[Record] = invoice["held"]
    totals = Totals(sum(item["amount"] for item in items), [LineTotals() for _ in items])
    for discount in invoice.get("discounts") or ():
        _apply_discount(discount["terms"], discount["id"], items, totals.lines)
    for item, line in zip(items, totals.lines, strict=True):
        taxable = item["amount"] - sum(line.discounts.values())
        line.taxes = [tax for tax in _taxes(account, invoice, item, taxable) if tax]
    _sum_up(totals)
    return totals


def require_taxable(account: Account, invoice: Record) -> None:
    """StripeError 400 if automatic tax is on and a line or a tax rate does not go with it."""
    if not (invoice.get("automatic_tax") or {}).get("enabled"):
        return
    for item in invoice["held"]:
        if item["amount"] < 0 or _behavior(account, item) == "unspecified":
            raise bad_request(INCOMPATIBLE, param="lines")
    if invoice.get("default_tax_rates"):
        raise bad_request(INCOMPATIBLE, param="default_tax_rates")


def require_location(account: Account, invoice: Record) -> None:
    """StripeError 400 if automatic tax needs the customer's country and there is none."""
    if (invoice.get("automatic_tax") or {}).get("enabled") and not _country(account, invoice):
        message = "The customer's location isn't recognized. Set a valid customer address."
        raise StripeError(400, message, code="customer_tax_location_invalid")


def automatic_tax_status(account: Account, invoice: Record) -> Record:
    """Return the parts of `automatic_tax` that Stripe fills in."""
    if not (invoice.get("automatic_tax") or {}).get("enabled"):
        return {"enabled": False, "status": None}
    located = _country(account, invoice)
    status = "complete" if located else "requires_location_inputs"
    return {"enabled": True, "status": status, "provider": "stripe", "liability": {"type": "self"}}


def _apply_discount(
    coupon: Record, name: str, items: Sequence[Record], lines: Sequence[LineTotals]
) -> None:
    """Take the discount *name* off the lines that its coupon covers: a share of each, or one amount by size."""
    products = (coupon.get("applies_to") or {}).get("products")
    covered = {
        number: item["amount"] - sum(lines[number].discounts.values())
        for number, item in enumerate(items)
        if item["amount"] > 0
        and item.get("discountable", True)
        and (not products or (item.get("price_details") or {}).get("product") in products)
    }
    if coupon.get("percent_off") is not None:
        shares = {n: _percent(left, str(coupon["percent_off"])) for n, left in covered.items()}
    else:
        shares = _split(min(coupon["amount_off"], sum(covered.values())), covered)
    for number, amount in shares.items():
        lines[number].discounts[name] = amount


def _split(amount: int, weights: Mapping[int, int]) -> dict[int, int]:
    """Split *amount* in proportion to *weights*; what rounding leaves goes to the first ones."""
    whole = sum(weights.values())
    shares = {name: amount * weight // whole for name, weight in weights.items() if whole}
    for name in list(shares)[: amount - sum(shares.values())]:
        shares[name] += 1
    return shares


def _taxes(account: Account, invoice: Record, item: Record, taxable: int) -> list[Record]:
    if (invoice.get("automatic_tax") or {}).get("enabled"):
        customer = invoice.get("billed") or account.rows["customers"].get(invoice["customer"], {})
        country = _country(account, invoice)
        exemption = EXEMPTIONS.get(customer.get("tax_exempt", "none"))
        percent = "0" if exemption or not country else RATES.get(country, "0")
        reason = exemption or ("standard_rated" if Decimal(percent) else "not_collecting")
        behavior = _behavior(account, item)
        return [_tax(taxable, percent, f"txr_automatic_{country or 'nowhere'}", behavior, reason)]
    rates = [account.get("tax_rates", name) for name in invoice.get("default_tax_rates") or ()]
    return [
        _tax(
            taxable,
            str(rate["percentage"]),
            rate["id"],
            "inclusive" if rate["inclusive"] else "exclusive",
            "standard_rated",
        )
        for rate in rates
    ]


def _tax(taxable: int, percent: str, rate: str, behavior: str, reason: str) -> Record:
    amount = _percent(taxable, percent)
    if behavior == "inclusive":
        amount = taxable - _rounded(Decimal(taxable) * 100 / (100 + Decimal(percent)))
        taxable -= amount
    return {
        "amount": amount,
        "tax_behavior": behavior,
        "tax_rate_details": {"tax_rate": rate},
        "taxability_reason": reason,
        "taxable_amount": taxable,
        "type": "tax_rate_details",
    }


def _sum_up(totals: Totals) -> None:
    taxes: dict[tuple[Any, ...], Record] = {}
    for line in totals.lines:
        for name, amount in line.discounts.items():
            totals.discounts[name] = totals.discounts.get(name, 0) + amount
        for tax in line.taxes:
            kind = (
                tax["tax_rate_details"]["tax_rate"],
                tax["tax_behavior"],
                tax["taxability_reason"],
            )
            old = taxes.get(kind, {"amount": 0, "taxable_amount": 0})
            sums = {name: old[name] + tax[name] for name in ("amount", "taxable_amount")}
            taxes[kind] = tax | sums
    totals.taxes = list(taxes.values())
    reduced = totals.subtotal - sum(totals.discounts.values())
    added = {"inclusive": 0, "exclusive": 0}
    for tax in totals.taxes:
        added[tax["tax_behavior"]] += tax["amount"]
    totals.total = reduced + added["exclusive"]
    totals.untaxed = reduced - added["inclusive"]


def _behavior(account: Account, item: Record) -> str:
    """Return the tax behavior of a line: its price's, or the account's default; exclusive for an amount (a guess)."""
    price = account.rows["prices"].get((item.get("price_details") or {}).get("price", ""), {})
    own: str = price.get("tax_behavior", "unspecified")
    settings = next(iter(account.rows["settings"].values()), {})
    default = (settings.get("defaults") or {}).get("tax_behavior") or "unspecified"
    fallback = default if price else (default if default != "unspecified" else "exclusive")
    return own if own != "unspecified" else fallback


def _country(account: Account, invoice: Record) -> str | None:
    customer = invoice.get("billed") or account.rows["customers"].get(invoice["customer"], {})
    found: str | None = (customer.get("address") or {}).get("country")
    return found


def _percent(amount: int, percent: str) -> int:
    return _rounded(Decimal(amount) * Decimal(percent) / 100)


def _rounded(exact: Decimal) -> int:
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP))
