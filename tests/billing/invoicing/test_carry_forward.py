"""Residuals of a finalized invoice, which the next period bills."""

from decimal import Decimal

import pytest

from billing.invoicing.carry_forward import residuals
from billing.usage import Price
from tests.support.snapshots import line_body, price, remote_invoice, snapshot

PRICES: dict[str, Price] = {
    item.id: item for item in (price("cpu"), price("ram", "0.5"), price("rest"))
}


def _residuals(totals: dict[str, str], *lines: dict[str, object]) -> dict[str, Decimal]:
    lines_of_invoice = remote_invoice(*lines, status="open").own_lines
    left = residuals(snapshot(totals), lines_of_invoice, PRICES)
    return {str(key): quantity for key, quantity in left.items()}


def test_agreeing_invoice_leaves_no_residual() -> None:
    """Even if Stripe rounded a line differently."""
    line = line_body("il_1", 3, "cpu", price="price_cpu", quantity="1.25", sent="1.25")
    rounded = {**line, "amount": 2}

    assert _residuals({"cpu": "1.25"}, line) == {}
    assert _residuals({"cpu": "1.25"}, rounded) == {}


def test_late_usage_is_residual() -> None:
    """Usage after the last flush, or a line that a person deleted."""
    line = line_body("il_1", 2, "cpu", price="price_cpu", quantity="1", sent="1")

    assert _residuals({"cpu": "1.5", "ram": "3"}, line) == {
        "cpu": Decimal("0.5"),
        "ram": Decimal(3),
    }


def test_duplicated_line_is_credited() -> None:
    """A duplicated line on an invoice that a person finalized."""
    line = line_body("il_1", 2, "cpu", price="price_cpu", quantity="1", sent="1")

    assert _residuals({"cpu": "1"}, line, {**line, "id": "il_2"}) == {"cpu": Decimal(-1)}


@pytest.mark.parametrize(
    ("line", "residual"),
    [
        (line_body("il_1", 4, "cpu", price="price_cpu", quantity="2", sent="5"), "3"),
        (line_body("il_1", 6, "cpu", sent="5"), "2"),
        (line_body("il_1", 30, "cpu", price="price_dear", quantity="5", sent="5"), "-10"),
    ],
    ids=["another quantity", "a bare amount", "another price"],
)
def test_edited_line_counts_by_its_amount(line: dict[str, object], residual: str) -> None:
    """Over both invoices the customer pays exactly the usage."""
    assert _residuals({"cpu": "5"}, line) == {"cpu": Decimal(residual)}


def test_typed_amount_counts_on_line_lost_by_ledger() -> None:
    """The line's metadata names its price."""
    assert _residuals({}, line_body("il_1", 6, "cpu", sent="5")) == {"cpu": Decimal(-3)}


def test_credit_counts_by_metadata_quantity() -> None:
    """Stripe has it as a bare amount, with the quantity in its metadata."""
    line = line_body("il_1", -2, "ram", sent="-3")

    assert _residuals({"ram": "-3"}, line) == {}
    assert _residuals({"ram": "-3"}, {**line, "amount": -4}) == {"ram": Decimal(5)}


def test_line_lost_by_ledger_is_credited() -> None:
    """After a rewind without replay, Stripe has more than the ledger."""
    line = line_body("il_1", 2, "cpu", price="price_cpu", quantity="1", sent="1")

    assert _residuals({}, line) == {"cpu": Decimal(-1)}


def test_rest_line_bills_its_members() -> None:
    """No invoice line names them; the amount of the rest covers them."""
    rest = line_body("il_1", 12, "rest", sent="2")

    assert _residuals({"cpu": "5", "ram": "4"}, rest) == {}


def test_too_small_rest_line_leaves_residual() -> None:
    """One member gets the quantity that the missing amount buys."""
    rest = line_body("il_1", 8, "rest", sent="2")

    assert _residuals({"cpu": "5", "ram": "4"}, rest) == {"cpu": Decimal(2)}


@pytest.mark.parametrize(("amount", "expected"), [(10, {}), (8, {"rest": Decimal(1)})])
def test_sku_named_rest_is_billed_within_rest_line(
    amount: int, expected: dict[str, Decimal]
) -> None:
    """Such a SKU is refused now, but an old ledger may have one."""
    line = line_body("il_1", amount, "rest", sent="5")

    assert _residuals({"rest": "5"}, line) == expected


def test_foreign_lines_bill_none_of_our_usage() -> None:
    """They are a matter between Support and the customer."""
    assert _residuals({"cpu": "1"}, line_body("il_9", 500)) == {"cpu": Decimal(1)}
