"""What Support did, when and why."""

from datetime import datetime

import orjson
import strawberry

import billing.audit
from billing.audit import ActOutcome
from resolvers.types.timestamps import moment
from schema.decorators import graphql_enum, graphql_type

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
