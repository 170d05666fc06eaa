"""The API key: its kind, its mode, and its rights one by one."""

from functools import partial

from billing.doctor.account import CannotRead, KeyLacksRight, StripeAccount
from billing.doctor.findings import Checks, Finding, Findings, Severity, ok

# Right, as the Dashboard calls it → what the gateway reads by it.
NEEDED = {
    "customers": ("Customers", "/v1/customers"),
    "invoices": ("Invoices", "/v1/invoices"),
    "invoiceitems": ("Invoices", "/v1/invoiceitems"),
    "prices": ("Prices", "/v1/prices"),
    "products": ("Products", "/v1/products"),
    "events": ("Events", "/v1/events"),
    "credit_notes": ("Credit notes", "/v1/credit_notes"),
    "payment_intents": ("Payment intents", "/v1/payment_intents"),
}
WRITES = "Invoices and Customer portal"


async def check_kind(account: StripeAccount) -> Findings:
    """A restricted key can do less harm."""
    if account.key.startswith("rk_"):
        return ok("The key is a restricted one.")
    return [
        Finding(
            Severity.WARNING,
            "The key is a secret key, which may do everything in the account.",
            f"Make a restricted key that writes {WRITES} and reads what is listed below.",
        )
    ]


async def check_mode(account: StripeAccount) -> Findings:
    """Customers are charged in live mode only."""
    mode = "live mode: customers are charged" if account.is_live else "test mode: nobody is charged"
    return [Finding(Severity.NOTICE, f"The key is of {mode}.")]


async def check_right(account: StripeAccount, *, right: str, path: str) -> Findings:
    """The key may read *path*."""
    try:
        await account.get(path, {"limit": 1})
    except KeyLacksRight:
        cure = f"Give the key the right {right}: read, in the Dashboard (Developers, API keys)."
        return [Finding(Severity.PROBLEM, f"The key may not read {path}.", cure)]
    return ok(f"The key may read {path}.")


async def check_payment_methods(account: StripeAccount) -> Findings:
    """The panel shows the cards of a customer."""
    customers = (await account.page("/v1/customers")).items
    if not customers:
        raise CannotRead("payment methods are read by customer, and there is no customer yet")
    path = f"/v1/customers/{customers[0]['id']}/payment_methods"
    return await check_right(account, right="Payment methods", path=path)


async def check_writes(_account: StripeAccount) -> Findings:
    """Rights to write cannot be tried without writing."""
    return [
        Finding(
            Severity.NOTICE,
            f"Rights to write are not tried. The gateway needs write for {WRITES}.",
        )
    ]


CHECKS: Checks = {
    "key.kind": check_kind,
    "key.mode": check_mode,
    **{
        f"right.{name}": partial(check_right, right=right, path=path)
        for name, (right, path) in NEEDED.items()
    },
    "right.payment_methods": check_payment_methods,
    "right.write": check_writes,
}
