"""Bringing Stripe up to date, for the panel and for Support."""

# ruff: noqa: A002 the contract calls the argument `input`

from resolvers.context import Info
from resolvers.payloads import SyncBillingPayload
from resolvers.refusing import refusing
from schema.types.inputs import SyncBillingInput


@refusing
async def sync_billing(info: Info, input: SyncBillingInput) -> SyncBillingPayload:
    """Bring Stripe up to date for this customer now. Calls that find a sync waiting get that one back."""
    raise NotImplementedError
