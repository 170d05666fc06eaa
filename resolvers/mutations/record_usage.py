"""`recordUsage`: a metering service records usage."""

# ruff: noqa: A002 the contract calls the argument `input`

import strawberry

from billing import usage_ingestion
from billing.errors import ErrorCode, Refused
from billing.usage_ingestion import MAX_BATCH
from billing.usage_validation import RawDelta, Rejection
from resolvers.context import Info
from resolvers.mutations.payloads import Durability, RecordUsagePayload, RejectedDelta
from resolvers.user_errors import with_user_errors
from schema.inputs import RecordUsageInput, UsageDeltaInput
from schema.types.user_error import UserError


@with_user_errors
async def record_usage(info: Info, input: RecordUsageInput) -> RecordUsagePayload:
    """Metering only: record a batch of usage deltas, at most 10,000 (INVALID_INPUT above).

    Each delta is counted once, however often its `id` is sent. An invalid delta is listed in `rejected` and
    does not affect the others.
    """
    if len(input.deltas) > MAX_BATCH:
        raise Refused(
            ErrorCode.INVALID_INPUT,
            f"Send at most {MAX_BATCH} deltas at once; for more, use POST /usage.",
            ("input", "deltas"),
        )
    reported = [_raw_delta(delta) for delta in input.deltas]
    report = await usage_ingestion.record_usage(info.context.uncached_services(), reported)
    return RecordUsagePayload(
        accepted=report.accepted,
        duplicates=report.duplicates,
        rejected=[_rejected_delta(rejection) for rejection in report.rejected],
        durability=Durability(report.durability),
        ledger_epoch=report.ledger_epoch,
    )


def _raw_delta(delta: UsageDeltaInput) -> RawDelta:
    return RawDelta(
        id=delta.id,
        customer_id=delta.customer_id,
        sku=delta.sku,
        quantity=delta.quantity,
        occurred_at=delta.occurred_at,
        app=delta.app,
        region=delta.region,
        organization=delta.organization,
    )


def _rejected_delta(rejection: Rejection) -> RejectedDelta:
    return RejectedDelta(
        id=strawberry.ID(rejection.id),
        error=UserError(
            code=rejection.code,
            message=rejection.message,
            path=list(rejection.path) or None,
            retry_after=rejection.retry_after,
        ),
    )
