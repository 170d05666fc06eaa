"""What can be followed while it happens."""

from collections.abc import AsyncGenerator
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import strawberry

from resolvers.context import Info
from resolvers.customer import Customer
from resolvers.invoice import Invoice
from resolvers.sync import Sync
from schema.types.describing import graphql_enum, graphql_type

CustomerIdArgument = Annotated[
    strawberry.ID,
    strawberry.argument(name="customerId", description="Stripe's customer id, `cus_…`."),
]


@graphql_enum(
    WEBHOOK="Stripe announced a change.",
    SYNC="A sync took a step.",
    USAGE="Usage was recorded.",
    SUPPORT="Support did something.",
)
class ChangeReason(StrEnum):
    """Why something may have changed."""

    WEBHOOK = "WEBHOOK"
    SYNC = "SYNC"
    USAGE = "USAGE"
    SUPPORT = "SUPPORT"


@graphql_type
class BillingChange:
    """Something that a panel shows may have changed: ask for what you show, it is read anew."""

    reason: ChangeReason = strawberry.field(description="Why.")
    customer: Customer = strawberry.field(description="The customer, as of now.")
    sync: Sync | None = strawberry.field(description="The sync that took a step.")
    invoice: Invoice | None = strawberry.field(description="The invoice that changed.")
    at: datetime = strawberry.field(description="When.")


@graphql_type
class Subscription:
    """What can be followed while it happens."""

    @strawberry.subscription
    async def billing_changed(
        self, info: Info, customer_id: CustomerIdArgument
    ) -> AsyncGenerator[BillingChange, None]:
        """Fires when anything a panel shows for this customer may have changed.

        A webhook, a step of a sync, an act of Support's, recorded usage (at most once a second).
        """
        raise NotImplementedError
        yield
