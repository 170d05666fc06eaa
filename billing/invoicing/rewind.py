"""Recognizes that the ledger has lost usage: an invoice was written by a flush that the ledger does not know. Pure.

A restored, emptied or replaced ledger is behind Stripe until producers have sent their usage again. A plain
restart loses nothing, so the ledger then knows every flush. Not recognized is usage that no invoice shows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from billing.invoicing.diff import Prices
from billing.invoicing.remote_invoice import RemoteInvoice
from billing.invoicing.snapshot import GATEWAY, Hold, Snapshot, StripeLine
from billing.money import EXACT, Money, line_amount
from billing.usage import ADJUSTMENT_PREFIX, REST_LINE, LineKey, Period

Lines = Iterable[tuple[LineKey, StripeLine]]


@dataclass(frozen=True, slots=True)
class LostUsage:
    """A line of which Stripe shows more than the ledger has; *amount* is the difference in minor units."""

    key: LineKey
    at_stripe: Decimal
    in_ledger: Decimal
    amount: int


def unknown_flush(snapshot: Snapshot, invoices: Iterable[RemoteInvoice]) -> RemoteInvoice | None:
    """Return the invoice that was written by the latest flush unknown to the ledger; None if there is none."""
    unknown = [invoice for invoice in invoices if not _is_known(snapshot, invoice)]
    return max(unknown, key=lambda invoice: invoice.seq, default=None)


def latest_version(invoices: Iterable[RemoteInvoice]) -> str:
    """Return the latest ledger version that any of *invoices* names; "" if none does."""
    return max((invoice.version or "" for invoice in invoices), key=_counter, default="")


def lost_usage(snapshot: Snapshot, lines: Lines, prices: Prices) -> list[LostUsage]:
    """Return the *lines* of which the ledger has less: a smaller quantity, another credit, another or no adjustment.

    *prices* are needed for a ``rest`` line only, whose parts can be compared by amount alone.
    """
    lines = list(lines)
    itemized = {key for key, _ in lines}
    found = [
        LostUsage(key, line.quantity, _quantity(snapshot, key), _lost_amount(snapshot, key, line))
        for key, line in lines
        if key != REST_LINE and _is_behind(snapshot, key, line)
    ]
    rest = sum(line.amount for key, line in lines if key == REST_LINE)
    recorded = _amount_besides(snapshot, itemized, prices) if rest else 0
    if abs(rest) > abs(recorded):
        found.append(LostUsage(REST_LINE, Decimal(rest), Decimal(recorded), rest - recorded))
    return found


def money_at_stake(snapshot: Snapshot, lost: Iterable[LostUsage]) -> Money:
    """Return the amount that Stripe shows and the ledger does not."""
    return Money.from_minor(sum(usage.amount for usage in lost), snapshot.currency)


def hold_reason(snapshot: Snapshot, invoice: RemoteInvoice, lost: Iterable[LostUsage]) -> str:
    """Return the reason of the hold for *lost*; `is_rewind_hold` recognizes it by its beginning."""
    return (
        f"{_opening(snapshot.period)}that invoice {invoice.id} shows"
        f" ({money_at_stake(snapshot, lost).formatted}). The hold ends by itself when metering services"
        " have sent it again; releasing it bills what the ledger has, and gives the difference back."
    )


def is_rewind_hold(snapshot: Snapshot) -> bool:
    """Return True if the active hold is the one for lost usage of this period."""
    hold = snapshot.hold
    return hold is not None and is_for_lost_usage(hold, snapshot.period)


def is_for_lost_usage(hold: Hold, period: Period) -> bool:
    """Return True if the gateway placed *hold* because the ledger has lost usage of *period*."""
    return hold.by == GATEWAY and hold.reason.startswith(_opening(period))


def _opening(period: Period) -> str:
    return f"The ledger has lost usage of {period} "


def _is_known(snapshot: Snapshot, invoice: RemoteInvoice) -> bool:
    reviewed = max(_counter(snapshot.version), _counter(snapshot.stripe_version))
    first = (
        1 if invoice.own_lines else 0
    )  # a call that Stripe carried out in part leaves lines and no number
    known = max(invoice.seq, first) <= snapshot.last_seq
    return known and _counter(invoice.version or "") <= reviewed


def _counter(version: str) -> int:
    """Return the counter of a version, ``counter:nonce``; 0 if a person damaged it."""
    text = version.partition(":")[0]
    return int(text) if text.isdecimal() and text.isascii() else 0


def _is_behind(snapshot: Snapshot, key: LineKey, line: StripeLine) -> bool:
    """Return True if the ledger would lower *line* or give back more; of a credit, also if it has less of it."""
    recorded = snapshot.totals.get(key)
    if key.startswith(ADJUSTMENT_PREFIX):
        return (
            recorded != line.quantity
        )  # it never changes; another one may have got the number of a lost one
    if line.quantity > 0:
        return (recorded or 0) < line.quantity
    return bool(line.quantity) and recorded != line.quantity


def _quantity(snapshot: Snapshot, key: LineKey) -> Decimal:
    return snapshot.totals.get(key, Decimal(0))


def _lost_amount(snapshot: Snapshot, key: LineKey, line: StripeLine) -> int:
    """Return the part of the line's amount that its lost quantity bears."""
    if not line.quantity or key not in snapshot.totals or key.startswith(ADJUSTMENT_PREFIX):
        return line.amount
    lost = EXACT.subtract(line.quantity, _quantity(snapshot, key))
    return line_amount(lost, EXACT.divide(Decimal(line.amount), line.quantity))


def _amount_besides(snapshot: Snapshot, itemized: set[LineKey], prices: Prices) -> int:
    """Return the ledger's amount of all lines but *itemized*: those that a ``rest`` line rolls up."""
    units: Mapping[LineKey, Decimal] = {
        key: prices[price].unit_amount
        for key, price in snapshot.prices.items()
        if price in prices and key not in itemized
    }
    return sum(line_amount(snapshot.totals[key], unit) for key, unit in units.items())
