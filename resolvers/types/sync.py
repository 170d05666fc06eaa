"""A sync: one flush of a customer's accumulated usage into Stripe."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import strawberry

import billing.ledger.syncs
from billing.invoicing.snapshot import Snapshot
from billing.ledger.syncs import SyncStatus
from resolvers.context import Context, Info
from resolvers.types.invoice import Invoice
from resolvers.types.stripe_links import dashboard
from resolvers.types.timestamps import maybe_moment, moment
from schema.decorators import graphql_enum, graphql_type
from schema.types.node import Node

if TYPE_CHECKING:
    from resolvers.types.customer import Customer


graphql_enum(
    QUEUED="Asked for; a worker picks it up within a moment.",
    RUNNING="A worker is telling Stripe.",
    SUCCEEDED="Stripe knows everything that was recorded when it began.",
    RETRYING="Stripe could not be told yet; `nextAttemptAt` says when it is tried again.",
    FAILED="Stripe said no; `failure` says why, `retrySync` tries again.",
)(SyncStatus)


@graphql_enum(
    ON_DEMAND="Somebody called `syncBilling`.",
    PORTAL="The customer is on the way to Stripe's portal.",
    INTERVAL="Usage had waited long enough.",
    PERIOD_CLOSE="The month has ended.",
    SUPPORT="A correction, a release or a repair by Support.",
    WEBHOOK="Stripe announced a change that touches our lines.",
)
class SyncTrigger(StrEnum):
    """Why a sync was made."""

    ON_DEMAND = "ON_DEMAND"
    PORTAL = "PORTAL"
    INTERVAL = "INTERVAL"
    PERIOD_CLOSE = "PERIOD_CLOSE"
    SUPPORT = "SUPPORT"
    WEBHOOK = "WEBHOOK"


@graphql_enum(
    UP_TO_DATE="Stripe knows everything that was recorded.",
    PENDING="Usage is recorded that Stripe will hear of at the next interval.",
    QUEUED="A sync was asked for and waits for a worker.",
    RUNNING="Stripe is being told right now.",
    RETRYING="Stripe could not be told yet; it is being tried again.",
    FAILED="Stripe said no; Support has to look.",
    HELD="Support has put billing on hold; Stripe is told again once it is released.",
)
class CustomerSyncStatus(StrEnum):
    """Whether Stripe is up to date for a customer."""

    UP_TO_DATE = "UP_TO_DATE"
    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    FAILED = "FAILED"
    HELD = "HELD"


UNDERWAY = frozenset({SyncStatus.QUEUED, SyncStatus.RUNNING, SyncStatus.RETRYING})


@graphql_type
class SyncFailure:
    """Why a sync failed."""

    code: str = strawberry.field(description="For programs: Stripe's error code, or ours.")
    message: str = strawberry.field(description="For people.")
    request_id: str | None = strawberry.field(
        description="Stripe's id of the request, `req_…`, for a ticket to Stripe.",
    )

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """Support only: that request in the logs of Stripe's Dashboard."""
        return dashboard(info.context, "logs", self.request_id) if self.request_id else None

    @classmethod
    def of(cls, failure: billing.ledger.syncs.SyncFailure) -> "SyncFailure":
        """*failure* as clients see it."""
        return cls(code=failure.code, message=failure.message, request_id=failure.request_id)


