"""Anything that can be found again by its id alone; *owner* is the customer to whom it belongs."""

import strawberry

from schema.decorators import graphql_interface


@graphql_interface
class Node:
    """Something that `node(id:)` finds again.

    Its id is Stripe's own (`cus_…`, `in_…`, `il_…`, `pm_…`, `evt_…`) or carries a prefix of ours
    (`sync_…`, `adj_…`), so what is copied out of Stripe's Dashboard can be pasted wherever an id is asked for.
    """

    owner: strawberry.Private[str | None]
    id: strawberry.ID = strawberry.field(
        description="Stripe's id, or ours with a prefix of its own."
    )
