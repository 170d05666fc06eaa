"""The actions that Support can take on an invoice, and what blocks them."""

import strawberry

from resolvers.invoices import InvoiceActionKind, InvoiceBlocker
from schema.decorators import graphql_enum, graphql_type

graphql_enum(
    SYNC="Send pending usage to Stripe now: `syncBilling`.",
    ADJUST="Adjust the usage of the invoice's month: `adjustUsage`.",
    HOLD="Place a hold on the customer's billing: `holdBilling`.",
    RELEASE="Release the hold on the customer's billing: `releaseBilling`.",
    FINALIZE="Finalize the draft, so that Stripe sends it to the customer: `finalizeInvoice`.",
)(InvoiceActionKind)

graphql_enum(
    NOT_DRAFT="The invoice is finalized; refunds and credit notes are made in Stripe's Dashboard.",
    SYNC_IN_PROGRESS="A sync is writing to Stripe; try again when it has finished.",
    ON_HOLD="Billing is on hold; call `releaseBilling` first.",
    NOT_ON_HOLD="There is no hold to release.",
    DRIFT="Stripe and the ledger differ; call `repairDrift` first.",
    PERIOD_OPEN="The month has not ended; usage is still being counted.",
    PERIOD_CLOSED="The ledger has closed the month, and its bill can no longer change; adjust the current month.",
    NOT_OURS="The invoice was made by hand in Stripe and bills no recorded usage; edit it in Stripe.",
)(InvoiceBlocker)


@graphql_type
class InvoiceAction:
    """An action on an invoice, and the reasons that block it now."""

    action: InvoiceActionKind = strawberry.field(description="Kind of the action.")
    blocked_by: list[InvoiceBlocker] = strawberry.field(
        description="All reasons that block the action; empty when it is available.",
    )
