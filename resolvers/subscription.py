"""What can be followed while it happens."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated

import strawberry

from billing.change_feed import Change, ChangeReason
from billing.usage import CustomerId
from resolvers.context import Info
from resolvers.dataloaders.cached_reads import Cost
from resolvers.node_lookup import find_customer
from resolvers.types.customer import Customer, customer_of
from resolvers.types.invoice import Invoice
from resolvers.types.sync import Sync
from schema.decorators import graphql_enum, graphql_type

CustomerIdArgument = Annotated[
    strawberry.ID,
    strawberry.argument(name="customerId", description="Stripe's customer id, `cus_…`."),
]

graphql_enum(
    WEBHOOK="Stripe announced a change.",
    SYNC="A sync took a step.",
    USAGE="Usage was recorded.",
    SUPPORT="Support did something.",
)(ChangeReason)


@graphql_type
class BillingChange:
    """Something that a panel shows may have changed: ask for what you show, it is read anew."""

    change: strawberry.Private[Change]
    reason: ChangeReason = strawberry.field(description="Why.")
    at: datetime = strawberry.field(description="When.")

    @strawberry.field
    async def customer(self, info: Info) -> Customer:
        """The customer, as of now."""
        return await customer_of(info, CustomerId(self.change.customer))

    @strawberry.field
    async def sync(self, info: Info) -> Sync | None:
        """The sync that was asked for, joined, tried or ended, as of now."""
        return await Sync.find(info.context, self.change.sync) if self.change.sync else None

    @strawberry.field
    async def invoice(self, info: Info) -> Invoice | None:
        """The invoice that changed."""
        found = self.change.invoice
        return await Invoice.find(info.context, found) if found else None


@graphql_type
class Subscription:
    """What can be followed while it happens."""

    @strawberry.subscription
    async def billing_changed(
        self, info: Info, customer_id: CustomerIdArgument
    ) -> AsyncGenerator[BillingChange, None]:
        """Fires when anything a panel shows for this customer may have changed.

        A webhook, a step of a sync, an act of Support's, recorded usage (at most once a second). Ends
        at once, without an event, when there is no such customer to be seen.
        """
        context = info.context
        customer = await find_customer(context, customer_id)
        if customer is None:
            return
        async with context.services.changes.subscribe(customer.record.id) as changes:
            del customer
            context.renew()  # thousands of sockets are idle: none keeps what it looked up to begin with
            async for change in changes:
                context.renew(Cost())
                yield BillingChange(change=change, reason=change.reason, at=change.at)
