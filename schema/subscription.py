"""The root type Subscription."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated

import strawberry

from billing.change_feed import Change, ChangeReason
from billing.usage import CustomerId
from resolvers.dataloaders.cached_reads import ReadStats
from resolvers.node_lookup import find_customer
from schema.decorators import graphql_enum, graphql_type
from schema.info import Info
from schema.types.customer import Customer, load_owner
from schema.types.invoice import Invoice
from schema.types.sync import Sync

CustomerIdArgument = Annotated[
    strawberry.ID,
    strawberry.argument(
        name="customerId",
        description="Customer id, `cus_…`, or the id of an object that belongs to the customer.",
    ),
]

graphql_enum(
    WEBHOOK="An event from Stripe announced a change.",
    SYNC="The status of a sync changed.",
    USAGE="New usage was recorded; at most once a second.",
    SUPPORT="An action of Support was completed.",
    REFRESH="A change may have been missed: some seconds after the subscription begins and after each change, and "
    "after an interruption.",
)(ChangeReason)


@graphql_type
class BillingChange:
    """A change of a customer's billing. Its fields are read anew for each event: select what the panel shows."""

    change: strawberry.Private[Change]
    reason: ChangeReason = strawberry.field(description="Cause of the change.")
    at: datetime = strawberry.field(description="Time of the change.")

    @strawberry.field
    async def customer(self, info: Info) -> Customer:
        """The customer, in the current state."""
        return await load_owner(info, CustomerId(self.change.customer))

    @strawberry.field
    async def sync(self, info: Info) -> Sync | None:
        """The sync whose status changed, in the current state; null if the change concerns no sync."""
        sync = self.change.sync
        record = await info.context.loaders.sync(sync) if sync else None
        return Sync.from_record(record) if record else None

    @strawberry.field
    async def invoice(self, info: Info) -> Invoice | None:
        """The invoice that changed, in the current state; null if the change concerns no invoice."""
        invoice = self.change.invoice
        loaded = await info.context.loaders.invoice(invoice) if invoice else None
        return Invoice.from_record(loaded) if loaded else None


@graphql_type
class Subscription:
    """All subscriptions, served over WebSocket and server-sent events."""

    @strawberry.subscription
    async def billing_changed(
        self, info: Info, customer_id: CustomerIdArgument
    ) -> AsyncGenerator[BillingChange, None]:
        """Emit an event whenever the customer's billing may have changed.

        Causes: an event from Stripe, a sync, an action of Support, recorded usage (at most once a second), and the
        possibility that one of these was missed.
        Completes at once, without an event, if the customer does not exist or is not visible to the viewer.
        """
        context = info.context
        customer = await find_customer(context, customer_id)
        if customer is None:
            return
        async with context.bypass_loaders().change_feed.subscribe(customer.value.id) as changes:
            del customer
            context.reset_loaders()  # an idle socket must not keep loaded records in memory
            async for change in changes:
                context.reset_loaders(ReadStats())
                yield BillingChange(change=change, reason=change.reason, at=change.at)
