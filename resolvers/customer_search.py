"""Customer search by id, e-mail address, organization or name."""

import asyncio
from datetime import UTC, datetime

from billing.budget import Lane
from billing.cache.local_cache import Source
from billing.pagination import Page, PageRequest
from billing.stripe.records import CustomerRecord
from resolvers.context import Context, Info
from resolvers.dataloaders.selection import load_page
from resolvers.dataloaders.stripe import EMPTY_PAGE, CustomersKey, Loaded
from resolvers.node_lookup import ID_PATTERN, find_customer
from resolvers.types.customer import Customer, customers_page
from schema.connections import MAX_PAGE_SIZE, Connection, bad_input

MIN_SUBSTRING_LENGTH = 3  # Stripe matches substrings of at least three characters


async def search_customers(info: Info, text: str, request: PageRequest) -> Connection[Customer]:
    """The customers that match *text*; GraphQLError (BAD_USER_INPUT) if a second page is requested."""
    context, text = info.context, text.strip()
    if not text:
        return await customers_page(info, request)
    if request.after is not None or request.before is not None:
        raise bad_input("A search has one page; narrow it down instead.")
    if ID_PATTERN.fullmatch(text):
        customer = await find_customer(context, text)
        if customer is not None:
            match = request.apply([(str(customer.id), customer)])
            return Connection[Customer].from_entries(match.items, has_more=match.has_more)
    if "@" in text:
        return await customers_page(info, request, text)
    page = await load_page(info, request, lambda part: _search_by_words(context, text, part.size))
    entries = [(loaded.value.id, Customer.from_record(loaded)) for loaded in page.items]
    return Connection[Customer].from_entries(entries, has_more=page.has_more)


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
    page = await context.loaders.customers.load(CustomersKey(PageRequest(MAX_PAGE_SIZE)))
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
    requested_at = datetime.now(UTC)
    body = await context.uncached_services().stripe.read(
        "/v1/customers/search", {"query": _search_query(words), "limit": size}, lane=Lane.SUPPORT
    )
    records = [CustomerRecord.from_stripe(item) for item in body["data"]]
    return [Loaded(record, Source.STRIPE, requested_at) for record in records], body["has_more"]


def _search_query(words: str) -> str:
    """*words* as a query in Stripe's search language, without characters that could end a quoted string."""
    safe = "".join(char for char in words if char.isprintable() and char not in "\"\\'")
    if not safe.strip():
        return ""
    operator = "~" if len(safe) >= MIN_SUBSTRING_LENGTH else ":"
    return f'metadata["organization"]:"{safe}" OR name{operator}"{safe}"'
