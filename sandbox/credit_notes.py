"""Credit notes: they reduce an open invoice, or credit a paid one to the customer's balance."""

from collections.abc import Mapping
from typing import Any, Final

from sandbox.account import Account, Record
from sandbox.customers import add_to_balance
from sandbox.errors import bad_request
from sandbox.params import Params
from sandbox.payments import remaining, transition
from sandbox.serializers import list_object
from sandbox.totals import compute


def _create(account: Account, params: Params) -> Record:
    """Reduce the amount due of an open invoice, or credit a paid one to the customer's balance."""
    invoice = account.get("invoices", params["invoice"], "invoice")
    amount, paid = params.get("amount") or 0, invoice["status"] == "paid"
    stage = "post_payment" if paid else "pre_payment"
    credited = f"{stage}_credit_notes_amount"
    before = invoice.get(credited, 0)
    left = compute(account, invoice).total - before if paid else remaining(account, invoice)
    if invoice["status"] in ("draft", "void") or not 0 < amount <= left:
        message = f"A credit note of this {invoice['status']} invoice takes between 1 and {left}."
        raise bad_request(message, param="amount")
    name, sequence = account.new_id("cn_1"), len(account.rows["credit_notes"]) + 1
    note = {"id": name, "effective_at": account.now, "type": stage, "pdf": invoice["invoice_pdf"]}
    note |= params | {key: invoice[key] for key in ("customer", "currency")}
    note |= {"number": f"{invoice['number']}-CN-{sequence:02}", f"{stage}_amount": amount}
    sums = ("subtotal", "subtotal_excluding_tax", "total", "total_excluding_tax")
    note |= dict.fromkeys(sums, amount) | {
        "lines": list_object(f"/v1/credit_notes/{name}/lines", [])
    }
    new = {credited: before + amount}
    if paid:
        add_to_balance(account, invoice, -amount, "credit_note", credit_note=name)
    else:
        new["amount_due"] = invoice["amount_due"] - amount
    reduced = account.change("invoices", invoice, new)
    if reduced["status"] == "open" and reduced["amount_due"] == 0:
        transition(account, reduced, "pay", {})
    return account.create("credit_notes", note)


ACTIONS: Final[Mapping[str, Any]] = {"POST /v1/credit_notes": _create}
