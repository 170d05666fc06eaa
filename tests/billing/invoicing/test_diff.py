"""What a flush would send: pure, so every case is one call."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.invoicing import diff, requests
from billing.invoicing.diff import difference, needs_reading, wanted
from billing.invoicing.snapshot import OpKind
from billing.usage import REST, LineKey, Period
from tests.support.snapshots import NOVEMBER, line_body, planned, price, seen, snapshot, standing

PRICES = {each.id: each for each in (price("cpu"), price("ram", "0.5"), price("net", "10"))}


def test_a_line_is_its_quantity_at_its_price() -> None:
    """Rounded by itself, half away from zero, as Stripe does."""
    lines = wanted(snapshot({"cpu": "1.25", "ram": "-1"}), PRICES)

    assert lines == {"cpu": planned("1.25", "price_cpu", 3), "ram": planned("-1", "price_ram", -1)}


def test_a_line_of_nothing_is_not_on_the_invoice() -> None:
    """Usage that was corrected to zero leaves no line behind."""
    assert wanted(snapshot({"cpu": "0"}), PRICES) == {}


def test_what_does_not_fit_is_billed_as_one_line() -> None:
    """The first lines stay by themselves; the others' amounts are the rest's."""
    lines = wanted(snapshot({"cpu": "1", "net": "2", "ram": "4"}), PRICES, room=2)

    assert lines == {"cpu": planned("1", "price_cpu", 2), REST: planned("2", "", 22)}


def test_usage_of_the_month_stays_by_itself_longest() -> None:
    """What is rolled up first is what was carried here, then corrections."""
    prices = {**PRICES, "price_adj_x": price("cpu")}
    totals = {"cpu~2026-10": "1", "adj:x": "1", "net": "1"}

    assert list(wanted(snapshot(totals), prices, room=2)) == ["net", REST]


def test_nothing_to_do_is_no_difference() -> None:
    """A line that stands as it should is left alone, whatever amount Stripe rounded it to."""
    lines = {LineKey("cpu"): planned("1.25", "price_cpu", 3)}

    assert not difference(lines, [standing("cpu", "1.25", 2)])


def test_a_changed_quantity_is_updated_in_place() -> None:
    """Absolute, so that sending it twice changes nothing."""
    change = difference({LineKey("cpu"): planned("2", "price_cpu", 4)}, [standing("cpu", "1", 2)])

    assert [(each.key, each.was.id) for each in change.updated] == [("cpu", "il_cpu")]
    assert not change.added
    assert not change.removed


def test_a_line_by_another_price_is_set_right() -> None:
    """Somebody chose another price in the Dashboard."""
    lines = {LineKey("cpu"): planned("1", "price_cpu", 2)}

    assert difference(lines, [standing("cpu", "1", 9, "price_other")]).updated


def test_a_line_that_crosses_zero_is_replaced() -> None:
    """Stripe takes no negative quantity: a credit is a bare amount, and a line can't change its form."""
    change = difference({LineKey("cpu"): planned("-1", "price_cpu", -2)}, [standing("cpu", "1", 2)])

    assert [key for key, _ in change.removed] == ["cpu"]
    assert [each.key for each in change.added] == ["cpu"]


def test_of_a_doubled_line_the_oldest_stays() -> None:
    """However it came to be there."""
    key, second = standing("cpu", "1", 2)
    first = standing("cpu", "1", 2)[1]
    lines = {key: planned("1", "price_cpu", 2)}

    change = difference(lines, [(key, first), (key, second)])

    assert change.removed == [(key, second)]
    assert not change.added


def test_an_amount_that_a_person_typed_is_replaced() -> None:
    """A line by price that lost its price is no longer ours to update by quantity."""
    body = line_body("il_1", 700, "cpu", told="1")
    change = difference({LineKey("cpu"): planned("1", "price_cpu", 2)}, seen(body).ours)

    assert [key for key, _ in change.removed] == ["cpu"]
    assert [each.key for each in change.added] == ["cpu"]


