"""Metering's mutation: usage comes in."""

# ruff: noqa: A002 the contract calls the argument `input`

from resolvers.context import Info
from resolvers.payloads import RecordUsagePayload
from resolvers.refusing import refusing
from schema.types.inputs import RecordUsageInput


@refusing
async def record_usage(info: Info, input: RecordUsageInput) -> RecordUsagePayload:
    """Metering only: count usage. Each delta counts once, however often its id arrives."""
    raise NotImplementedError
