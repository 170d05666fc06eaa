"""Lost usage: which invoices an unknown flush wrote, and which of their lines the ledger has not."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from billing.invoicing import rewind
from billing.invoicing.remote_invoice import RemoteInvoice, RemoteLine
from billing.invoicing.request_batch import RequestBatch
from billing.invoicing.snapshot import Hold, StripeLine
from billing.usage import LineKey, Price
from tests.support.snapshots import snapshot


def invoice(seq: str, version: str = "3:c") -> RemoteInvoice:
    """Return a draft that names its last flush."""
    return RemoteInvoice("in_1", "draft", 0, {"gw_seq": seq, "gw_ver": version}, ())


def line(key: str, quantity: str, amount: int) -> tuple[LineKey, StripeLine]:
    """Return one of our lines as Stripe shows it."""
    return LineKey(key), StripeLine("il_1", Decimal(quantity), f"price_{key}", amount)


@pytest.mark.parametrize(
    ("seq", "version", "facts", "unknown"),
    [
        ("4", "3:c", {}, False),
        ("5", "3:c", {}, True),
        ("5", "3:c", {"batch": RequestBatch(5, "3:c", "", 0, ())}, False),
        ("4", "4:x", {}, True),
        ("4", "4:x", {"stripe_version": "4:x"}, False),
        ("4", "4:y", {"stripe_version": "5:x"}, False),
        ("4", "6:y", {"stripe_version": "5:x"}, True),
        ("4", "3:other", {}, False),
        ("", "what?", {}, False),
    ],
)
def test_flush_above_all_that_the_ledger_knows_is_unknown(
    seq: str, version: str, facts: dict[str, Any], unknown: bool
) -> None:
    """Its number, or the counter of its version; a batch that is under way and a reviewed version are known."""
    found = rewind.unknown_flush(replace(snapshot(), **facts), [invoice(seq, version)])

    assert (found is not None) is unknown


def test_lines_without_a_number_are_of_an_unknown_flush_if_the_ledger_has_sent_none() -> None:
    """Stripe added some of the lines, failed, and the ledger was replaced: nothing else tells of them."""
    written = replace(invoice("0", ""), lines=(RemoteLine(*line("cpu", "4", 8)),))

    assert rewind.unknown_flush(replace(snapshot(), seq=0), [written]) is written
    assert rewind.unknown_flush(replace(snapshot(), seq=1), [written]) is None
    assert rewind.unknown_flush(replace(snapshot(), seq=0), [invoice("0", "")]) is None


def test_latest_unknown_flush_counts_as_rewind_evidence() -> None:
    """A hold is placed once for it, whatever other invoices show."""
    found = rewind.unknown_flush(snapshot(), [invoice("5"), invoice("7"), invoice("6")])

    assert found is not None
    assert found.seq == 7


@pytest.mark.parametrize(
    ("totals", "shown", "amount"),
    [
        ({"cpu": "4"}, line("cpu", "4", 8), None),
        ({"cpu": "5"}, line("cpu", "4", 8), None),
        ({"cpu": "1"}, line("cpu", "4", 8), 6),
        ({"cpu": "-1"}, line("cpu", "4", 8), 10),
        ({}, line("cpu", "4", 8), 8),
        ({"cpu": "-4"}, line("cpu", "-4", -8), None),
        ({"cpu": "-1"}, line("cpu", "-4", -8), -6),
        ({"cpu": "-5"}, line("cpu", "-4", -8), 2),
        ({"adj:adj_1_1": "-4"}, line("adj:adj_1_1", "-4", -8), None),
        ({"adj:adj_1_1": "-9"}, line("adj:adj_1_1", "-4", -8), -8),
        ({}, line("adj:adj_1_1", "-4", -8), -8),
        ({}, line("cpu~2026-10", "3", 6), 6),
        ({"cpu": "4"}, line("cpu", "0", 0), None),
        ({"cpu": "-4"}, line("cpu", "0", 0), None),
    ],
)
def test_line_of_which_the_ledger_has_less_is_lost_usage(
    totals: dict[str, str], shown: tuple[LineKey, StripeLine], amount: int | None
) -> None:
    """A smaller quantity, a smaller credit, or an adjustment that it does not know; the rest may be sent."""
    lost = rewind.lost_usage(snapshot(totals), [shown], {})

    assert [usage.amount for usage in lost] == ([] if amount is None else [amount])


def test_rolled_up_line_is_compared_by_its_amount() -> None:
    """Its parts stand nowhere at Stripe; lines that are itemized are no part of it."""
    state = snapshot({"cpu": "4", "ram": "3", "disk": "2"})
    prices = {price: Price(price, "sku", "usd", Decimal(2)) for price in state.prices.values()}

    def lost(amount: int) -> list[int]:
        lines = [line("cpu", "4", 8), line("rest", "2", amount)]
        return [usage.amount for usage in rewind.lost_usage(state, lines, prices)]

    assert (lost(9), lost(10), lost(14)) == ([], [], [4])


def test_hold_is_recognized_by_its_author_and_month() -> None:
    """Another month's, a person's, or a period without lost usage does not end by itself."""
    state = snapshot()
    reason = rewind.hold_reason(state, invoice("5"), [])
    ours = replace(state, rewound=True, hold=Hold(reason, "gateway", 1))

    assert rewind.is_rewind_hold(ours)
    assert not rewind.is_rewind_hold(replace(ours, period=state.period.next()))
    assert not rewind.is_rewind_hold(replace(ours, hold=Hold(reason, "ann", 1)))
    assert not rewind.is_rewind_hold(replace(ours, hold=Hold("voided", "gateway", 1)))
