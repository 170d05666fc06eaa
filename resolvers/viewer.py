"""Who is asking."""

import asyncio

import strawberry

from resolvers.context import Context, Info, Role
from resolvers.customer import CUSTOMERS, Customer, customers_page
from schema.types.connections import After, Connection, First, id_of, size_of
from schema.types.describing import graphql_type


@graphql_type
class Viewer:
    """Who is asking: what the token says."""

    role: Role = strawberry.field(description="What the token may do.")

    @strawberry.field
    async def customers(
        self, info: Info, first: First = CUSTOMERS, after: After = None
    ) -> Connection[Customer]:
        """The customers that this token may see: those that it names; all of them for Support."""
        if self.role is Role.SUPPORT:
            return await customers_page(info.context, first, after)
        return await _named(info.context, size_of(first, CUSTOMERS), after)


async def _named(context: Context, size: int, after: str | None) -> Connection[Customer]:
    """A page of the customers that the token names, by id; one that Stripe does not know is left out."""
    start = id_of(after) or ""
    ids = sorted(each for each in context.viewer.customers if each > start)
    found = await asyncio.gather(*(Customer.find(context, each) for each in ids[:size]))
    entries = [(str(customer.id), customer) for customer in found if customer]
    return Connection[Customer].of(entries, has_more=len(ids) > size, after=after)
