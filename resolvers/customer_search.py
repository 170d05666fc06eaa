"""Customer search by any id, an e-mail address, the number of an invoice, an organization or a name."""

import asyncio
import re

from billing.errors import ErrorCode, Refused
from billing.pagination import MAX_PAGE_SIZE, Page, PageRequest
from billing.stripe import resources
from billing.stripe.records import CustomerRecord
from billing.usage_validation import UNREADABLE
from resolvers.context import Context
from resolvers.customers import list_customers
from resolvers.dataloaders.stripe import EMPTY_PAGE, Loaded
from resolvers.node_lookup import ID_PATTERN, find_customer

MAX_LENGTH = 255
MIN_SUBSTRING_LENGTH = 3  # Stripe matches substrings of at least three characters
# Stripe numbers a customer's invoices 954C9095-0001, or those of the account by a prefix of its own.
INVOICE_NUMBER = re.compile(r"[A-Za-z0-9-]{1,30}-\d{1,10}", re.ASCII)


async def search_customers(
    context: Context, text: str, request: PageRequest
) -> Page[Loaded[CustomerRecord]]:
    """The customers that match *text*, which is not blank. One page; Refused (INVALID_INPUT) if it is too long."""
    if len(text) > MAX_LENGTH:
        message = f"Search for at most {MAX_LENGTH} characters: an id, an e-mail address or a name."
        raise Refused(ErrorCode.INVALID_INPUT, message, ("search",))
    if ID_PATTERN.fullmatch(text):
        customer = await find_customer(context, text)
        if customer is not None:
            return request.apply([customer])
    exact = await list_customers(context, request, text) if "@" in text else EMPTY_PAGE
    return exact if exact.items else await _search_by_words(context, text, request.size)


async def search_by_email(
    context: Context, email: str, request: PageRequest
) -> Page[Loaded[CustomerRecord]]:
    """The customers with *email* as it is written, newest first; without any, those with it in another case.

    Stripe's list distinguishes capitals and has new customers at once, its search does neither.
    """
    page = await list_customers(context, request, email)
    if page.items or not request.size or request.after or request.before or not _quoted(email):
        return page
    return await context.loaders.customer_search(f"email:{_quoted(email)}", request.size)


async def _search_by_words(context: Context, words: str, size: int) -> Page[Loaded[CustomerRecord]]:
    """Customers matched by organization, name or e-mail, from Stripe's index and the newest page of the list.

    The index lags behind the list by up to a minute, and by more during Stripe's incidents.
    """
    query = _search_query(words)
    if not query or not size:
        return EMPTY_PAGE
    recent, searched, billed = await asyncio.gather(
        _recent_matches(context, words.casefold()),
        context.loaders.customer_search(query, size),
        _owners_of_number(context, words),
    )
    matches = {loaded.value.id: loaded for loaded in (*billed, *recent, *searched.items)}
    page = Page.from_items(list(matches.values()), size)
    return Page(page.items, has_more=searched.has_more or page.has_more)


async def _recent_matches(context: Context, words: str) -> list[Loaded[CustomerRecord]]:
    page = await context.loaders.customers(PageRequest(MAX_PAGE_SIZE))
    return [
        loaded
        for loaded in page.items
        if words == (loaded.value.organization or "").casefold()
        or words in (loaded.value.name or "").casefold()
        or words in (loaded.value.email or "").casefold()
    ]


async def _owners_of_number(context: Context, text: str) -> list[Loaded[CustomerRecord]]:
    """The customers of the invoices with the number *text*."""
    if not INVOICE_NUMBER.fullmatch(text):
        return []
    found = (await context.loaders.get(resources.owners_of_number(text.upper()))).value
    owners = dict.fromkeys(filter(None, found.items if found else ()))
    customers = await asyncio.gather(*map(context.loaders.customer, owners))
    return list(filter(None, customers))


def _search_query(words: str) -> str:
    """*words* as a query in Stripe's search language; "" if nothing of them can be searched for."""
    quoted = _quoted(words)
    sign = "~" if len(words) >= MIN_SUBSTRING_LENGTH else ":"
    return (
        quoted and f'metadata["organization"]:{quoted} OR name{sign}{quoted} OR email{sign}{quoted}'
    )


def _quoted(text: str) -> str:
    """*text* as a string of Stripe's search language; "" if nothing of it can be read."""
    readable = UNREADABLE.sub(" ", text).strip()
    escaped = readable.replace("\\", "\\\\").replace('"', '\\"')
    return readable and f'"{escaped}"'
