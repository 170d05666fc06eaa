"""Customer search by id, e-mail address, organization or name."""

import asyncio

from billing.pagination import MAX_PAGE_SIZE, Page, PageRequest
from billing.stripe.records import CustomerRecord
from resolvers.context import Context
from resolvers.customers import list_customers
from resolvers.dataloaders.stripe import EMPTY_PAGE, Loaded
from resolvers.node_lookup import ID_PATTERN, find_customer

MIN_SUBSTRING_LENGTH = 3  # Stripe matches substrings of at least three characters


async def search_customers(
    context: Context, text: str, request: PageRequest
) -> Page[Loaded[CustomerRecord]]:
    """The customers that match *text*, which is not blank: an id, an e-mail address or words. One page."""
    if ID_PATTERN.fullmatch(text):
        customer = await find_customer(context, text)
        if customer is not None:
            return request.apply([customer])
    if "@" in text:
        return await list_customers(context, request, text)
    return await _search_by_words(context, text, request.size)


async def _search_by_words(context: Context, words: str, size: int) -> Page[Loaded[CustomerRecord]]:
    """Customers matched by organization or name, from Stripe's search index and the newest page of the list.

    The index lags behind the list by up to a minute, and by more during Stripe's incidents.
    """
    if not _search_query(words) or not size:
        return EMPTY_PAGE
    recent, (searched, more) = await asyncio.gather(
        _recent_matches(context, words.lower()), _search_stripe(context, words, size)
    )
    matches = {loaded.value.id: loaded for loaded in (*recent, *searched)}
    page = Page.from_items(list(matches.values()), size)
    return Page(page.items, has_more=more or page.has_more)


async def _recent_matches(context: Context, words: str) -> list[Loaded[CustomerRecord]]:
    page = await context.loaders.customers(PageRequest(MAX_PAGE_SIZE))
    return [
        loaded
        for loaded in page.items
        if words == (loaded.value.organization or "").lower()
        or words in (loaded.value.name or "").lower()
    ]


async def _search_stripe(
    context: Context, words: str, size: int
) -> tuple[list[Loaded[CustomerRecord]], bool]:
    """The matches in Stripe's search index, and whether there are more."""
    page = await context.loaders.customer_search(_search_query(words), size)
    return list(page.items), page.has_more


def _search_query(words: str) -> str:
    """*words* as a query in Stripe's search language, without characters that could end a quoted string."""
    safe = "".join(char for char in words if char.isprintable() and char not in "\"\\'")
    if not safe.strip():
        return ""
    operator = "~" if len(safe) >= MIN_SUBSTRING_LENGTH else ":"
    return f'metadata["organization"]:"{safe}" OR name{operator}"{safe}"'
