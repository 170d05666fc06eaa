"""The numbers of a period, each answer from one snapshot."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing.invoicing import requests
from billing.invoicing.amounts import DriftKind, bill, drift, preview, usage_by, usage_by_sku
from billing.invoicing.snapshot import Flight
from billing.money import Money
from billing.usage import LineKey
from tests.support.snapshots import line_body, planned, price, seen, snapshot, standing

PRICES = {each.id: each for each in (price("cpu"), price("ram", "0.5"), price("net", "10"))}


def _usd(amount: str) -> Money:
    return Money(Decimal(amount), "usd")


def test_recorded_usage_is_pending_until_stripe_has_it() -> None:
    """In Stripe, claimed by a flush under way, pending: together the total."""
    flight = Flight(5, "3:c", "0", 0, (), {LineKey("cpu"): planned("4", "price_cpu", 8)})
    at = snapshot({"cpu": "5"}, lines=dict([standing("cpu", "3", 6)]), flight=flight)

    numbers = bill(at, PRICES)

    assert (numbers.in_stripe, numbers.claimed) == (_usd("0.06"), _usd("0.02"))
    assert (numbers.pending, numbers.total) == (_usd("0.02"), _usd("0.10"))


@given(
    st.lists(st.decimals(-1000, 1000, places=4), min_size=3, max_size=3),
    st.integers(-500, 500),
    st.one_of(st.none(), st.integers(-500, 500)),
)
def test_the_parts_are_the_total(quantities: list[Decimal], told: int, flying: int | None) -> None:
    """Always, whatever signs and whatever is in flight."""
    flight = None
    if flying is not None:
        flight = Flight(5, "3:c", "0", 0, (), {LineKey("cpu"): planned("1", "price_cpu", flying)})
    totals = dict(zip(["cpu", "ram", "net"], map(str, quantities), strict=True))
    at = snapshot(totals, lines=dict([standing("cpu", "1", told)]), flight=flight)

    numbers = bill(at, PRICES)

    assert numbers.in_stripe + numbers.claimed + numbers.pending == numbers.total


def test_a_create_under_way_claims_nothing() -> None:
    """The draft that it makes is empty."""
    at = snapshot({"cpu": "5"}, invoice=None)

    assert bill(snapshot({"cpu": "5"}, flight=requests.create(at)), PRICES).claimed == _usd("0")


def test_rows_are_exact_and_the_dearest_comes_first() -> None:
    """Stripe rounds lines; a row shows every digit."""
    rows = usage_by_sku(snapshot({"ram": "0.001", "cpu": "3", "net": "0"}), PRICES)

    assert [(row.key, row.amount) for row in rows] == [
        ("cpu", _usd("0.06")),
        ("ram", _usd("0.000005")),
    ]
    assert (rows[0].description, rows[0].unit, rows[0].quantity) == ("The cpu", "h", Decimal(3))


def test_a_row_of_several_skus_has_no_one_description() -> None:
    """An app uses many things; their amounts add up, their names do not."""
    groups = {"web": {"cpu": Decimal(1), "net": Decimal(1)}, "db": {"net": Decimal(3)}}
    rows = usage_by(groups, snapshot({"cpu": "1", "net": "4"}), PRICES)

    assert [(row.key, row.description, row.amount) for row in rows] == [
        ("db", "The net", _usd("0.30")),
        ("web", None, _usd("0.12")),
    ]


def test_an_invoice_as_we_left_it_has_not_drifted() -> None:
    """Usage that Stripe has yet to be told is pending, which is no drift."""
    line = line_body("il_cpu", 2, "cpu", price="price_cpu", quantity="1", told="1")

    assert drift(snapshot({"cpu": "9"}, lines=dict([standing("cpu", "1", 2)])), seen(line)) == []


def test_every_kind_of_drift_is_named() -> None:
    """With what it comes to: Stripe's amount less ours."""
    known = dict(
        [
            standing("cpu", "1", 2),
            standing("ram", "4", 2),
            standing("net", "1", 10),
        ]
    )
    found = drift(
        snapshot({}, lines=known),
        seen(
            line_body("il_cpu", 6, "cpu", price="price_cpu", quantity="3", told="1"),
            line_body("il_net", 12, "net", price="price_dear", quantity="1", told="1"),
            line_body("il_net2", 10, "net", price="price_net", quantity="1", told="1"),
            line_body("il_9", 500),
        ),
    )

    assert [(each.key, each.line_id, each.kind, each.amount) for each in found] == [
        ("net", "il_net2", DriftKind.EXTRA, _usd("0.10")),
        ("cpu", "il_cpu", DriftKind.QUANTITY, _usd("0.04")),
        ("ram", None, DriftKind.MISSING, _usd("-0.02")),
        ("net", "il_net", DriftKind.PRICE, _usd("0.02")),
        (None, "il_9", DriftKind.EXTRA, _usd("5")),
    ]


def test_an_invoice_that_is_gone_has_lost_every_line() -> None:
    """Somebody deleted the draft."""
    (line,) = drift(snapshot({}, lines=dict([standing("cpu", "1", 2)])), None)

    assert line.kind is DriftKind.MISSING


def test_a_preview_counts_the_calls() -> None:
    """One to make the draft, one to add, as things stand in the ledger."""
    first = preview(snapshot({"cpu": "1"}, invoice=None), PRICES)
    later = preview(snapshot({"cpu": "2"}, lines=dict([standing("cpu", "1", 2)])), PRICES)

    assert (first.creates_invoice, first.calls) == (True, 2)
    assert (later.creates_invoice, later.calls) == (False, 1)
    assert [each.key for each in later.change.updated] == ["cpu"]
