"""`recordUsage`: a metering service records usage."""

from collections.abc import Sequence

from billing import usage_ingestion
from billing.errors import ErrorCode, Refused
from billing.usage_ingestion import MAX_BATCH, UsageReport
from billing.usage_validation import RawDelta
from resolvers.context import Context


async def record_usage(context: Context, deltas: Sequence[RawDelta]) -> UsageReport:
    """Record each delta once; Refused (INVALID_INPUT) if there are too many."""
    if len(deltas) > MAX_BATCH:
        raise Refused(
            ErrorCode.INVALID_INPUT,
            f"Send at most {MAX_BATCH:,} deltas at once; for more, use POST /usage.",
            ("deltas",),
        )
    return await usage_ingestion.record_usage(context.bypass_loaders(), deltas)
