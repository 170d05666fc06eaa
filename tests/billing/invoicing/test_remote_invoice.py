"""Parsing of Stripe's invoices: our lines, foreign lines, and our lines that a person changed."""

from decimal import Decimal

import pytest

from billing.invoicing.remote_invoice import RemoteInvoice, RemoteLine, originals
from billing.invoicing.snapshot import StripeLine
from billing.usage import REST_LINE, LineKey
from tests.support.snapshots import line_body, remote_invoice


def test_line_by_price_has_stripes_quantity() -> None:
    """Our metadata has the sent quantity; a person may have changed the line since."""
    line = RemoteLine.from_stripe(
        line_body("il_1", 8, "cpu", price="price_cpu", quantity="4", sent="1")
    )

    assert line == RemoteLine(LineKey("cpu"), StripeLine("il_1", Decimal(4), "price_cpu", 8))


def test_credit_has_metadata_quantity_and_price() -> None:
    """Stripe has it as a bare amount, perhaps with a price that Stripe generated."""
    body = line_body("il_1", -8, "cpu", price="price_made_up", sent="-4")

    assert RemoteLine.from_stripe(body).line == StripeLine("il_1", Decimal(-4), "price_cpu", -8)


def test_expanded_price_is_its_id() -> None:
    """Stripe sends the whole object if the request expands it."""
    body = line_body("il_1", 8, "cpu", price="x", quantity="4", sent="4")
    body["pricing"]["price_details"]["price"] = {"id": "price_cpu"}

    assert RemoteLine.from_stripe(body).line.price == "price_cpu"


@pytest.mark.parametrize("sent", ["many", None])
def test_invalid_metadata_quantity_is_ignored(sent: str | None) -> None:
    """The line is still ours, and the next flush repairs it."""
    body = line_body("il_1", 8, "rest", sent=sent)

    assert RemoteLine.from_stripe(body) == RemoteLine(
        REST_LINE, StripeLine("il_1", Decimal(1), "", 8)
    )


def test_line_without_our_metadata_is_foreign() -> None:
    """It takes room and is never changed."""
    invoice = remote_invoice(line_body("il_1", 8), line_body("il_2", 8, "cpu", sent="-4"))

    assert invoice.foreign_line_count == 1
    assert [key for key, _ in invoice.own_lines] == ["cpu"]


@pytest.mark.parametrize(("mark", "seq"), [("12", 12), ("", 0), ("x", 0)])
def test_sequence_number_comes_from_metadata(mark: str, seq: int) -> None:
    """Zero if no flush of ours reached the invoice."""
    assert remote_invoice(gw_seq=mark, gw_ver="3:c").seq == seq
    assert remote_invoice(gw_seq=mark, gw_ver="3:c").version == "3:c"


def test_lines_may_be_fetched_separately() -> None:
    """A response embeds the first ten."""
    body = {"id": "in_1", "status": "open", "lines": {"data": [], "has_more": True}}
    invoice = RemoteInvoice.from_stripe(body, [line_body("il_1", 8)])

    assert (len(invoice.lines), invoice.is_draft, invoice.created) == (1, False, 0)


def test_copies_of_bills_are_no_originals() -> None:
    """Only a later invoice of the very same flush is one; two drafts of one flush are left to the flush."""

    def invoice(number: int, status: str, seq: str, version: str) -> RemoteInvoice:
        metadata = {"gw_period": "2026-11", "gw_seq": seq, "gw_ver": version}
        return RemoteInvoice(f"in_{number}", status, number, metadata, ())

    bill = invoice(1, "open", "2", "3:a")
    ours = [bill, invoice(2, "paid", "3", "3:a"), invoice(3, "open", "2", "3:b")]
    copies = [invoice(4, "draft", "2", "3:a"), invoice(5, "void", "2", "3:a")]
    drafts = [invoice(6, "draft", "9", "4:c"), invoice(7, "draft", "9", "4:c")]

    assert originals([*copies, *reversed(drafts), *reversed(ours)]) == [*ours, *drafts]
