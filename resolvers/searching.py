"""Finding a customer by whatever a person has at hand: an id, an e-mail address, an organization, a name."""

import asyncio
from datetime import UTC, datetime

from billing.budget import Lane
from billing.cache.memory import Source
from billing.pages import Window
from billing.records import CustomerRecord
from resolvers.context import Context
from resolvers.customer import Customer, customers_page
from resolvers.finding import ID_FORM, find_customer
from resolvers.loaders import Customers, Loaded
from schema.types.connections import MOST, Connection, bad_input

SUBSTRING = 3  # Stripe matches parts of a word from this length on


async def search_customers(context: Context, text: str, window: Window) -> Connection[Customer]:
    """The customers that *text* may mean, the best of them; a GraphQLError for a second page."""
    wanted = text.strip()
    if not wanted:
        return await customers_page(context, window)
    if window.after is not None or window.before is not None:
        raise bad_input("A search has one page; search for something more particular.")
    if ID_FORM.fullmatch(wanted):
        found = await find_customer(context, wanted)
        if found is not None:
            return Connection[Customer].of([(str(found.id), found)], has_more=False)
    if "@" in wanted:
        return await customers_page(context, window, wanted)
    return await _by_words(context, wanted, window.size)


async def _by_words(context: Context, words: str, size: int) -> Connection[Customer]:
    """By organization and name: the newest customers, whom Stripe's search does not know yet, and its search."""
    if not _query(words) or not size:
        return Connection[Customer].of([], has_more=False)
    recent, (searched, more) = await asyncio.gather(
        _recent(context, words.lower()), _searched(context, words, size)
    )
    found = {each.value.id: Customer.of(each) for each in (*recent, *searched)}
    return Connection[Customer].of(list(found.items())[:size], has_more=more or len(found) > size)


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
