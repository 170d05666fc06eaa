"""The viewer type: the bearer of the request's token."""

from functools import partial

import strawberry

from resolvers.context import Role
from resolvers.customers import list_customers, list_token_customers
from schema.connections import After, Before, Connection, First, Last, connect, page_request
from schema.decorators import graphql_enum, graphql_type
from schema.info import Info, note_selection
from schema.types.customer import CUSTOMERS_PAGE_SIZE, Customer

graphql_enum(
    CUSTOMER="A panel that acts for customers: it sees those that its token names.",
    SUPPORT="Fly.io's Support: it sees every customer, adjusts usage, holds and releases billing.",
    METERING="A service that reports usage and does nothing else.",
)(Role)


@graphql_type
class Viewer:
    """The bearer of the request's token."""

    role: Role = strawberry.field(description="Role that the token grants.")

    @strawberry.field
    def customer_ids(self, info: Info) -> list[strawberry.ID]:
        """Ids of the customers that the token names, without a read from Stripe; empty for Support."""
        return [strawberry.ID(name) for name in sorted(info.context.viewer.customers)]

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
        note_selection(info)
        request = page_request(first, after, last, before, default=CUSTOMERS_PAGE_SIZE)
        listed = list_customers if self.role is Role.SUPPORT else list_token_customers
        return await connect(info, request, partial(listed, info.context), Customer.from_record)
