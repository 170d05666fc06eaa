"""Who is asking."""

import asyncio

import strawberry

from billing.pagination import Window
from resolvers.context import Context, Info, Role
from resolvers.types.customer import CUSTOMERS, Customer, customers_page
from schema.connections import After, Before, Connection, First, Last, window_of
from schema.decorators import graphql_type


@graphql_type
class Viewer:
    """Who is asking: what the token says."""

    role: Role = strawberry.field(description="What the token may do.")

    @strawberry.field
    async def customers(
        self,
        info: Info,
        first: First = CUSTOMERS,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Customer]:
        """The customers that this token may see: those that it names; all of them for Support."""
        info.context.look_ahead(info)
        window = window_of(first, after, last, before, default=CUSTOMERS)
        if self.role is Role.SUPPORT:
            return await customers_page(info, window)
        return await _named(info.context, window)


async def _named(context: Context, window: Window) -> Connection[Customer]:
    """A page of the customers that the token names, by id; one that Stripe does not know is left out."""
    start, end = window.after or "", window.before or "~"
    page = window.of(sorted(each for each in context.viewer.customers if start < each < end))
    found = await asyncio.gather(*(Customer.find(context, each) for each in page.items))
    entries = [(str(customer.id), customer) for customer in found if customer]
    return Connection[Customer].of(entries, has_more=page.has_more, window=window)
