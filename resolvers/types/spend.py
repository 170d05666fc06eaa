"""What was billed, month by month."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

import strawberry

from billing.pagination import Window
from billing.stripe.records import InvoiceRecord
from billing.usage import CustomerId, Period
from resolvers.context import Context
from resolvers.dataloaders.stripe import PageOf
from schema.connections import MOST
from schema.decorators import graphql_type
from schema.types.money import Money

MOST_MONTHS = 60
BILLED = frozenset({"open", "paid", "uncollectible"})


@graphql_type
class MonthlySpend:
    """What was billed for one month."""

    month: str = strawberry.field(description="The month that was billed: `2026-11`.")
    total: Money = strawberry.field(description="The sum of its finalized invoices.")
    invoices: int = strawberry.field(description="How many there are.")


async def spend_by_month(context: Context, customer: CustomerId, months: int) -> list[MonthlySpend]:
    """The last *months* calendar months, newest first; one entry for each month and currency billed."""
    oldest = Period.containing(datetime.now(UTC))
    for _ in range(months - 1):
        oldest = oldest.previous()
    billed: defaultdict[tuple[Period, str], list[int]] = defaultdict(list)
    for invoice in await _invoices_since(context, customer, oldest):
        if invoice.status in BILLED and _month(invoice) >= oldest:
            billed[_month(invoice), invoice.currency].append(invoice.total)
    return [
        MonthlySpend(
            month=str(period),
            total=Money.of_minor(sum(totals), currency),
            invoices=len(totals),
        )
        for (period, currency), totals in sorted(billed.items(), reverse=True)
    ]


async def _invoices_since(
    context: Context, customer: CustomerId, oldest: Period
) -> Iterable[InvoiceRecord]:
    found: list[InvoiceRecord] = []
    while True:
        after = found[-1].id if found else None
        page = await context.loaders.invoice_heads.load(PageOf(customer, Window(MOST, after)))
        found += page.items
        if not page.has_more or found[-1].created < oldest.start:
            return found


def _month(invoice: InvoiceRecord) -> Period:
    """The month that it bills: ours says so, any other bills the month it was made in."""
    return invoice.period or Period.containing(invoice.created)
