"""The spend history: amounts billed, by calendar month."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

import strawberry

from billing.pagination import PageRequest
from billing.stripe.records import InvoiceRecord
from billing.usage import CustomerId, Period
from resolvers.context import Context
from resolvers.dataloaders.stripe import PageKey
from schema.connections import MAX_PAGE_SIZE
from schema.decorators import graphql_type
from schema.types.money import Money

MAX_MONTHS = 60
BILLED_STATUSES = frozenset({"open", "paid", "uncollectible"})


@graphql_type
class MonthlySpend:
    """Amount billed for one month in one currency."""

    month: str = strawberry.field(description="Billed month in the form `2026-11`.")
    total: Money = strawberry.field(description="Sum of the month's finalized invoices.")
    invoices: int = strawberry.field(description="Number of finalized invoices in `total`.")


async def spend_by_month(context: Context, customer: CustomerId, months: int) -> list[MonthlySpend]:
    """Spend of the last *months* calendar months, newest first; one entry for each month and currency."""
    oldest = Period.containing(datetime.now(UTC))
    for _ in range(months - 1):
        oldest = oldest.previous()
    billed: defaultdict[tuple[Period, str], list[int]] = defaultdict(list)
    for invoice in await _invoices_since(context, customer, oldest):
        if invoice.status in BILLED_STATUSES and _billed_month(invoice) >= oldest:
            billed[_billed_month(invoice), invoice.currency].append(invoice.total)
    return [
        MonthlySpend(
            month=str(period),
            total=Money.from_minor(sum(totals), currency),
            invoices=len(totals),
        )
        for (period, currency), totals in sorted(billed.items(), reverse=True)
    ]


async def _invoices_since(
    context: Context, customer: CustomerId, oldest: Period
) -> Iterable[InvoiceRecord]:
    invoices: list[InvoiceRecord] = []
    while True:
        after = invoices[-1].id if invoices else None
        page = await context.loaders.invoice_heads.load(
            PageKey(customer, PageRequest(MAX_PAGE_SIZE, after))
        )
        invoices += page.items
        if not page.has_more or invoices[-1].created < oldest.start:
            return invoices


def _billed_month(invoice: InvoiceRecord) -> Period:
    """The month that *invoice* bills: its billing period, or the month of its creation if made by hand."""
    return invoice.period or Period.containing(invoice.created)
