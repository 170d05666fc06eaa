"""The sync types: one flush of a customer's usage to Stripe, and a customer's sync state."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import strawberry

import billing.ledger.syncs
from billing.invoicing.snapshot import Snapshot
from billing.ledger.syncs import SyncStatus, SyncTrigger
from schema.decorators import graphql_enum, graphql_type
from schema.info import Info
from schema.scalars import to_datetime, to_optional_datetime
from schema.stripe_links import dashboard_url
from schema.types.invoice import Invoice
from schema.types.node import Node

if TYPE_CHECKING:
    from schema.types.customer import Customer


graphql_enum(
    QUEUED="Requested and waiting for a worker.",
    RUNNING="A worker is writing to Stripe.",
    SUCCEEDED="Stripe has everything that was recorded when the sync began.",
    RETRYING="The last attempt failed; `nextAttemptAt` is the time of the next one.",
    FAILED="Stripe rejected the sync; see `failure`, and call `retrySync` to try again.",
)(SyncStatus)


graphql_enum(
    ON_DEMAND="A call of the mutation `syncBilling`.",
    PORTAL="A request for a session of Stripe's Customer Portal.",
    INTERVAL="Usage that had been pending for the sync interval.",
    PERIOD_CLOSE="The end of the month.",
    SUPPORT="An adjustment, a release or a repair by Support.",
    WEBHOOK="A Stripe event that concerns the gateway's invoice lines.",
)(SyncTrigger)


@graphql_enum(
    UP_TO_DATE="Stripe has everything that was recorded.",
    PENDING="Usage is recorded that the next interval sync will send to Stripe.",
    QUEUED="A sync was requested and waits for a worker.",
    RUNNING="A sync is writing to Stripe.",
    RETRYING="The last attempt failed and will be repeated.",
    FAILED="Stripe rejected the sync; Support has to act.",
    HELD="Billing is on hold; nothing is sent to Stripe until the hold is released.",
)
class CustomerSyncStatus(StrEnum):
    """Overall sync status of a customer."""

    UP_TO_DATE = "UP_TO_DATE"
    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    FAILED = "FAILED"
    HELD = "HELD"


UNFINISHED = frozenset({SyncStatus.QUEUED, SyncStatus.RUNNING, SyncStatus.RETRYING})


@graphql_type
class SyncFailure:
    """Error that made a sync fail."""

    code: str = strawberry.field(
        description="Machine-readable code: Stripe's error code, or the gateway's."
    )
    message: str = strawberry.field(description="Human-readable description of the error.")
    request_id: str | None = strawberry.field(
        description="Stripe request id, `req_…`, to quote to Stripe's support; null when Stripe did not respond.",
    )

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """Support only: link to the request's log in Stripe's Dashboard; null without a request id."""
        return dashboard_url(info.context, "logs", self.request_id) if self.request_id else None

    @classmethod
    def from_record(cls, failure: billing.ledger.syncs.SyncFailure) -> "SyncFailure":
        """Convert the *failure* of a sync."""
        return cls(code=failure.code, message=failure.message, request_id=failure.request_id)


@graphql_type
class Sync(Node):
    """One flush of a customer's recorded usage to Stripe."""

    id: strawberry.ID = strawberry.field(description="Sync id of this gateway, `sync_…`.")
    record: strawberry.Private[billing.ledger.syncs.Sync]
    status: SyncStatus = strawberry.field(description="Current status of the sync.")
    trigger: SyncTrigger = strawberry.field(description="Event that caused the sync.")
    requested_at: datetime = strawberry.field(
        description="Time at which it was requested; for an interval sync, time at which it began."
    )
    started_at: datetime | None = strawberry.field(
        description="Time at which a worker first started it; null while it is queued."
    )
    finished_at: datetime | None = strawberry.field(
        description="Time at which it succeeded or failed; null until then."
    )
    deltas: int = strawberry.field(description="Number of recorded changes sent to Stripe.")
    lines_added: int = strawberry.field(description="Number of invoice lines added.")
    lines_updated: int = strawberry.field(description="Number of invoice lines updated.")
    lines_removed: int = strawberry.field(description="Number of invoice lines removed.")
    stripe_calls: int = strawberry.field(
        description="Number of calls to Stripe; it does not grow with the number of deltas."
    )
    attempts: int = strawberry.field(description="Number of attempts so far.")
    next_attempt_at: datetime | None = strawberry.field(
        description="Time of the next attempt; null unless `status` is RETRYING.",
    )
    failure: SyncFailure | None = strawberry.field(
        description="Error of the last failed attempt; null when none failed."
    )

    @strawberry.field
    async def customer(
        self, info: Info
    ) -> Annotated["Customer", strawberry.lazy("schema.types.customer")]:
        """Customer whose usage is sent to Stripe."""
        from schema.types.customer import load_owner  # noqa: PLC0415 customers have syncs

        return await load_owner(info, self.record.customer)

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """Support only: link to the invoice that it wrote to, else to its customer, in Stripe's Dashboard."""
        if self.record.invoice:
            return dashboard_url(info.context, "invoices", self.record.invoice)
        return dashboard_url(info.context, "customers", self.record.customer)

    @strawberry.field
    async def invoice(self, info: Info) -> Invoice | None:
        """Draft invoice that it wrote to; null while there is none."""
        invoice = self.record.invoice
        loaded = await info.context.loaders.invoice(invoice) if invoice else None
        return Invoice.from_record(loaded) if loaded else None

    @classmethod
    def from_record(cls, record: billing.ledger.syncs.Sync) -> "Sync":
        """Convert the *record* of a sync."""
        failure = record.failure
        return cls(
            id=strawberry.ID(record.id),
            record=record,
            status=record.status,
            trigger=SyncTrigger[record.trigger],
            requested_at=to_datetime(record.requested_ms),
            started_at=to_optional_datetime(record.started_ms),
            finished_at=to_optional_datetime(record.finished_ms),
            deltas=record.deltas,
            lines_added=record.lines_added,
            lines_updated=record.lines_updated,
            lines_removed=record.lines_removed,
            stripe_calls=record.stripe_calls,
            attempts=record.attempts,
            next_attempt_at=to_optional_datetime(record.next_attempt_ms),
            failure=SyncFailure.from_record(failure) if failure else None,
        )


