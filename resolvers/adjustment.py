"""Support's corrections of usage."""

from datetime import datetime
from decimal import Decimal

import strawberry

from schema.types.describing import graphql_type
from schema.types.money import Money
from schema.types.node import Node


@graphql_type
class Adjustment(Node):
    """A correction by Support: a line of its own, so that recorded usage is never rewritten."""

    id: strawberry.ID = strawberry.field(description="Ours: `adj_…`.")
    sku: str = strawberry.field(description="The SKU that it corrects.")
    quantity: Decimal = strawberry.field(description="By how much; negative gives credit.")
    amount: Money = strawberry.field(description="What that comes to.")
    reason: str = strawberry.field(description="Why.")
    by: str = strawberry.field(description="Who: the subject of the token.")
    at: datetime = strawberry.field(description="When.")
