"""What Stripe shows, told apart: our lines, other people's, and ours that other people changed."""

from decimal import Decimal

import pytest

from billing.invoicing.remote_invoice import SeenInvoice, SeenLine
from billing.invoicing.snapshot import StripeLine
from tests.support.snapshots import line_body, seen


def test_a_line_by_price_counts_as_stripe_shows_it() -> None:
    """Our metadata says what we sent; a person may have changed the quantity since."""
    line = SeenLine.from_stripe(
        line_body("il_1", 8, "cpu", price="price_cpu", quantity="4", told="1")
    )

    assert line == SeenLine("cpu", StripeLine("il_1", Decimal(4), "price_cpu", 8))


def test_a_credit_counts_as_our_metadata_says() -> None:
    """To Stripe it is a bare amount; its price may be one that Stripe made up for it."""
    body = line_body("il_1", -8, "cpu", price="price_made_up", told="-4")

    assert SeenLine.from_stripe(body).standing == StripeLine("il_1", Decimal(-4), "price_cpu", -8)


def test_an_expanded_price_is_its_id() -> None:
    """Stripe gives the whole object where it was asked to."""
    body = line_body("il_1", 8, "cpu", price="x", quantity="4", told="4")
    body["pricing"]["price_details"]["price"] = {"id": "price_cpu"}

    assert SeenLine.from_stripe(body).standing.price == "price_cpu"


@pytest.mark.parametrize("told", ["many", None])
def test_metadata_that_a_person_spoilt_is_no_quantity(told: str | None) -> None:
    """The line is still ours, and the next plan sets it right."""
    body = line_body("il_1", 8, "rest", told=told)

    assert SeenLine.from_stripe(body) == SeenLine("rest", StripeLine("il_1", Decimal(1), "", 8))


def test_a_line_without_our_metadata_is_somebody_elses() -> None:
    """It takes room, and is left alone."""
    invoice = seen(line_body("il_1", 8), line_body("il_2", 8, "cpu", told="-4"))

    assert invoice.foreign == 1
    assert [key for key, _ in invoice.ours] == ["cpu"]


@pytest.mark.parametrize(("mark", "seq"), [("12", 12), ("", 0), ("x", 0)])
def test_the_mark_of_the_last_flush(mark: str, seq: int) -> None:
    """Zero when no flush of ours has reached the invoice."""
    assert seen(gw_seq=mark, gw_ver="3:c").seq == seq
    assert seen(gw_seq=mark, gw_ver="3:c").version == "3:c"


def test_all_lines_may_be_read_apart() -> None:
    """An answer embeds the first ten."""
    body = {"id": "in_1", "status": "open", "lines": {"data": [], "has_more": True}}
    invoice = SeenInvoice.from_stripe(body, [line_body("il_1", 8)])

    assert (len(invoice.lines), invoice.is_draft, invoice.created) == (1, False, 0)
