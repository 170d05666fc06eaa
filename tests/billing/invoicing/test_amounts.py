"""A period's amounts, breakdowns, drift and preview, each from one snapshot."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing.invoicing import requests
from billing.invoicing.amounts import (
    DriftKind,
    compute_amounts,
    find_drift,
    preview_flush,
    usage_by_group,
)
from billing.invoicing.request_batch import RequestBatch
from billing.money import Money
from billing.usage import LineKey
from tests.support.snapshots import (
    line_body,
    planned_line,
    price,
    remote_invoice,
    snapshot,
    stripe_line,
)

PRICES = {item.id: item for item in (price("cpu"), price("ram", "0.5"), price("net", "10"))}


def _usd(amount: str) -> Money:
    return Money(Decimal(amount), "usd")


def test_recorded_usage_is_pending_until_stripe_has_it() -> None:
    """In Stripe, claimed by a running flush, and pending add up to the total."""
    batch = RequestBatch(5, "3:c", "0", 0, (), {LineKey("cpu"): planned_line("4", "price_cpu", 8)})
    at = snapshot({"cpu": "5"}, lines=dict([stripe_line("cpu", "3", 6)]), batch=batch)

    amounts = compute_amounts(at, PRICES)

    assert (amounts.in_stripe, amounts.claimed) == (_usd("0.06"), _usd("0.02"))
    assert (amounts.pending, amounts.total) == (_usd("0.02"), _usd("0.10"))


def test_rounding_by_stripe_is_not_pending() -> None:
    """Half a cent that Stripe rounded down, where we would have rounded it up, is billed as Stripe has it."""
    lines = dict([stripe_line("ram", "5", 2), stripe_line("cpu", "3", 6)])
    at = snapshot({"ram": "5", "cpu": "4"}, lines=lines)

    amounts = compute_amounts(at, PRICES)

    assert (amounts.total, amounts.in_stripe) == (_usd("0.10"), _usd("0.08"))
    assert amounts.pending == _usd("0.02")


@given(
    st.lists(st.decimals(-1000, 1000, places=4), min_size=3, max_size=3),
    st.integers(-500, 500),
    st.one_of(st.none(), st.integers(-500, 500)),
)
def test_amounts_add_up_to_total(quantities: list[Decimal], sent: int, claimed: int | None) -> None:
    """For any signs, and with or without a request batch."""
    batch = None
    if claimed is not None:
        batch = RequestBatch(
            5, "3:c", "0", 0, (), {LineKey("cpu"): planned_line("1", "price_cpu", claimed)}
        )
    totals = dict(zip(["cpu", "ram", "net"], map(str, quantities), strict=True))
    at = snapshot(totals, lines=dict([stripe_line("cpu", "1", sent)]), batch=batch)

    amounts = compute_amounts(at, PRICES)

    assert amounts.in_stripe + amounts.claimed + amounts.pending == amounts.total


def test_pending_create_claims_nothing() -> None:
    """The draft that it creates is empty."""
    at = snapshot({"cpu": "5"}, invoice=None)

    assert compute_amounts(
        snapshot({"cpu": "5"}, batch=requests.create(at)), PRICES
    ).claimed == _usd("0")


def test_usage_rows_are_exact_and_sorted_by_amount() -> None:
    """Stripe rounds lines; a row shows all digits."""
    groups = {sku: {sku: Decimal(used)} for sku, used in (("ram", "0.001"), ("cpu", "3"))}
    rows = usage_by_group(groups, snapshot({"ram": "0.001", "cpu": "3"}), PRICES)

    assert [(row.key, row.amount) for row in rows] == [
        ("cpu", _usd("0.06")),
        ("ram", _usd("0.000005")),
    ]
    assert (rows[0].description, rows[0].unit, rows[0].quantity) == ("The cpu", "h", Decimal(3))


def test_credit_is_sorted_by_its_size() -> None:
    """The credit that makes a total stands above the charges that do not."""
    at = snapshot({"cpu": "5", "ram": "4", "net": "-600"})
    groups = {"web": {"cpu": Decimal(5)}, "api": {"net": Decimal(-600)}, "db": {"ram": Decimal(4)}}

    assert [row.key for row in usage_by_group(groups, at, PRICES)] == ["api", "web", "db"]


def test_usage_row_of_several_skus_has_no_description() -> None:
    """An app uses several SKUs; amounts add up, descriptions do not."""
    groups = {"web": {"cpu": Decimal(1), "net": Decimal(1)}, "db": {"net": Decimal(3)}}
    rows = usage_by_group(groups, snapshot({"cpu": "1", "net": "4"}), PRICES)

    assert [(row.key, row.description, row.amount) for row in rows] == [
        ("db", "The net", _usd("0.30")),
        ("web", None, _usd("0.12")),
    ]


def test_usage_row_names_its_unit_price_and_its_corrections() -> None:
    """A panel can show why a line costs what it costs, and what Support took off."""
    pinned = {"cpu": "price_cpu", "net": "price_net", "adj:adj_1": "price_cpu"}
    at = snapshot({"cpu": "3", "net": "1", "adj:adj_1": "-1"}, prices=pinned)
    groups = {"web": {"cpu": Decimal(3)}, "": {"adj:adj_1": Decimal(-1), "net": Decimal(1)}}
    rows = usage_by_group(groups, at, PRICES)

    assert [(row.key, row.unit_price, row.corrections) for row in rows] == [
        ("", None, _usd("-0.02")),
        ("web", _usd("0.02"), None),
    ]


def test_unchanged_invoice_has_no_drift() -> None:
    """Usage that is not yet sent is pending, not drift."""
    line = line_body("il_cpu", 2, "cpu", price="price_cpu", quantity="1", sent="1")

    assert (
        find_drift(
            snapshot({"cpu": "9"}, lines=dict([stripe_line("cpu", "1", 2)])),
            remote_invoice(line),
            PRICES,
        )
        == []
    )


def test_amount_that_is_not_quantity_times_price_is_drift() -> None:
    """Stripe counts packages where the ledger counts units; half a cent of rounding is no such thing."""
    lines = dict([stripe_line("cpu", "2500", 15), stripe_line("ram", "5", 2)])
    packages = line_body("il_cpu", 15, "cpu", price="price_cpu", quantity="2500", sent="2500")
    rounded = line_body("il_ram", 2, "ram", price="price_ram", quantity="5", sent="5")

    [line] = find_drift(snapshot({}, lines=lines), remote_invoice(packages, rounded), PRICES)

    assert (line.key, line.kind, line.amount) == ("cpu", DriftKind.PRICE, _usd("-49.85"))


def test_drift_has_kind_and_amount() -> None:
    """The amount is Stripe's minus ours."""
    stored = dict(
        [
            stripe_line("cpu", "1", 2),
            stripe_line("ram", "4", 2),
            stripe_line("net", "1", 10),
        ]
    )
    found = find_drift(
        snapshot({}, lines=stored),
        remote_invoice(
            line_body("il_cpu", 6, "cpu", price="price_cpu", quantity="3", sent="1"),
            line_body("il_net", 12, "net", price="price_dear", quantity="1", sent="1"),
            line_body("il_net2", 10, "net", price="price_net", quantity="1", sent="1"),
            line_body("il_9", 500),
        ),
        PRICES,
    )

    assert [(line.key, line.line_id, line.kind, line.amount) for line in found] == [
        ("net", "il_net2", DriftKind.EXTRA, _usd("0.10")),
        ("cpu", "il_cpu", DriftKind.QUANTITY, _usd("0.04")),
        ("ram", None, DriftKind.MISSING, _usd("-0.02")),
        ("net", "il_net", DriftKind.PRICE, _usd("0.02")),
        (None, "il_9", DriftKind.EXTRA, _usd("5")),
    ]


def test_deleted_invoice_misses_every_line() -> None:
    """A person deleted the draft."""
    (line,) = find_drift(snapshot({}, lines=dict([stripe_line("cpu", "1", 2)])), None, PRICES)

    assert line.kind is DriftKind.MISSING


def test_preview_counts_calls() -> None:
    """One call creates the draft, one adds lines, by the ledger's stored lines."""
    first = preview_flush(snapshot({"cpu": "1"}, invoice=None), PRICES)
    later = preview_flush(snapshot({"cpu": "2"}, lines=dict([stripe_line("cpu", "1", 2)])), PRICES)

    assert (first.creates_invoice, first.calls) == (True, 2)
    assert (later.creates_invoice, later.calls) == (False, 1)
    assert [line.key for line in later.diff.updated] == ["cpu"]
