"""What Support did, when and why."""

from datetime import datetime

import strawberry

from schema.types.describing import graphql_type


@graphql_type
class AuditEntry:
    """One act of Support's on a customer."""

    at: datetime = strawberry.field(description="When.")
    by: str = strawberry.field(description="Who: the subject of the token.")
    action: str = strawberry.field(description="What: the mutation's name.")
    reason: str | None = strawberry.field(description="Why, in their own words.")
    detail: str | None = strawberry.field(description="What stood before and after, as JSON.")
