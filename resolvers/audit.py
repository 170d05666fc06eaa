"""What Support did, when and why."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import orjson
import strawberry
import structlog

import billing.audit
from billing.audit import ActOutcome, Intent
from billing.changes import Change, ChangeReason
from billing.errors import Refused
from billing.usage import CustomerId
from resolvers.context import Context
from resolvers.moments import moment
from schema.types.describing import graphql_enum, graphql_type

log = structlog.get_logger(__name__)

graphql_enum(
    "AuditOutcome",
    DONE="It was done.",
    REFUSED="It was not done; `detail` has the code of the refusal.",
    UNKNOWN="It was begun and nobody wrote down how it ended: it is under way, or was interrupted.",
)(ActOutcome)


@graphql_type
class AuditChange:
    """One thing that an act changed."""

    what: str = strawberry.field(description="What changed: `total`, `hold`, `status`, …")
    before: str | None = strawberry.field(description="What stood before.")
    after: str | None = strawberry.field(description="What stood after.")


@graphql_type
class AuditEntry:
    """One act of Support's."""

    at: datetime = strawberry.field(description="When.")
    by: str = strawberry.field(description="Who: the subject of the token.")
    action: str = strawberry.field(description="What: the mutation's name.")
    reason: str | None = strawberry.field(description="Why, in their own words.")
    outcome: ActOutcome = strawberry.field(description="How it ended.")
    changes: list[AuditChange] = strawberry.field(
        description="What stood before and after, thing by thing."
    )
    detail: str | None = strawberry.field(description="The same as JSON, for programs.")

    @classmethod
    def of(cls, entry: billing.audit.AuditEntry) -> "AuditEntry":
        """*entry* as clients see it."""
        before, after = entry.before, entry.after
        detail = {"before": before, "after": after, "refusal": entry.refusal}
        return cls(
            at=moment(entry.at_ms),
            by=entry.by,
            action=entry.action,
            reason=entry.reason,
            outcome=entry.outcome,
            changes=[
                AuditChange(what=name, before=before.get(name), after=after.get(name))
                for name in {**before, **after}
            ],
            detail=orjson.dumps(detail).decode(),
        )


@dataclass
class Noted:
    """An act that stands in the log; say what stands *after*, and which *sync* it caused.

    *done* says that it was done before, under the same key: nothing is to be done again.
    """

    done: bool
    after: dict[str, str | None] = field(default_factory=dict)
    sync: str | None = None


@dataclass(frozen=True)
class Act:
    """Something that Support does to a customer: *action* is the mutation's name, *reason* theirs.

    *customer* is None for what concerns nobody in particular; for *key* and *about* see `Intent`.
    """

    context: Context
    customer: CustomerId | None
    action: str
    reason: str | None = None
    key: str | None = None
    about: str = ""

    @asynccontextmanager
    async def noted(self, before: Mapping[str, str | None]) -> AsyncIterator[Noted]:
        """The act is the block: it stands in the log before, how it ended after, and watchers hear of it.

        Whatever is neither done nor refused ends UNKNOWN: another try under the same key finishes it.
        """
        services, by = self.context.services, self.context.viewer.subject
        intent = Intent(
            self.customer, by, self.action, self.reason, before, key=self.key, about=self.about
        )
        begun = await services.audit.begin(intent)
        noted = Noted(done=begun.ended)
        try:
            yield noted
        except Refused as refusal:
            await services.audit.refuse(begun, refusal.code)
            raise
        await services.audit.finish(begun, noted.after)
        log.info("support.acted", customer=self.customer, action=self.action)
        if self.customer is not None:
            change = Change(self.customer, ChangeReason.SUPPORT, sync=noted.sync)
            await services.changes.publish(change)
