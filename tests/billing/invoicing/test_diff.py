"""Desired lines, their difference from the invoice, and the requests of it."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.invoicing import diff, requests
from billing.invoicing.diff import (
    AddedLine,
    UpdatedLine,
    desired_lines,
    diff_lines,
    requires_fetch,
)
from billing.invoicing.request_batch import RequestKind
from billing.usage import REST_LINE, LineKey, Period
from tests.support.snapshots import (
    NOVEMBER,
    line_body,
    planned_line,
    price,
    remote_invoice,
    snapshot,
    stripe_line,
)

PRICES = {item.id: item for item in (price("cpu"), price("ram", "0.5"), price("net", "10"))}


def test_line_amount_is_quantity_times_price() -> None:
    """Rounded per line, half away from zero, as Stripe does."""
    lines = desired_lines(snapshot({"cpu": "1.25", "ram": "-1"}), PRICES)

    assert lines == {
        "cpu": planned_line("1.25", "price_cpu", 3),
        "ram": planned_line("-1", "price_ram", -1),
    }


def test_zero_quantity_has_no_line() -> None:
    """Usage that was adjusted to zero leaves no line."""
    assert desired_lines(snapshot({"cpu": "0"}), PRICES) == {}


def test_lines_beyond_room_become_rest_line() -> None:
    """The first lines stay itemized; the others' amounts are summed."""
    lines = desired_lines(snapshot({"cpu": "1", "net": "2", "ram": "4"}), PRICES, room=2)

    assert lines == {"cpu": planned_line("1", "price_cpu", 2), REST_LINE: planned_line("2", "", 22)}


def test_usage_of_the_period_stays_itemized_longest() -> None:
    """Carried lines are rolled up first, then adjustments."""
    prices = {**PRICES, "price_adj_x": price("cpu")}
    totals = {"cpu~2026-10": "1", "adj:x": "1", "net": "1"}

    assert list(desired_lines(snapshot(totals), prices, room=2)) == ["net", REST_LINE]


def test_matching_line_makes_no_diff() -> None:
    """A matching line stays, whatever amount Stripe rounded it to."""
    lines = {LineKey("cpu"): planned_line("1.25", "price_cpu", 3)}

    assert not diff_lines(lines, [stripe_line("cpu", "1.25", 2)])


def test_changed_quantity_is_updated() -> None:
    """Updates are absolute, so sending one twice changes nothing."""
    diff = diff_lines(
        {LineKey("cpu"): planned_line("2", "price_cpu", 4)}, [stripe_line("cpu", "1", 2)]
    )

    assert [(line.key, line.current.id) for line in diff.updated] == [("cpu", "il_cpu")]
    assert not diff.added
    assert not diff.removed


def test_changed_price_is_updated() -> None:
    """A person chose another price in the Dashboard."""
    lines = {LineKey("cpu"): planned_line("1", "price_cpu", 2)}

    assert diff_lines(lines, [stripe_line("cpu", "1", 9, "price_other")]).updated


def test_line_that_crosses_zero_is_replaced() -> None:
    """Stripe accepts no negative quantity: a credit is a bare amount, and a line cannot change its kind."""
    diff = diff_lines(
        {LineKey("cpu"): planned_line("-1", "price_cpu", -2)}, [stripe_line("cpu", "1", 2)]
    )

    assert [key for key, _ in diff.removed] == ["cpu"]
    assert [line.key for line in diff.added] == ["cpu"]


def test_duplicated_line_keeps_the_oldest() -> None:
    """However the duplicate came to be."""
    key, second = stripe_line("cpu", "1", 2)
    first = stripe_line("cpu", "1", 2)[1]
    lines = {key: planned_line("1", "price_cpu", 2)}

    diff = diff_lines(lines, [(key, first), (key, second)])

    assert diff.removed == [(key, second)]
    assert not diff.added


def test_typed_amount_is_replaced() -> None:
    """A line that lost its price cannot be updated by quantity."""
    body = line_body("il_1", 700, "cpu", sent="1")
    diff = diff_lines(
        {LineKey("cpu"): planned_line("1", "price_cpu", 2)}, remote_invoice(body).own_lines
    )

    assert [key for key, _ in diff.removed] == ["cpu"]
    assert [line.key for line in diff.added] == ["cpu"]


@pytest.mark.parametrize(
    ("totals", "lines", "required"),
    [
        ({"cpu": "1"}, {}, True),
        ({"cpu": "2"}, {"cpu": "1"}, False),
        ({"cpu": "0"}, {"cpu": "1"}, False),
        ({"cpu": "-1"}, {"cpu": "1"}, True),
    ],
    ids=["new line", "known line", "removed line", "line that changes its kind"],
)
def test_fetch_is_required_only_before_adding_a_line(
    totals: dict[str, str], lines: dict[str, str], required: bool
) -> None:
    """Stripe limits reads; changing a known line is absolute and needs none."""
    current = dict(stripe_line(key, quantity, 2) for key, quantity in lines.items())

    assert requires_fetch(snapshot(totals, lines=current)) is required


