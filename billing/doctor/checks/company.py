"""The account itself: charges, portal, tax."""

from billing.doctor.account import StripeAccount
from billing.doctor.findings import Checks, Finding, Findings, Severity, ok

TAX_REFUSES = "Stripe refuses negative lines (corrections, credits) on invoices with automatic tax."


async def check_charges(account: StripeAccount) -> Findings:
    """An account that is not activated cannot be paid."""
    body = await account.get("/v1/account")
    if body.get("charges_enabled"):
        return ok(
            f"The account ({body.get('country')}, {body.get('default_currency')}) can charge."
        )
    return [
        Finding(
            Severity.PROBLEM if account.is_live else Severity.WARNING,
            "The account cannot charge yet.",
            "Finish the activation of the account in the Dashboard.",
        )
    ]


async def check_portal(account: StripeAccount) -> Findings:
    """`createPortalSession` needs the default configuration of the customer portal."""
    path = "/v1/billing_portal/configurations"
    if (await account.get(path, {"is_default": "true", "active": "true"}))["data"]:
        return ok("The customer portal has an active default configuration.")
    return [
        Finding(
            Severity.PROBLEM,
            "The customer portal has no active default configuration, so no session can be created.",
            "Save the portal's settings once in the Dashboard (Settings, Billing, Customer portal).",
        )
    ]


async def check_tax_settings(account: StripeAccount) -> Findings:
    """Automatic tax needs settings that are complete."""
    if (await account.get("/v1/tax/settings")).get("status") == "active":
        return [
            Finding(
                Severity.NOTICE,
                "Stripe Tax is set up; its account default may switch it on for drafts made by the API.",
                "See tax.drafts.",
            )
        ]
    return ok("Stripe Tax is not set up; invoices are made without automatic tax.")


async def check_tax_on_drafts(account: StripeAccount) -> Findings:
    """The account default for automatic tax shows on drafts only."""
    drafts = await account.page("/v1/invoices", {"status": "draft"})
    taxed = [draft["id"] for draft in drafts.items if draft["automatic_tax"]["enabled"]]
    if not taxed:
        return ok("None of the newest drafts has automatic tax.")
    return [
        Finding(
            Severity.WARNING,
            f"{len(taxed)} of the newest {len(drafts.items)} drafts have automatic tax. {TAX_REFUSES}",
            "Switch the account default off for API invoices (Settings, Tax), or expect parked customers.",
        )
    ]


async def check_tax_behavior(account: StripeAccount) -> Findings:
    """A price without tax behavior is refused under automatic tax."""
    active = (await account.get("/v1/tax/settings")).get("status") == "active"
    prices = (await account.pages("/v1/prices", {"active": "true"})).items
    unset = [
        p["lookup_key"] for p in prices if p["lookup_key"] and p["tax_behavior"] == "unspecified"
    ]
    if not (active and unset):
        return ok("No price lacks a tax behavior that it needs.")
    return [
        Finding(
            Severity.WARNING,
            f"{len(unset)} prices have no tax behavior, and are refused on invoices with automatic tax.",
            "Set inclusive or exclusive on each price, or a default in the tax settings.",
        )
    ]


CHECKS: Checks = {
    "account.charges": check_charges,
    "account.portal": check_portal,
    "tax.registration": check_tax_settings,
    "tax.drafts": check_tax_on_drafts,
    "tax.behavior": check_tax_behavior,
}
