"""Customers, and the lists of what belongs to one."""

import asyncio
from collections.abc import Awaitable, Callable

from billing.pagination import Page, PageRequest
from billing.stripe.reader import UnknownCursor
from billing.stripe.records import CustomerRecord, InvoiceRecord, PaymentMethodRecord
from billing.usage import CustomerId
from resolvers.context import Context, Role
from resolvers.dataloaders.stripe import Loaded

DEFAULT_CURRENCY = "usd"
"""Currency of a customer without an invoice; Stripe sets one with the first invoice."""


async def load_owner_record(context: Context, customer: str) -> Loaded[CustomerRecord]:
    """The owner of an object that the viewer may see; of one that Stripe has deleted, its id.

    A list of objects must not fail because one of their owners has gone.
    """
    return await context.loaders.customer(customer) or await context.loaders.remains(customer)


async def list_customers(
    context: Context, request: PageRequest, email: str | None = None
) -> Page[Loaded[CustomerRecord]]:
    """All customers, newest first, or those with this *email*."""
    return await context.loaders.customers(request, email or None)


async def list_token_customers(
    context: Context, request: PageRequest
) -> Page[Loaded[CustomerRecord]]:
    """The customers that the viewer's token names, by id; ids unknown to Stripe are left out."""
    start, end = request.after or "", request.before or "~"
    page = request.apply(sorted(name for name in context.viewer.customers if start < name < end))
    customers = await asyncio.gather(*map(context.loaders.customer, page.items))
    return Page(tuple(filter(None, customers)), page.has_more)


async def list_payment_methods(
    context: Context, customer: CustomerId, request: PageRequest
) -> Page[Loaded[PaymentMethodRecord]]:
    """The payment methods of *customer*, newest first."""

    async def owns(payment_method: str) -> bool:
        loaded = await context.loaders.payment_method(payment_method)
        return loaded is not None and loaded.value.customer == customer

    await _check_cursor_ownership(context, request, owns)
    return await context.loaders.payment_methods(customer, request)


async def list_invoices(
    context: Context, customer: CustomerId, request: PageRequest, status: str | None
) -> Page[Loaded[InvoiceRecord]]:
    """The invoices of *customer*, newest first, of one *status* (Stripe's word) if given."""

    async def owns(invoice: str) -> bool:
        return bool(await context.loaders.visible_invoice(invoice, customer.__eq__))

    await _check_cursor_ownership(context, request, owns)
    return await context.loaders.invoices(customer, request, status)


async def _check_cursor_ownership(
    context: Context, request: PageRequest, owns: Callable[[str], Awaitable[bool]]
) -> None:
    """Reject a cursor of another customer's object exactly as Stripe rejects an unknown one.

    Stripe pages from any object of the account, which would reveal that the object exists.
    """
    if context.viewer.role is Role.SUPPORT:
        return
    for argument, cursor in (("after", request.after), ("before", request.before)):
        if cursor and not await context.count_lookup(owns(cursor)):
            raise UnknownCursor(argument)