@pytest.mark.parametrize(
    ("totals", "lines", "reads"),
    [
        ({"cpu": "1"}, {}, True),
        ({"cpu": "2"}, {"cpu": "1"}, False),
        ({"cpu": "0"}, {"cpu": "1"}, False),
        ({"cpu": "-1"}, {"cpu": "1"}, True),
    ],
    ids=["a new line", "a known line", "a line that goes", "a line that changes its form"],
)
def test_only_what_adds_a_line_reads_first(
    totals: dict[str, str], lines: dict[str, str], reads: bool
) -> None:
    """Reads are rationed by Stripe; changing a known line is absolute and needs none."""
    known = dict(standing(key, quantity, 2) for key, quantity in lines.items())

    assert needs_reading(snapshot(totals, lines=known)) is reads


def test_a_verify_that_was_asked_for_reads() -> None:
    """Somebody may have changed the invoice."""
    assert needs_reading(snapshot({}, verify_requested="1@1:e"))


def test_requests_carry_what_makes_them_safe_to_repeat() -> None:
    """A key without anything random, absolute figures, and a mark that shows at the invoice."""
    at = snapshot({"cpu": "1.50", "ram": "-4"})
    lines = wanted(at, PRICES)
    flight = requests.bulk(at, difference(lines, []), lines, PRICES, seq=7)

    (op,) = flight.ops
    assert op.key == "gw1:cus_1:2026-11:0:7:0"
    assert op.path == "/v1/invoices/in_1/add_lines"
    assert op.params["invoice_metadata"] == {"gw_seq": "7", "gw_ver": "3:c", "gw_epoch": "1:e"}
    assert op.params["lines"] == [
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
    assert flight.landed == lines
    assert flight.version == at.version


def test_removals_go_first_and_calls_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An invoice that is full has room for the new lines only after the old ones went."""
    monkeypatch.setattr(diff, "LINES_PER_CALL", 1)
    at = snapshot({"cpu": "2", "net": "1", "ram": "1"})
    lines = wanted(at, PRICES)
    known = [standing("old", "1", 1), standing("cpu", "1", 2)]
    flight = requests.bulk(at, difference(lines, known), lines, PRICES, seq=1)

    kinds = [op.kind for op in flight.ops]
    assert kinds == [OpKind.REMOVE_LINES, OpKind.UPDATE_LINES, OpKind.ADD_LINES, OpKind.ADD_LINES]
    assert len({op.key for op in flight.ops}) == 4


def test_a_carried_line_names_the_month_it_was_used_in() -> None:
    """Late usage is billed later, and says when it was used."""
    at = snapshot({"cpu~2026-10": "1"})
    lines = wanted(at, PRICES)
    (op,) = requests.bulk(at, difference(lines, []), lines, PRICES, seq=1).ops

    (line,) = op.params["lines"]
    assert line["description"] == "The cpu (usage of October 2026)"
    assert line["period"] == {"start": 1_790_812_800, "end": 1_793_491_199}


def test_a_tilde_in_a_sku_is_no_month() -> None:
    """SKUs are other people's names."""
    assert requests.origin_of(LineKey("cpu~fast"), NOVEMBER) == NOVEMBER
    assert requests.origin_of(LineKey("cpu~fast~2026-10"), NOVEMBER) == Period(2026, 10)


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
def test_what_was_planned_leaves_nothing_to_plan(
    totals: dict[str, Decimal], known: dict[str, Decimal], room: int
) -> None:
    """Whatever stood there: after the plan has landed, the next plan is empty."""
    at = snapshot({key: str(quantity) for key, quantity in totals.items()})
    lines = wanted(at, PRICES, room=room)
    before = [standing(key, str(quantity), 1) for key, quantity in known.items()]
    change = difference(lines, before)

    after = dict(before)
    for key, _ in change.removed:
        del after[key]
    for each in (*change.updated, *change.added):
        price_id = "" if each.key == REST else each.line.price
        after[each.key] = standing(each.key, str(each.line.quantity), each.line.amount, price_id)[1]
    assert not difference(lines, after.items())
    assert len(lines) <= room
