"""What a finalized invoice leaves for the next one."""

from decimal import Decimal

import pytest

from billing.invoicing.carry_forward import residuals
from billing.usage import Price
from tests.support.snapshots import line_body, price, seen, snapshot

PRICES: dict[str, Price] = {
    each.id: each for each in (price("cpu"), price("ram", "0.5"), price("rest"))
}


def _left(totals: dict[str, str], *lines: dict[str, object]) -> dict[str, Decimal]:
    return dict(residuals(snapshot(totals), seen(*lines, status="open").ours, PRICES))


def test_an_invoice_that_agrees_leaves_nothing() -> None:
    """Also when Stripe rounded a line otherwise than we would have."""
    line = line_body("il_1", 3, "cpu", price="price_cpu", quantity="1.25", told="1.25")
    rounded = {**line, "amount": 2}

    assert _left({"cpu": "1.25"}, line) == {}
    assert _left({"cpu": "1.25"}, rounded) == {}


def test_late_usage_is_left() -> None:
    """Usage that came after the last flush, or a line that somebody deleted."""
    line = line_body("il_1", 2, "cpu", price="price_cpu", quantity="1", told="1")

    assert _left({"cpu": "1.5", "ram": "3"}, line) == {"cpu": Decimal("0.5"), "ram": Decimal(3)}


def test_what_was_billed_twice_comes_back_as_a_credit() -> None:
    """A doubled line on a bill that a person finalized."""
    line = line_body("il_1", 2, "cpu", price="price_cpu", quantity="1", told="1")

    assert _left({"cpu": "1"}, line, {**line, "id": "il_2"}) == {"cpu": Decimal(-1)}


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (line_body("il_1", 4, "cpu", price="price_cpu", quantity="2", told="5"), "3"),
        (line_body("il_1", 6, "cpu", told="5"), "2"),
        (line_body("il_1", 30, "cpu", price="price_dear", quantity="5", told="5"), "-10"),
    ],
    ids=["another quantity", "a bare amount", "another price"],
)
def test_what_a_person_changed_counts_as_what_it_came_to(
    line: dict[str, object], left: str
) -> None:
    """In money the customer pays exactly what was used, on this bill and the next together."""
    assert _left({"cpu": "5"}, line) == {"cpu": Decimal(left)}


def test_a_typed_amount_counts_also_on_a_line_that_the_ledger_has_lost() -> None:
    """The mark on the line names the price that it had."""
    assert _left({}, line_body("il_1", 6, "cpu", told="5")) == {"cpu": Decimal(-3)}


def test_a_credit_counts_by_its_quantity() -> None:
    """It went to Stripe as a bare amount, its quantity beside it."""
    line = line_body("il_1", -2, "ram", told="-3")

    assert _left({"ram": "-3"}, line) == {}
    assert _left({"ram": "-3"}, {**line, "amount": -4}) == {"ram": Decimal(5)}


def test_a_line_that_the_ledger_lost_is_credited() -> None:
    """After a rewind that nobody replayed, Stripe knows more than we do."""
    line = line_body("il_1", 2, "cpu", price="price_cpu", quantity="1", told="1")

    assert _left({}, line) == {"cpu": Decimal(-1)}


def test_lines_within_the_rest_are_billed() -> None:
    """No line of the invoice names them; its amount covers them."""
    rest = line_body("il_1", 12, "rest", told="2")

    assert _left({"cpu": "5", "ram": "4"}, rest) == {}


def test_a_rest_that_is_too_small_leaves_the_money() -> None:
    """To one of its lines, in the quantity that this much money buys."""
    rest = line_body("il_1", 8, "rest", told="2")

    assert _left({"cpu": "5", "ram": "4"}, rest) == {"cpu": Decimal(2)}


@pytest.mark.parametrize(("amount", "left"), [(10, {}), (8, {"rest": Decimal(1)})])
def test_a_sku_that_was_called_rest_is_billed_within_it(
    amount: int, left: dict[str, Decimal]
) -> None:
    """No such SKU is taken any more, but a ledger may hold one."""
    line = line_body("il_1", amount, "rest", told="5")

    assert _left({"rest": "5"}, line) == left


def test_other_peoples_lines_bill_nothing_of_ours() -> None:
    """They are between Support and the customer."""
    assert _left({"cpu": "1"}, line_body("il_9", 500)) == {"cpu": Decimal(1)}
