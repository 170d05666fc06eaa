"""Customers: what keeps their invoice from being paid. The newest hundred are looked at."""

from billing.doctor.account import StripeAccount
from billing.doctor.findings import Checks, Finding, Findings, Severity, of, ok

PATH = "/v1/customers"


async def check_any(account: StripeAccount) -> Findings:
    """Usage is reported for customers that Stripe knows."""
    page = await account.page(PATH)
    if page.items:
        more = "" if page.complete else " or more"
        return ok(f"The account has {len(page.items)}{more} customers.")
    return [
        Finding(
            Severity.WARNING,
            "The account has no customer, and usage of unknown customers is refused.",
            "Create customers at Stripe, and report usage by their id.",
        )
    ]


async def check_currency(account: StripeAccount) -> Findings:
    """A customer without a currency gets that of their first usage."""
    customers = (await account.page(PATH)).items
    unset = [c["id"] for c in customers if not c["currency"]]
    cure = "Nothing has to be done; a first usage in a wrong currency is corrected by `python -m billing.ledger set-currency`."
    return of(Severity.NOTICE, unset, "No currency yet", cure, "Each customer has a currency.")


async def check_location(account: StripeAccount) -> Findings:
    """Automatic tax needs an address."""
    if (await account.get("/v1/tax/settings")).get("status") != "active":
        return ok("No address is needed without automatic tax.")
    customers = (await account.page(PATH)).items
    nowhere = [c["id"] for c in customers if not (c["address"] or {}).get("country")]
    cure = "Collect addresses, or their invoices cannot be finalized with automatic tax."
    return of(Severity.WARNING, nowhere, "No country", cure, "Each customer has a country.")


async def check_payment_method(account: StripeAccount) -> Findings:
    """The gateway's invoices charge the default payment method."""
    customers = (await account.page(PATH)).items
    without = [
        c["id"]
        for c in customers
        if not (c["invoice_settings"]["default_payment_method"] or c["default_source"])
    ]
    cure = "Let them add one in the customer portal; otherwise their invoice stays open."
    return of(
        Severity.WARNING,
        without,
        "No default payment method",
        cure,
        "Each customer can be charged.",
    )


async def check_delinquent(account: StripeAccount) -> Findings:
    """A delinquent customer's latest invoice was not paid."""
    customers = (await account.page(PATH)).items
    late = [c["id"] for c in customers if c["delinquent"]]
    cure = (
        "Stripe's dunning deals with them; place a billing hold if nothing more should be billed."
    )
    return of(Severity.NOTICE, late, "Delinquent", cure, "No customer is delinquent.")


async def check_discounts(account: StripeAccount) -> Findings:
    """A coupon lowers the invoice and not the usage that the panel shows."""
    customers = (await account.page(PATH)).items
    reduced = [c["id"] for c in customers if c.get("discount")]
    cure = "The usage shown is before the discount; the invoice's own amounts are after it."
    return of(Severity.NOTICE, reduced, "Has a coupon", cure, "No customer has a coupon.")


async def check_test_clocks(account: StripeAccount) -> Findings:
    """The time of a customer on a test clock is not the ledger's."""
    customers = (await account.page(PATH)).items
    clocked = [c["id"] for c in customers if c.get("test_clock")]
    cure = "Report no usage for them; the gateway bills by real time."
    return of(Severity.NOTICE, clocked, "On a test clock", cure, "No customer is on a test clock.")


CHECKS: Checks = {
    "customers.known": check_any,
    "customers.currency": check_currency,
    "customers.location": check_location,
    "customers.payment_method": check_payment_method,
    "customers.delinquent": check_delinquent,
    "customers.discount": check_discounts,
    "customers.test_clock": check_test_clocks,
}
