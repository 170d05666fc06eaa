"""What Support did, when and why."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import strawberry
import structlog

import billing.audit
from billing.changes import Change, ChangeReason
from billing.usage import CustomerId
from resolvers.announcing import announce
from resolvers.context import Context
from resolvers.moments import moment
from schema.types.describing import graphql_type

log = structlog.get_logger(__name__)


@graphql_type
class AuditEntry:
    """One act of Support's on a customer."""

    at: datetime = strawberry.field(description="When.")
    by: str = strawberry.field(description="Who: the subject of the token.")
    action: str = strawberry.field(description="What: the mutation's name.")
    reason: str | None = strawberry.field(description="Why, in their own words.")
    detail: str | None = strawberry.field(description="What stood before and after, as JSON.")

    @classmethod
    def of(cls, entry: billing.audit.AuditEntry) -> "AuditEntry":
        """*entry* as clients see it."""
        return cls(
            at=moment(entry.at_ms),
            by=entry.by,
            action=entry.action,
            reason=entry.reason,
            detail=entry.detail,
        )


@dataclass(frozen=True)
class Act:
    """Something that Support does to a customer: *action* is the mutation's name, *reason* theirs."""

    context: Context
    customer: CustomerId
    action: str
    reason: str | None = None

    async def done(self, *, before: Any, after: Any, sync: str | None = None) -> None:
        """Write it down with what stood *before* and stands *after* (JSON), and tell who is watching."""
        services, by = self.context.services, self.context.viewer.subject
        detail = orjson.dumps({"before": before, "after": after}).decode()
        await services.audit.append(self.customer, by, self.action, self.reason, detail)
        log.info("support.acted", customer=self.customer, action=self.action)
        await announce(services, Change(self.customer, ChangeReason.SUPPORT, sync=sync))