@graphql_type
class SyncState:
    """Progress of sending a customer's recorded usage to Stripe."""

    snapshot: strawberry.Private[Snapshot]
    status: CustomerSyncStatus = strawberry.field(
        description="Overall sync status of the customer."
    )
    last_synced_at: datetime | None = strawberry.field(
        description="Time at which Stripe last had everything that was recorded; null if never this month.",
    )
    pending_deltas: int = strawberry.field(
        description="Number of recorded changes not yet sent to Stripe."
    )
    oldest_pending_at: datetime | None = strawberry.field(
        description="Time at which the oldest unsent change was recorded; null when there is none."
    )
    last_sync: Sync | None = strawberry.field(
        description="Most recent sync, finished or not; null when there is none."
    )

    @strawberry.field
    async def next_sync_at(self, info: Info) -> datetime | None:
        """Time by which the next sync starts; `syncBilling` starts one sooner. Null when nothing is pending."""
        customer, period = self.snapshot.customer, self.snapshot.period
        return to_optional_datetime(await info.context.loaders.due_ms(customer, period))

    @classmethod
    def from_snapshot(
        cls, snapshot: Snapshot, last: billing.ledger.syncs.Sync | None
    ) -> "SyncState":
        """Combine the ledger's *snapshot* and the *last* sync."""
        return cls(
            snapshot=snapshot,
            status=_sync_status(snapshot, last),
            last_synced_at=to_optional_datetime(snapshot.synced_ms),
            pending_deltas=snapshot.pending_deltas,
            oldest_pending_at=to_optional_datetime(snapshot.oldest_pending_ms),
            last_sync=Sync.from_record(last) if last else None,
        )


def _sync_status(snapshot: Snapshot, last: billing.ledger.syncs.Sync | None) -> CustomerSyncStatus:
    if snapshot.hold is not None:
        return CustomerSyncStatus.HELD
    if snapshot.parked_reason is not None:
        return CustomerSyncStatus.FAILED
    if last is not None and last.status in UNFINISHED:
        return CustomerSyncStatus[last.status]
    return CustomerSyncStatus.UP_TO_DATE if snapshot.is_synced else CustomerSyncStatus.PENDING
