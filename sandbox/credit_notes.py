"""Credit notes: money taken back from a finalized invoice."""

from sandbox import payments
from sandbox.account import Unit
from sandbox.defaults import DEFAULTS, Json
from sandbox.errors import missing, refuse
from sandbox.forms import Params, merged
from sandbox.lines import line_amount
from sandbox.lists import equals, page
from sandbox.shapes import listed, shape
from sandbox.state import Record


def create(unit: Unit, params: Params) -> Json:
    """Reduce what an open invoice still asks, or credit a paid one to the customer's balance."""
    invoice = unit.get("invoices", params["invoice"], "invoice")
    note = _note(unit, invoice, params)
    if note["pre_payment_amount"]:
        _reduce(unit, invoice, note["total"])
    elif credit := note["total"] - (params.get("out_of_band_amount") or 0):
        payments.refund_to_balance(unit, invoice, credit, credit_note=note["id"])
    if note["post_payment_amount"]:
        given = invoice.get("post_payment_credit_notes_amount", 0) + note["total"]
        unit.change("invoices", invoice, post_payment_credit_notes_amount=given)
    unit.put("credit_notes", note)
    unit.emit("credit_note.created", "credit_notes", note)
    return shape(unit, "credit_notes", note)


def preview(unit: Unit, params: Params) -> Json:
    """Show the credit note that these parameters would make; keep nothing."""
    note = _note(unit, unit.get("invoices", params["invoice"], "invoice"), params)
    unit.discard()
    return shape(unit, "credit_notes", note)


def update(unit: Unit, params: Params, note: str) -> Json:
    """Change a credit note's memo or metadata."""
    old = unit.get("credit_notes", note)
    if "metadata" in params:
        params["metadata"] = merged(old.get("metadata"), params["metadata"])
    return shape(unit, "credit_notes", unit.change("credit_notes", old, **params))


def void(unit: Unit, _params: Params, note: str) -> Json:
    """Void a credit note of an open invoice; the invoice asks for the money again."""
    old = unit.get("credit_notes", note)
    invoice = unit.get("invoices", old["invoice"])
    if old.get("status") == "void" or invoice["status"] != "open":
        raise refuse("Only an issued credit note of an open invoice can be voided.")
    _reduce(unit, invoice, -old["total"])
    new = unit.put("credit_notes", {**old, "status": "void", "voided_at": unit.now})
    unit.emit("credit_note.voided", "credit_notes", new)
    return shape(unit, "credit_notes", new)


def list_notes(unit: Unit, params: Params) -> Json:
    """List credit notes, of an invoice, a customer or all."""
    same = equals(params, "invoice")
    return page(unit, "credit_notes", params, "/v1/credit_notes", same)


def _note(unit: Unit, invoice: Record, params: Params) -> Record:
    if invoice["status"] not in ("open", "paid", "uncollectible"):
        raise refuse(f"Invoice is {invoice['status']}: it takes no credit note.")
    note_id = unit.account.new_id("cn_1")
    lines = [_line(unit, invoice, sent) for sent in params.get("lines") or []]
    amount = params.get("amount") if not lines else sum(line["amount"] for line in lines)
    if amount is None and invoice["status"] == "paid":
        amount = params.get("credit_amount") or params.get("out_of_band_amount")
    shown = shape(unit, "invoices", invoice)
    given = invoice.get("post_payment_credit_notes_amount", 0)
    left = shown["amount_remaining"] or shown["total"] - given
    if not amount or not 0 < amount <= left:
        raise refuse(f"The amount must be between 1 and {left}.", param="amount")
    open_still = invoice["status"] != "paid"
    number = len(unit.account.state.rows["credit_notes"]) + 1
    return {
        "id": note_id,
        "created": unit.now,
        "customer": invoice["customer"],
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "number": f"{invoice['number']}-CN-{number:02}",
        "amount": amount,
        "subtotal": amount,
        "subtotal_excluding_tax": amount,
        "total": amount,
        "total_excluding_tax": amount,
        "type": "pre_payment" if open_still else "post_payment",
        "pre_payment_amount": amount if open_still else 0,
        "post_payment_amount": 0 if open_still else amount,
        "effective_at": params.get("effective_at") or unit.now,
        "pdf": f"{unit.account.base_url}/i/{invoice['id']}/pdf",
        "lines": listed(f"/v1/credit_notes/{note_id}/lines", lines),
        **{
            k: params[k]
            for k in ("memo", "reason", "metadata", "out_of_band_amount")
            if k in params
        },
    }


def _line(unit: Unit, invoice: Record, sent: Params) -> Json:
    line = {**DEFAULTS["credit_lines"], "id": unit.account.new_id("cnli_1"), **sent}
    if sent["type"] == "invoice_line_item":
        held = next(
            (x for x in invoice["_lines"] if x["id"] == sent.get("invoice_line_item")), None
        )
        if held is None:
            raise missing("line item", str(sent.get("invoice_line_item")), "lines", 400)
        line["description"] = line["description"] or held.get("description")
        return line | {"amount": sent.get("amount") or held["amount"]}
    each = sent.get("unit_amount_decimal") or str(sent.get("unit_amount") or 0)
    return line | {"amount": line_amount(str(sent.get("quantity") or 1), each)}


def _reduce(unit: Unit, invoice: Record, amount: int) -> None:
    reduced = unit.change(
        "invoices",
        invoice,
        amount_due=invoice["amount_due"] - amount,
        pre_payment_credit_notes_amount=invoice.get("pre_payment_credit_notes_amount", 0) + amount,
    )
    if reduced["status"] == "open" and reduced["amount_due"] == 0:
        payments.settle(unit, reduced, paid=0)
