"""An expected refusal, inside the payload: what a program reads and what a person is shown."""

from typing import Self

import strawberry

from billing.errors import ErrorCode, Refused, Unavailable
from schema.decorators import graphql_enum, graphql_type

ARGUMENTS = frozenset({"input", "correction"})

graphql_enum(
    NOT_FOUND="There is no such thing, or it is not yours: the two cannot be told apart.",
    INVALID_INPUT="A value cannot be used as it stands; `path` points at it.",
    UNKNOWN_SKU="No active Stripe price counts this SKU (a price's `lookup_key`).",
    IDEMPOTENCY_CONFLICT="The same key or id came before with other contents; the first one counts.",
    NOT_DRAFT="The invoice is finalized; correct it with a credit note in Stripe.",
    ON_HOLD="Support has put this customer's billing on hold.",
    PERIOD_CLOSED="The month is closed; its bill no longer changes.",
    SYNC_IN_PROGRESS="Stripe is being brought up to date right now; ask again when that is done.",
    DRIFT="Stripe shows something else than we count; `repairDrift` settles it.",
    STRIPE_REJECTED="Stripe said no, for good; the message is Stripe's.",
    STRIPE_UNAVAILABLE="Stripe did not answer, or not in time; ask again.",
    LEDGER_UNAVAILABLE="Our own memory of usage did not answer; send it again.",
    OVERLOADED="Too much is being asked at once; ask again in a moment.",
)(ErrorCode)


@graphql_type
class UserError:
    """An expected refusal: a program reads `code`, a person is shown `message`, `path` points at the input."""

    code: ErrorCode = strawberry.field(description="For programs.")
    message: str = strawberry.field(description="For people: what is wrong and what helps.")
    path: list[str] | None = strawberry.field(
        default=None,
        description='The input field at fault, outermost first: `["input", "returnUrl"]`.',
    )
    retry_after: int | None = strawberry.field(
        default=None,
        description="In how many seconds to ask again; null when asking again as it stands is of no use.",
    )

    @classmethod
    def of(cls, error: Refused | Unavailable) -> Self:
        """*error* as a payload says it; the core's paths begin below `input`, the schema's with it."""
        path = list(error.path or ()) if isinstance(error, Refused) else []
        if path and path[0] not in ARGUMENTS:
            path = ["input", *path]
        later = error.whole_seconds if isinstance(error, Unavailable) else None
        return cls(code=error.code, message=error.message, path=path or None, retry_after=later)
