"""What can be followed while it happens."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated

import strawberry

from billing.changes import Change, ChangeReason
from resolvers.context import Context, Info
from resolvers.customer import Customer
from resolvers.finding import find_customer
from resolvers.invoice import Invoice
from resolvers.sync import Sync
from schema.types.describing import graphql_enum, graphql_type

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

    reason: ChangeReason = strawberry.field(description="Why.")
    customer: Customer = strawberry.field(description="The customer, as of now.")
    sync: Sync | None = strawberry.field(description="The sync that took a step.")
    invoice: Invoice | None = strawberry.field(description="The invoice that changed.")
    at: datetime = strawberry.field(description="When.")

    @classmethod
    async def of(cls, context: Context, change: Change) -> "BillingChange | None":
        """*change* with what it is about, read now; None when the customer is gone."""
        customer = await Customer.find(context, change.customer)
        if customer is None:
            return None
        return cls(
            reason=change.reason,
            customer=customer,
            sync=await Sync.find(context, change.sync) if change.sync else None,
            invoice=await Invoice.find(context, change.invoice) if change.invoice else None,
            at=change.at,
        )


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
            async for change in changes:
                context.renew()
                event = await BillingChange.of(context, change)
                if event is not None:
                    yield event
