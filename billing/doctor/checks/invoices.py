"""Invoices: drafts that would stand beside ours, pending items, subscriptions, other terms."""

from collections import Counter

from billing.doctor.account import StripeAccount, StripeObject
from billing.doctor.findings import Checks, Findings, Severity, of
from billing.invoicing.metadata_keys import period_of

PATH = "/v1/invoices"
RUN_AS_IT_IS = "Nothing has to be done: the gateway leaves it alone."


async def _drafts(account: StripeAccount) -> list[StripeObject]:
    return (await account.page(PATH, {"status": "draft"})).items


async def check_foreign_drafts(account: StripeAccount) -> Findings:
    """Another system's draft of the same usage would bill it twice."""
    foreign = [
        draft["id"]
        for draft in await _drafts(account)
        if period_of(draft) is None and not draft["parent"]
    ]
    cure = "If they hold the same usage, delete them or stop the system that makes them before going live."
    return of(
        Severity.WARNING,
        foreign,
        "Drafts of others beside ours",
        cure,
        "No draft is of another system.",
    )


async def check_double_drafts(account: StripeAccount) -> Findings:
    """A customer and month have one draft."""
    drafts = [(d["customer"], period_of(d)) for d in await _drafts(account)]
    counts = Counter(owner for owner in drafts if owner[1] is not None)
    doubled = [f"{customer} {period}" for (customer, period), n in counts.items() if n > 1]
    cure = "Run `repairDrift` for the customer: the gateway keeps one draft and deletes its copies."
    return of(
        Severity.PROBLEM, doubled, "Two drafts of ours", cure, "No month has two drafts of ours."
    )


async def check_pending_items(account: StripeAccount) -> Findings:
    """Pending items wait for the next invoice that takes them in; ours do not."""
    items = (await account.page("/v1/invoiceitems", {"pending": "true"})).items
    owners = sorted({item["customer"] for item in items})
    cure = "Add them to an invoice in the Dashboard; the gateway's drafts leave them pending."
    return of(
        Severity.WARNING, owners, "Pending invoice items of", cure, "No invoice item is pending."
    )


async def check_subscriptions(account: StripeAccount) -> Findings:
    """A subscription invoices on its own."""
    found = (await account.page("/v1/subscriptions", {"status": "active"})).items
    cure = "Their customers get the subscription's invoice and the gateway's; usage on both is billed twice."
    ids = [subscription["id"] for subscription in found]
    return of(Severity.WARNING, ids, "Active subscriptions", cure, "No subscription is active.")


async def check_terms(account: StripeAccount) -> Findings:
    """The gateway's invoices charge at once; others of the customer may have been sent with terms."""
    recent = (await account.page(PATH)).items
    sent = {i["customer"] for i in recent if i["collection_method"] == "send_invoice"}
    cure = "The gateway's drafts charge automatically: set their collection method in the Dashboard where it matters."
    return of(
        Severity.WARNING,
        sorted(sent),
        "Paid by invoice so far",
        cure,
        "No recent invoice was sent with terms.",
    )


async def check_failed(account: StripeAccount) -> Findings:
    """Finalization that failed leaves a draft for ever."""
    stuck = [d["id"] for d in await _drafts(account) if d["last_finalization_error"]]
    cure = "Open them in the Dashboard: the error names what is missing."
    return of(
        Severity.PROBLEM, stuck, "Could not be finalized", cure, "No draft failed to finalize."
    )


CHECKS: Checks = {
    "drafts.foreign": check_foreign_drafts,
    "drafts.double": check_double_drafts,
    "invoices.pending_items": check_pending_items,
    "invoices.subscriptions": check_subscriptions,
    "invoices.terms": check_terms,
    "invoices.failed": check_failed,
}
