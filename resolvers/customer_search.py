"""Finding a customer by whatever a person has at hand: an id, an e-mail address, an organization, a name."""

import asyncio
from datetime import UTC, datetime

from billing.budget import Lane
from billing.cache.local_cache import Source
from billing.pagination import Page, Window
from billing.stripe.records import CustomerRecord
from resolvers.context import Context, Info
from resolvers.dataloaders.selection import page_of
from resolvers.dataloaders.stripe import NOTHING, Customers, Loaded
from resolvers.node_lookup import ID_FORM, find_customer
from resolvers.types.customer import Customer, customers_page
from schema.connections import MOST, Connection, bad_input

SUBSTRING = 3  # Stripe matches parts of a word from this length on


async def search_customers(info: Info, text: str, window: Window) -> Connection[Customer]:
    """The customers that *text* may mean, the best of them; a GraphQLError for a second page."""
    context, wanted = info.context, text.strip()
    if not wanted:
        return await customers_page(info, window)
    if window.after is not None or window.before is not None:
        raise bad_input("A search has one page; search for something more particular.")
    if ID_FORM.fullmatch(wanted):
        found = await find_customer(context, wanted)
        if found is not None:
            only = window.of([(str(found.id), found)])
            return Connection[Customer].of(only.items, has_more=only.has_more)
    if "@" in wanted:
        return await customers_page(info, window, wanted)
    page = await page_of(info, window, lambda part: _by_words(context, wanted, part.size))
    entries = [(each.value.id, Customer.of(each)) for each in page.items]
    return Connection[Customer].of(entries, has_more=page.has_more)


async def _by_words(context: Context, words: str, size: int) -> Page[Loaded[CustomerRecord]]:
    """By organization and name: the newest customers, whom Stripe's search does not know yet, and its search."""
    if not _query(words) or not size:
        return NOTHING
    recent, (searched, more) = await asyncio.gather(
        _recent(context, words.lower()), _searched(context, words, size)
    )
    found = {each.value.id: each for each in (*recent, *searched)}
    page = Page.of(list(found.values()), size)
    return Page(page.items, has_more=more or page.has_more)


async def _recent(context: Context, words: str) -> list[Loaded[CustomerRecord]]:
    page = await context.loaders.customers.load(Customers(Window(MOST)))
    return [
        each
        for each in page.items
        if words == (each.value.organization or "").lower()
        or words in (each.value.name or "").lower()
    ]


async def _searched(
    context: Context, words: str, size: int
) -> tuple[list[Loaded[CustomerRecord]], bool]:
    """Stripe's search lags behind its lists by up to a minute, and longer when it is troubled."""
    asked_at = datetime.now(UTC)
    body = await context.services.stripe.read(
        "/v1/customers/search", {"query": _query(words), "limit": size}, lane=Lane.SUPPORT
    )
    records = [CustomerRecord.from_stripe(each) for each in body["data"]]
    return [Loaded(record, Source.STRIPE, asked_at) for record in records], body["has_more"]


def _query(words: str) -> str:
    """*words* in Stripe's search language; what could end its quotes is left out."""
    safe = "".join(each for each in words if each.isprintable() and each not in "\"\\'")
    if not safe.strip():
        return ""
    match = "~" if len(safe) >= SUBSTRING else ":"
    return f'metadata["organization"]:"{safe}" OR name{match}"{safe}"'
