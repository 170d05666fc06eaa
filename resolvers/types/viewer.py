"""The viewer type: the bearer of the request's token."""

import asyncio

import strawberry

from billing.pagination import PageRequest
from resolvers.context import Context, Info, Role
from resolvers.types.customer import CUSTOMERS_PAGE_SIZE, Customer, customers_page
from schema.connections import After, Before, Connection, First, Last, page_request
from schema.decorators import graphql_type


@graphql_type
class Viewer:
    """The bearer of the request's token."""

    role: Role = strawberry.field(description="Role that the token grants.")

    @strawberry.field
    async def customers(
        self,
        info: Info,
        first: First = CUSTOMERS_PAGE_SIZE,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Customer]:
        """Customers that the token may see: those that it names, or all of them for Support."""
        info.context.note_selection(info)
        request = page_request(first, after, last, before, default=CUSTOMERS_PAGE_SIZE)
        if self.role is Role.SUPPORT:
            return await customers_page(info, request)
        return await _customers_of_token(info.context, request)


async def _customers_of_token(context: Context, request: PageRequest) -> Connection[Customer]:
    """One page of the customers that the token names, by id; ids unknown to Stripe are left out."""
    start, end = request.after or "", request.before or "~"
    page = request.apply(sorted(name for name in context.viewer.customers if start < name < end))
    customers = await asyncio.gather(*(Customer.find(context, name) for name in page.items))
    entries = [(str(customer.id), customer) for customer in customers if customer]
    return Connection[Customer].from_entries(entries, has_more=page.has_more, request=request)
