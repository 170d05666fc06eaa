"""The audit entry type: one action by Support."""

from datetime import datetime

import orjson
import strawberry

import billing.audit
from billing.audit import ActionOutcome
from schema.decorators import graphql_enum, graphql_type
from schema.scalars import to_datetime

graphql_enum(
    "AuditOutcome",
    DONE="The action was carried out.",
    REFUSED="The action was refused; `detail` has the error code.",
    UNKNOWN="No outcome was recorded: the action is still running, or was interrupted.",
)(ActionOutcome)


@graphql_type
class AuditChange:
    """A value that an action changed."""

    what: str = strawberry.field(
        description="Name of the changed value: `total`, `hold`, `status`, …"
    )
    before: str | None = strawberry.field(
        description="Value before the action; null when there was none."
    )
    after: str | None = strawberry.field(
        description="Value after the action; null when there is none."
    )


@graphql_type
class AuditEntry:
    """An action by Support, from the audit log."""

    at: datetime = strawberry.field(description="Time of the action.")
    by: str = strawberry.field(description="`sub` claim of the agent's token.")
    action: str = strawberry.field(description="Name of the mutation, such as `holdBilling`.")
    reason: str | None = strawberry.field(
        description="Reason given by the agent; null when none was given."
    )
    outcome: ActionOutcome = strawberry.field(description="Outcome of the action.")
    changes: list[AuditChange] = strawberry.field(
        description="Values that the action changed, before and after."
    )
    detail: str | None = strawberry.field(
        description="JSON object with the keys `before`, `after` and `refusal`, for programs."
    )

    @classmethod
    def from_record(cls, entry: billing.audit.AuditEntry) -> "AuditEntry":
        """Convert an *entry* of the audit log."""
        before, after = entry.before, entry.after
        detail = {"before": before, "after": after, "refusal": entry.refusal}
        return cls(
            at=to_datetime(entry.at_ms),
            by=entry.actor,
            action=entry.action,
            reason=entry.reason,
            outcome=entry.outcome,
            changes=[
                AuditChange(what=name, before=before.get(name), after=after.get(name))
                for name in {**before, **after}
            ],
            detail=orjson.dumps(detail).decode(),
        )
