"""Metering's mutation: usage comes in."""

# ruff: noqa: A002 the contract calls the argument `input`

import strawberry

from billing import usage_ingestion
from billing.errors import ErrorCode, Refused
from billing.usage_ingestion import MAX_BATCH
from billing.usage_validation import Rejection, ReportedDelta
from resolvers.context import Info
from resolvers.mutations.payloads import Durability, RecordUsagePayload, RejectedDelta
from resolvers.user_errors import refusing
from schema.inputs import RecordUsageInput, UsageDeltaInput
from schema.types.user_error import UserError


@refusing
async def record_usage(info: Info, input: RecordUsageInput) -> RecordUsagePayload:
    """Metering only: count usage. Each delta counts once, however often its id arrives."""
    if len(input.deltas) > MAX_BATCH:
        raise Refused(
            ErrorCode.INVALID_INPUT,
            f"Send at most {MAX_BATCH} deltas at once; for more there is POST /usage.",
            ("input", "deltas"),
        )
    reported = [_reported(delta) for delta in input.deltas]
    report = await usage_ingestion.record_usage(info.context.services, reported)
    return RecordUsagePayload(
        accepted=report.accepted,
        duplicates=report.duplicates,
        rejected=[_rejected(each) for each in report.rejected],
        durability=Durability(report.durability),
        ledger_epoch=report.ledger_epoch,
    )


def _reported(delta: UsageDeltaInput) -> ReportedDelta:
    return ReportedDelta(
        id=delta.id,
        customer_id=delta.customer_id,
        sku=delta.sku,
        quantity=delta.quantity,
        occurred_at=delta.occurred_at,
        app=delta.app,
        region=delta.region,
        organization=delta.organization,
    )


def _rejected(rejection: Rejection) -> RejectedDelta:
    return RejectedDelta(
        id=strawberry.ID(rejection.id),
        error=UserError(
            code=rejection.code,
            message=rejection.message,
            path=list(rejection.path) or None,
            retry_after=rejection.retry_after,
        ),
    )