@graphql_type
class Sync(Node):
    """One flush of one customer's accumulated deltas into Stripe."""

    id: strawberry.ID = strawberry.field(description="Ours: `sync_…`.")
    record: strawberry.Private[billing.ledger.syncs.Sync]
    status: SyncStatus = strawberry.field(description="How far it has come.")
    trigger: SyncTrigger = strawberry.field(description="Why it was made.")
    requested_at: datetime = strawberry.field(
        description="When it was asked for, or began in its turn."
    )
    started_at: datetime | None = strawberry.field(description="When a worker first took it up.")
    finished_at: datetime | None = strawberry.field(description="When it succeeded or failed.")
    deltas: int = strawberry.field(description="How many recorded changes it told Stripe of.")
    lines_added: int = strawberry.field(description="Invoice lines that it added.")
    lines_updated: int = strawberry.field(description="Invoice lines that it changed.")
    lines_removed: int = strawberry.field(description="Invoice lines that it removed.")
    stripe_calls: int = strawberry.field(description="Calls to Stripe; few, however many deltas.")
    attempts: int = strawberry.field(description="How often it was tried.")
    next_attempt_at: datetime | None = strawberry.field(
        description="When it is tried again; null unless it is being retried.",
    )
    failure: SyncFailure | None = strawberry.field(
        description="What went wrong last; null if nothing did."
    )

    @strawberry.field
    async def customer(
        self, info: Info
    ) -> Annotated["Customer", strawberry.lazy("resolvers.types.customer")]:
        """Whose bill it brings up to date."""
        from resolvers.types.customer import customer_of  # noqa: PLC0415 customers have syncs

        return await customer_of(info, self.record.customer)

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """Support only: the invoice that it wrote to, or its customer, in Stripe's Dashboard."""
        if self.record.invoice:
            return dashboard(info.context, "invoices", self.record.invoice)
        return dashboard(info.context, "customers", self.record.customer)

    @strawberry.field
    async def invoice(self, info: Info) -> Invoice | None:
        """The draft that it wrote to; null while there is none."""
        return (
            await Invoice.find(info.context, self.record.invoice) if self.record.invoice else None
        )

    @classmethod
    async def find(cls, context: Context, sync: str) -> "Sync | None":
        """The sync with this id, if it is still remembered; whether it may be seen is the caller's to check."""
        record = await context.loaders.sync.load(sync)
        return cls.of(record) if record else None

    @classmethod
    def of(cls, record: billing.ledger.syncs.Sync) -> "Sync":
        """*record* as clients see it."""
        failure = record.failure
        return cls(
            owner=record.customer,
            id=strawberry.ID(record.id),
            record=record,
            status=record.status,
            trigger=SyncTrigger[record.trigger],
            requested_at=moment(record.requested_ms),
            started_at=maybe_moment(record.started_ms),
            finished_at=maybe_moment(record.finished_ms),
            deltas=record.deltas,
            lines_added=record.lines_added,
            lines_updated=record.lines_updated,
            lines_removed=record.lines_removed,
            stripe_calls=record.stripe_calls,
            attempts=record.attempts,
            next_attempt_at=maybe_moment(record.next_attempt_ms),
            failure=SyncFailure.of(failure) if failure else None,
        )


@graphql_type
class SyncState:
    """Whether Stripe knows what was recorded, and when it will."""

    snapshot: strawberry.Private[Snapshot]
    status: CustomerSyncStatus = strawberry.field(description="In a word.")
    last_synced_at: datetime | None = strawberry.field(
        description="When Stripe last knew everything; null if never this month.",
    )
    pending_deltas: int = strawberry.field(
        description="Recorded changes that Stripe was not told of."
    )
    oldest_pending_at: datetime | None = strawberry.field(
        description="How long the oldest of them has been waiting."
    )
    last_sync: Sync | None = strawberry.field(description="The most recent sync, finished or not.")

    @strawberry.field
    async def next_sync_at(self, info: Info) -> datetime | None:
        """When a worker looks at the latest; `syncBilling` is quicker. Null when there is nothing to tell."""
        place = (self.snapshot.customer, self.snapshot.period)
        return maybe_moment(await info.context.loaders.due_ms.load(place))

    @classmethod
    def of(cls, snapshot: Snapshot, last: billing.ledger.syncs.Sync | None) -> "SyncState":
        """What the ledger (*snapshot*) and the *last* sync say together."""
        return cls(
            snapshot=snapshot,
            status=_status(snapshot, last),
            last_synced_at=maybe_moment(snapshot.synced_ms),
            pending_deltas=snapshot.pending_deltas,
            oldest_pending_at=maybe_moment(snapshot.oldest_pending_ms),
            last_sync=Sync.of(last) if last else None,
        )


def _status(snapshot: Snapshot, last: billing.ledger.syncs.Sync | None) -> CustomerSyncStatus:
    if snapshot.hold is not None:
        return CustomerSyncStatus.HELD
    if snapshot.stuck is not None:
        return CustomerSyncStatus.FAILED
    if last is not None and last.status in UNDERWAY:
        return CustomerSyncStatus[last.status]
    return CustomerSyncStatus.UP_TO_DATE if snapshot.told else CustomerSyncStatus.PENDING
