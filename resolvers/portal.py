"""The way into Stripe's Customer Portal."""

# ruff: noqa: A002 the contract calls the argument `input`

from resolvers.context import Info
from resolvers.payloads import CreatePortalSessionPayload
from resolvers.refusing import refusing
from schema.types.inputs import CreatePortalSessionInput


@refusing
async def create_portal_session(
    info: Info,
    input: CreatePortalSessionInput,
) -> CreatePortalSessionPayload:
    """A link to Stripe's Customer Portal, synced first: waits a few seconds, then says so in `sync`."""
    raise NotImplementedError