def test_requested_verify_requires_fetch() -> None:
    """A person may have changed the invoice."""
    assert requires_fetch(snapshot({}, verify_requested="1@1:e"))


def test_requests_are_idempotent() -> None:
    """The key has nothing random, the figures are absolute, and metadata marks the invoice."""
    at = snapshot({"cpu": "1.50", "ram": "-4"})
    lines = desired_lines(at, PRICES)
    batch = requests.edit_lines(at, diff_lines(lines, []), lines, PRICES, seq=7)

    (request,) = batch.requests
    assert request.idempotency_key == "gw1:cus_1:2026-11:0:7:0"
    assert request.path == "/v1/invoices/in_1/add_lines"
    assert request.params["invoice_metadata"] == {"gw_seq": "7", "gw_ver": "3:c", "gw_epoch": "1:e"}
    assert request.params["lines"] == [
        {
            "description": "The cpu",
            "period": {"start": 1_793_491_200, "end": 1_796_083_199},
            "pricing": {"price": "price_cpu"},
            "quantity_decimal": "1.5",
            "metadata": {"gw_line": "cpu", "gw_quantity": "1.5", "gw_price": "price_cpu"},
        },
        {
            "description": "The ram: credit for 4 h",
            "period": {"start": 1_793_491_200, "end": 1_796_083_199},
            "amount": -2,
            "metadata": {"gw_line": "ram", "gw_quantity": "-4", "gw_price": "price_ram"},
        },
    ]
    assert batch.expected_lines == lines
    assert batch.version == at.version


def test_removals_go_first_in_small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full invoice has room for new lines only after removals."""
    monkeypatch.setattr(diff, "LINES_PER_CALL", 1)
    at = snapshot({"cpu": "2", "net": "1", "ram": "1"})
    lines = desired_lines(at, PRICES)
    current = [stripe_line("old", "1", 1), stripe_line("cpu", "1", 2)]
    batch = requests.edit_lines(at, diff_lines(lines, current), lines, PRICES, seq=1)

    kinds = [request.kind for request in batch.requests]
    assert kinds == [
        RequestKind.REMOVE_LINES,
        RequestKind.UPDATE_LINES,
        RequestKind.ADD_LINES,
        RequestKind.ADD_LINES,
    ]
    assert len({request.idempotency_key for request in batch.requests}) == 4


def test_carried_line_names_its_origin_period() -> None:
    """Late usage is billed later and says when it was used."""
    at = snapshot({"cpu~2026-10": "1"})
    lines = desired_lines(at, PRICES)
    (request,) = requests.edit_lines(at, diff_lines(lines, []), lines, PRICES, seq=1).requests

    (line,) = request.params["lines"]
    assert line["description"] == "The cpu (usage of October 2026)"
    assert line["period"] == {"start": 1_790_812_800, "end": 1_793_491_199}


def test_tilde_in_sku_is_not_a_period() -> None:
    """Customers choose SKU names."""
    assert requests.origin_period(LineKey("cpu~fast"), NOVEMBER) == NOVEMBER
    assert requests.origin_period(LineKey("cpu~fast~2026-10"), NOVEMBER) == Period(2026, 10)
    assert requests.origin_period(LineKey("cpu~2026-10~price_1"), NOVEMBER) == Period(2026, 10)


@given(
    st.dictionaries(
        st.sampled_from(["cpu", "ram", "net"]),
        st.decimals(-1000, 1000, places=3),
    ),
    st.dictionaries(
        st.sampled_from(["cpu", "ram", "net", "old"]),
        st.decimals(-1000, 1000, places=3).filter(bool),
    ),
    st.integers(1, 4),
)
def test_applied_diff_leaves_no_diff(
    totals: dict[str, Decimal], current: dict[str, Decimal], room: int
) -> None:
    """Whatever lines were there: once the diff is applied, the next one is empty."""
    at = snapshot({key: str(quantity) for key, quantity in totals.items()})
    lines = desired_lines(at, PRICES, room=room)
    before = [stripe_line(key, str(quantity), 1) for key, quantity in current.items()]
    diff = diff_lines(lines, before)

    after = dict(before)
    for key, _ in diff.removed:
        del after[key]
    changes: list[UpdatedLine | AddedLine] = [*diff.updated, *diff.added]
    for changed in changes:
        price_id = "" if changed.key == REST_LINE else changed.line.price
        after[changed.key] = stripe_line(
            changed.key, str(changed.line.quantity), changed.line.amount, price_id
        )[1]
    assert not diff_lines(lines, after.items())
    assert len(lines) <= room
