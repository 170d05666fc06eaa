"""Audited actions: every action of Support is logged before it runs and completed in the log afterwards."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from billing.audit import ActionIntent
from billing.change_feed import Change, ChangeReason
from billing.errors import Refused
from billing.usage import CustomerId
from resolvers.context import Context

log = structlog.get_logger(__name__)


@dataclass
class AuditRecord:
    """The log entry of a running action: the caller sets *after*, and *sync* if the action caused one.

    *already_done* is true if an earlier call with the same key finished; the action must not run again.
    *before* is the state at the first call with this key.
    """

    already_done: bool
    before: Mapping[str, str | None]
    after: dict[str, str | None] = field(default_factory=dict)
    sync: str | None = None


@dataclass(frozen=True)
class AuditedAction:
    """An action of Support on *customer*; *action* is the name of the mutation.

    *customer* is None for an action that concerns no single customer. `ActionIntent` documents
    *idempotency_key* and *parameters*.
    """

    context: Context
    customer: CustomerId | None
    action: str
    reason: str | None = None
    idempotency_key: str | None = None
    parameters: str = ""

    @asynccontextmanager
    async def run(self, before: Mapping[str, str | None]) -> AsyncIterator[AuditRecord]:
        """Log the state *before*, run the block, log its outcome and publish the change to subscribers.

        A Refused from the block is logged as REFUSED. Any other error leaves the outcome UNKNOWN; a retry
        with the same key completes the entry.
        """
        services, by = self.context.bypass_loaders(), self.context.viewer.subject
        intent = ActionIntent(
            self.customer,
            by,
            self.action,
            self.reason,
            before,
            idempotency_key=self.idempotency_key,
            parameters=self.parameters,
        )
        begun = await services.audit.begin(intent)
        audit = AuditRecord(begun.completed, begun.before)
        try:
            yield audit
        except Refused as refusal:
            await services.audit.refuse(begun, refusal.code)
            raise
        await services.audit.complete(begun, audit.after)
        log.info("audit.completed", customer=self.customer, action=self.action)
        if self.customer is not None:
            change = Change(self.customer, ChangeReason.SUPPORT, sync=audit.sync)
            await services.change_feed.publish(change)
