"""A customer: what it owes, what it was billed, how it pays, and what Support knows about it."""


import strawberry

from billing.errors import ErrorCode, Refused
from billing.records import CustomerRecord
from billing.usage import CustomerId
from resolvers.adjustment import Adjustment
from resolvers.audit import AuditEntry
from resolvers.context import Info
from resolvers.drift import DriftReport
from resolvers.hold import BillingHold
from resolvers.invoice import Invoice, InvoiceStatus
from resolvers.links import dashboard
from resolvers.loaders import Loaded
from resolvers.payment_method import PaymentMethod
from resolvers.period import BillingPeriod, MonthlySpend
from resolvers.sync import SyncState
from schema.types.connections import After, Connection, First
from schema.types.describing import graphql_type
from schema.types.freshness import Freshness, FreshnessSource
from schema.types.money import Money
from schema.types.node import Node

PAYMENT_METHODS = 10
INVOICES = 20
ADJUSTMENTS = 20
ENTRIES = 50
MONTHS = 12


@graphql_type
class Customer(Node):
    """One Stripe customer: one paying Fly organization, with the organizations linked to it."""

    id: strawberry.ID = strawberry.field(description="Stripe's id, `cus_…`.")
    record: strawberry.Private[CustomerRecord]
    organization: str | None = strawberry.field(
        description="Slug of the Fly organization, from the metadata of the Stripe customer.",
    )
    name: str | None = strawberry.field(description="As on its invoices.")
    email: str | None = strawberry.field(description="Where Stripe sends its invoices.")
    currency: str | None = strawberry.field(
        description="ISO 4217 in lower case; null before anything was billed.",
    )
    delinquent: bool = strawberry.field(
        description="Whether a payment has failed and is still owed."
    )
    credit_balance: Money = strawberry.field(
        description="Positive: Fly owes the customer, and the next invoice uses it up.",
    )
    freshness: Freshness = strawberry.field(description="How old this is, and where it came from.")
    stripe_dashboard_url: str = strawberry.field(
        description="Support only: this customer in Stripe's Dashboard.",
    )

    @strawberry.field
    async def default_payment_method(self, info: Info) -> PaymentMethod | None:
        """What the next invoice is paid with."""
        raise NotImplementedError

    @strawberry.field
    async def payment_methods(
        self, info: Info, first: First = PAYMENT_METHODS, after: After = None
    ) -> Connection[PaymentMethod]:
        """The ways to pay that Stripe keeps, newest first."""
        raise NotImplementedError

    @strawberry.field
    async def invoices(
        self,
        info: Info,
        first: First = INVOICES,
        after: After = None,
        status: InvoiceStatus | None = None,
    ) -> Connection[Invoice]:
        """Its invoices, newest first, drafts included."""
        raise NotImplementedError

    @strawberry.field
    async def current_period(self, info: Info) -> BillingPeriod:
        """Month to date, to the last recorded delta, whatever Stripe has been told so far."""
        raise NotImplementedError

    @strawberry.field
    async def spend_history(self, info: Info, months: int | None = MONTHS) -> list[MonthlySpend]:
        """What was billed, by calendar month, newest first; months without an invoice are left out."""
        raise NotImplementedError

    @strawberry.field
    async def sync_state(self, info: Info) -> SyncState:
        """Whether Stripe knows what was recorded, and when it will."""
        raise NotImplementedError

    @strawberry.field
    async def hold(self, info: Info) -> BillingHold | None:
        """Support only: why billing is stopped; null when it is not."""
        raise NotImplementedError

    @strawberry.field
    async def adjustments(
        self, info: Info, first: First = ADJUSTMENTS, after: After = None
    ) -> Connection[Adjustment]:
        """Support only: corrections made so far, newest first."""
        raise NotImplementedError

    @strawberry.field
    async def drift(self, info: Info) -> DriftReport:
        """Support only: this month's ledger against Stripe, line by line; asks Stripe each time."""
        raise NotImplementedError

    @strawberry.field
    async def audit_log(
        self, info: Info, first: First = ENTRIES, after: After = None
    ) -> Connection[AuditEntry]:
        """Support only: what Support did about this customer, newest first."""
        raise NotImplementedError

    @classmethod
    def of(cls, loaded: Loaded[CustomerRecord]) -> "Customer":
        """The customer as clients see it."""
        record = loaded.value
        return cls(
            id=strawberry.ID(record.id),
            record=record,
            organization=record.organization,
            name=record.name,
            email=record.email,
            currency=record.currency,
            delinquent=record.delinquent,
            credit_balance=Money.of_minor(-record.balance, record.currency or "usd"),
            freshness=Freshness(
                source=FreshnessSource(loaded.source), fetched_at=loaded.fetched_at
            ),
            stripe_dashboard_url=dashboard("customers", record.id, livemode=record.livemode),
        )


async def customer_of_object(info: Info, customer: CustomerId) -> Customer:
    """The customer whom an object that the viewer may see belongs to."""
    loaded = await info.context.loaders.customer.load(customer)
    if loaded is None:
        raise Refused(ErrorCode.NOT_FOUND, "Stripe no longer has this customer.")
    return Customer.of(loaded)
