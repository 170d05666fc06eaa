"""The node interface: an object that can be looked up by its id alone."""

import strawberry

from schema.decorators import graphql_interface


@graphql_interface
class Node:
    """An object that `node(id:)` can look up.

    Its id is Stripe's own (`cus_…`, `in_…`, `il_…`, `pm_…`, `evt_…`) or has a prefix of this gateway (`sync_…`,
    `adj_…`), so an id copied from Stripe's Dashboard is accepted wherever an id is expected.
    """

    id: strawberry.ID = strawberry.field(
        description="Stripe's id, or an id with a prefix of this gateway."
    )
