"""Bills: the amounts from a customer's usage to what Stripe collects, in rows that add up."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum

from billing.invoicing.amounts import compute_amounts
from billing.invoicing.remote_invoice import DRAFT
from billing.money import EXACT
from billing.pagination import MAX_PAGE_SIZE, PageRequest
from billing.stripe.records import InvoiceRecord
from billing.usage import CustomerId
from resolvers.billing_periods import PricedSnapshot
from resolvers.context import Context

VOID = "void"


class BillRowKind(StrEnum):
    """Kind of a row of a bill."""

    USAGE = "USAGE"
    OTHER_LINES = "OTHER_LINES"
    PENDING_USAGE = "PENDING_USAGE"
    DISCOUNT = "DISCOUNT"
    TAX = "TAX"
    BALANCE = "BALANCE"
    CARRIED_TO_BALANCE = "CARRIED_TO_BALANCE"
    CREDIT_NOTES = "CREDIT_NOTES"


@dataclass(frozen=True, slots=True)
class BillRow:
    """One row: *amount* in minor units, negative if it lowers the bill; *estimated* if Stripe has not said it."""

    kind: BillRowKind
    amount: int
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Bill:
    """Rows that add up to *amount_due*, in minor units of *currency*."""

    rows: tuple[BillRow, ...]
    currency: str

    @property
    def amount_due(self) -> int:
        """The amount that Stripe will ask for."""
        return sum(row.amount for row in self.rows)

    @property
    def is_estimate(self) -> bool:
        """True if a row is estimated."""
        return any(row.estimated for row in self.rows)


async def invoice_bill(context: Context, invoice: InvoiceRecord) -> Bill:
    """The bill of *invoice*, as Stripe computed it."""
    return _bill(invoice, await _own_lines(context, invoice), pending=0)


async def estimate_bill(context: Context, period: PricedSnapshot) -> Bill:
    """The bill of *period* if the month ended now.

    Usage that Stripe does not have yet is added; its discount and tax are estimated in proportion to those of
    the draft. Without a draft they are unknown, and only the customer's balance is taken into account.
    """
    snapshot = period.snapshot
    loaded = await context.loaders.invoice(snapshot.invoice) if snapshot.invoice else None
    total = compute_amounts(snapshot, period.prices).total.minor
    if loaded is None or loaded.value.status == VOID:
        balance = await _balance(context, snapshot.customer, snapshot.currency)
        rows = {BillRowKind.PENDING_USAGE: total} | _settlement(total, balance)
        return Bill(_rows(rows, set(rows)), snapshot.currency)
    own = await _own_lines(context, loaded.value)
    pending = total - own if loaded.value.status == DRAFT else 0
    return _bill(loaded.value, own, pending)


async def _balance(context: Context, customer: CustomerId, currency: str) -> int:
    loaded = await context.loaders.customer(customer)
    return loaded.value.balance if loaded and loaded.value.currency == currency else 0


def _bill(invoice: InvoiceRecord, own: int, pending: int) -> Bill:
    kind = BillRowKind
    discount, tax = invoice.discount, (invoice.tax or 0) - invoice.tax_included
    estimated: set[BillRowKind] = set()
    if pending:
        more_discount = _share(pending, discount, invoice.subtotal)
        tax += _share(pending - more_discount, tax, invoice.subtotal - discount)
        discount += more_discount
        estimated = {kind.PENDING_USAGE, kind.DISCOUNT, kind.TAX}
    rows = {
        kind.USAGE: own,
        kind.OTHER_LINES: invoice.subtotal - own,
        kind.PENDING_USAGE: pending,
        kind.DISCOUNT: -discount,
        kind.TAX: tax,
    }
    total = sum(rows.values())
    if pending:
        rows |= _settlement(total, invoice.starting_balance)
        estimated |= {kind.BALANCE, kind.CARRIED_TO_BALANCE}
    else:
        balance = _applied(total, invoice.starting_balance)
        settled = invoice.amount_due + invoice.credited - total
        rows |= {kind.BALANCE: balance, kind.CARRIED_TO_BALANCE: settled - balance}
    rows |= {kind.CREDIT_NOTES: -invoice.credited}
    return Bill(_rows(rows, estimated), invoice.currency)


async def _own_lines(context: Context, invoice: InvoiceRecord) -> int:
    """Sum of the lines that the gateway created."""
    if invoice.period is None:
        return 0
    own, request = 0, PageRequest(MAX_PAGE_SIZE)
    while True:
        page = await context.loaders.lines(invoice.id, request)
        own += sum(line.amount for line in page.items if line.key is not None)
        if not (page.has_more and page.items):
            return own
        request = PageRequest(MAX_PAGE_SIZE, page.items[-1].id)


def _settlement(total: int, balance: int) -> dict[BillRowKind, int]:
    """The rows by which a *total* meets the customer's *balance*: it is applied, and a negative rest becomes balance."""
    applied = _applied(total, balance)
    return {
        BillRowKind.BALANCE: applied,
        BillRowKind.CARRIED_TO_BALANCE: -min(total + applied, 0),
    }


def _applied(total: int, balance: int) -> int:
    """The part of a *balance* (negative: credit) that a *total* takes."""
    return max(balance, -total) if total > 0 else 0


def _share(amount: int, part: int, whole: int) -> int:
    """*amount* in the proportion of *part* to *whole*; 0 of nothing."""
    if whole <= 0:
        return 0
    exact = EXACT.divide(Decimal(amount) * part, Decimal(whole))
    return int(exact.to_integral_value(rounding=ROUND_HALF_UP))


def _rows(amounts: Mapping[BillRowKind, int], estimated: set[BillRowKind]) -> tuple[BillRow, ...]:
    return tuple(
        BillRow(kind, amount, estimated=kind in estimated)
        for kind, amount in amounts.items()
        if amount or kind is BillRowKind.USAGE
    )
