"""Revisions: a draft cloned from a finalized invoice; when it is finalized, it takes the original's place."""

from typing import Final

from sandbox.account import Account, Record
from sandbox.errors import bad_request
from sandbox.params import Params

REVISABLE: Final = ("open", "uncollectible")
# What a revision has of its original (a guess: Stripe documents a clone, not its fields).
_INVOICE: Final = (
    *("customer", "currency", "metadata", "description", "footer"),
    *("collection_method", "days_until_due", "default_payment_method"),
)
_OWN: Final = ("id", "line", "invoice", "created")


def original_of(account: Account, invoice: Record) -> Record | None:
    """Return the invoice that *invoice* revises, None if it is no revision; StripeError 400 if it is settled."""
    if not invoice.get("from_invoice"):
        return None
    original = account.get("invoices", invoice["from_invoice"]["invoice"], "from_invoice[invoice]")
    if original["status"] not in REVISABLE:
        message = f"You cannot revise this invoice: it is {original['status']}."
        raise bad_request(message, param="from_invoice[invoice]")
    return original


def cloned_params(account: Account, params: Params) -> Params:
    """Return *params* of a new invoice, completed from the original if it is to be a revision."""
    original = original_of(account, params)
    if original is None:
        return params
    return {name: original[name] for name in _INVOICE if name in original} | params


def clone_lines(account: Account, draft: Record) -> list[Record]:
    """Create the original's lines on its revision *draft*."""
    original = original_of(account, draft)
    return [
        account.create(
            "invoiceitems",
            {name: value for name, value in item.items() if name not in _OWN}
            | {"invoice": draft["id"], "line": account.new_id("il_1")},
        )
        for item in (original["held"] if original else ())
    ]


def record_revision(account: Account, original: Record, revision: str) -> None:
    """Name *revision* as the latest of *original* and of all that it revises in turn."""
    invoice: Record | None = original
    while invoice is not None:
        changed = account.change("invoices", invoice, {"latest_revision": revision})
        source = (changed.get("from_invoice") or {}).get("invoice")
        invoice = account.rows["invoices"].get(source) if source else None
