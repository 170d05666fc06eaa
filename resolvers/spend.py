"""Spend history: amounts billed, by calendar month."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from billing.money import Money
from billing.pagination import MAX_PAGE_SIZE, PageRequest
from billing.stripe.records import InvoiceRecord
from billing.usage import CustomerId, Period
from resolvers.context import Context

MAX_MONTHS = 60
BILLED_STATUSES = frozenset({"open", "paid", "uncollectible"})


class SpendRecord(NamedTuple):
    """The *total* of the finalized *invoices* of one month in one currency."""

    month: Period
    total: Money
    invoices: int


async def spend_by_month(context: Context, customer: CustomerId, months: int) -> list[SpendRecord]:
    """Spend of the last *months* calendar months, newest first; one entry for each month and currency."""
    oldest = Period.containing(datetime.now(UTC))
    for _ in range(months - 1):
        oldest = oldest.previous()
    billed: defaultdict[tuple[Period, str], list[int]] = defaultdict(list)
    for invoice in await _invoices_since(context, customer, oldest):
        if invoice.status in BILLED_STATUSES and _billed_month(invoice) >= oldest:
            billed[_billed_month(invoice), invoice.currency].append(invoice.total)
    return [
        SpendRecord(month, Money.from_minor(sum(totals), currency), len(totals))
        for (month, currency), totals in sorted(billed.items(), reverse=True)
    ]


async def _invoices_since(
    context: Context, customer: CustomerId, oldest: Period
) -> Iterable[InvoiceRecord]:
    invoices: list[InvoiceRecord] = []
    while True:
        request = PageRequest(MAX_PAGE_SIZE, invoices[-1].id if invoices else None)
        page = await context.loaders.invoice_heads(customer, request)
        invoices += page.items
        if not page.has_more or invoices[-1].created < oldest.start:
            return invoices


def _billed_month(invoice: InvoiceRecord) -> Period:
    """The month that *invoice* bills: its billing period, or the month of its creation if made by hand."""
    return invoice.period or Period.containing(invoice.created)
