"""The user error type: an expected refusal in a mutation's payload."""

from typing import Self

import strawberry

from billing.errors import ErrorCode, Refused, Unavailable
from billing.usage_validation import RejectionError
from schema.decorators import graphql_enum, graphql_type

ARGUMENTS = frozenset({"input", "correction"})

graphql_enum(
    NOT_FOUND="The object does not exist, or is not the viewer's; the two cannot be told apart.",
    INVALID_INPUT="A value of the input is invalid; `path` names it.",
    UNKNOWN_SKU="No active Stripe price has this SKU as its `lookup_key`.",
    UNUSABLE_PRICE="The SKU's Stripe price cannot count usage; `message` says why, and what to change in Stripe.",
    IDEMPOTENCY_CONFLICT="The key or id was used before with other content; the first request counts.",
    NOT_DRAFT="The invoice is finalized; correct it with a credit note in Stripe.",
    ON_HOLD="The customer's billing is on hold.",
    PERIOD_CLOSED="The month is closed; its bill can no longer change.",
    SYNC_IN_PROGRESS="A sync is writing to Stripe; retry when it has finished.",
    DRIFT="Stripe and the ledger differ; `repairDrift` corrects Stripe.",
    STRIPE_REJECTED="Stripe rejected the request for good; `message` is Stripe's.",
    STRIPE_UNAVAILABLE="Stripe did not respond, or not in time; retry later.",
    LEDGER_UNAVAILABLE="The usage ledger did not respond; retry the same request.",
    OVERLOADED="Too many requests at once; retry after a moment.",
)(ErrorCode)


@graphql_type
class UserError:
    """An expected refusal: `code` is for programs, `message` for people, `path` names the input field."""

    code: ErrorCode = strawberry.field(description="Machine-readable code of the error.")
    message: str = strawberry.field(
        description="Human-readable description of the problem and of its remedy."
    )
    path: list[str] | None = strawberry.field(
        default=None,
        description='Invalid input field, outermost first: `["input", "returnUrl"]`; null when no field is invalid.',
    )
    retry_after: int | None = strawberry.field(
        default=None,
        description="Seconds to wait before a retry; null when a retry of the same request cannot succeed.",
    )

    @classmethod
    def from_rejection(cls, error: RejectionError) -> Self:
        """Convert the reason of a rejected delta, or of a batch; a path is relative to the delta."""
        path = list(error.path or ()) or None
        return cls(code=error.code, message=error.message, path=path, retry_after=error.retry_after)

    @classmethod
    def from_error(cls, error: Refused | Unavailable) -> Self:
        """Convert *error*. The core's paths begin below `input`, the schema's include it."""
        path = list(error.path or ()) if isinstance(error, Refused) else []
        if path and path[0] not in ARGUMENTS:
            path = ["input", *path]
        later = error.whole_seconds if isinstance(error, Unavailable) else error.retry_after
        return cls(code=error.code, message=error.message, path=path or None, retry_after=later)
