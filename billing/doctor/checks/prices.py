"""Prices: which SKUs can count usage, and for whom."""

from collections import Counter

from billing.doctor.account import StripeAccount
from billing.doctor.findings import Checks, Finding, Findings, Severity, of, ok
from billing.stripe.price_record import PriceRecord

NAME_A_PRICE = "Give a one-time price per unit a lookup key; usage names it as its SKU."


async def _active(account: StripeAccount) -> list[PriceRecord]:
    query = {"active": "true", "expand[0]": "data.product"}
    bodies = (await account.pages("/v1/prices", query)).items
    return [PriceRecord.from_stripe(body) for body in bodies]


async def usable_prices(account: StripeAccount) -> list[PriceRecord]:
    """The prices at which usage can be counted."""
    return [price for price in await _active(account) if price.sku and not price.problem]


async def check_usable(account: StripeAccount) -> Findings:
    """Usage is counted at prices with a lookup key."""
    skus = [price.sku for price in await usable_prices(account)]
    if skus:
        return ok(f"{len(skus)} prices can count usage.")
    return [Finding(Severity.PROBLEM, "No price can count usage.", NAME_A_PRICE)]


async def check_unusable(account: StripeAccount) -> Findings:
    """A price with a lookup key that Stripe would not bill as quantity times unit amount."""
    found = [
        Finding(
            Severity.WARNING,
            f"Price {price.id} of {price.sku!r} cannot count usage: {cause.partition('. ')[0]}.",
            cause.partition(". ")[2],
        )
        for price in await _active(account)
        if price.sku and (cause := price.problem)
    ]
    return found or ok("Every active price with a lookup key can count usage.")


async def check_archived(account: StripeAccount) -> Findings:
    """An archived price keeps its lookup key; usage of it is refused."""
    inactive = (await account.page("/v1/prices", {"active": "false"})).items
    archived = sorted(price["lookup_key"] for price in inactive if price["lookup_key"])
    cure = "Transfer the lookup key to an active price (transfer_lookup_key), or stop reporting it."
    return of(
        Severity.NOTICE,
        archived,
        "Archived with a lookup key",
        cure,
        "No archived price has a lookup key.",
    )


async def check_currencies(account: StripeAccount) -> Findings:
    """A customer with a currency can use only prices in it."""
    sold = {price.currency for price in await usable_prices(account)}
    customers = (await account.page("/v1/customers")).items
    lacking = Counter(c["currency"] for c in customers if c["currency"] not in (None, *sold))
    if not lacking:
        return ok("Each of the newest customers with a currency has prices in it.")
    counts = ", ".join(f"{currency} ({number})" for currency, number in lacking.most_common())
    return [
        Finding(
            Severity.PROBLEM,
            f"Customers have currencies in which no price can count usage: {counts}.",
            "Create prices in these currencies, each with a lookup key.",
        )
    ]


CHECKS: Checks = {
    "prices.usable": check_usable,
    "prices.unusable": check_unusable,
    "prices.archived": check_archived,
    "prices.currency": check_currencies,
}
