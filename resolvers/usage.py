"""Metering's mutation: usage comes in."""

# ruff: noqa: A002 the contract calls the argument `input`

from billing import metering
from resolvers.context import Info
from resolvers.payloads import Durability, RecordUsagePayload, RejectedDelta
from resolvers.refusing import refusing
from schema.types.inputs import RecordUsageInput, UsageDeltaInput
from schema.types.scalars import write_decimal, write_moment
from schema.types.user_error import UserError


@refusing
async def record_usage(info: Info, input: RecordUsageInput) -> RecordUsagePayload:
    """Metering only: count usage. Each delta counts once, however often its id arrives."""
    raise NotImplementedError
