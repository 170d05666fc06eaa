"""Who is asking."""

import strawberry

from resolvers.context import Info, Role
from resolvers.customer import Customer
from schema.types.connections import After, Connection, First
from schema.types.describing import graphql_type

CUSTOMERS = 20


@graphql_type
class Viewer:
    """Who is asking: what the token says."""

    role: Role = strawberry.field(description="What the token may do.")

    @strawberry.field
    async def customers(
        self, info: Info, first: First = CUSTOMERS, after: After = None
    ) -> Connection[Customer]:
        """The customers that this token may see: those that it names; all of them for Support."""
        raise NotImplementedError
