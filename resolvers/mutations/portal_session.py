"""The way into Stripe's Customer Portal."""

# ruff: noqa: A002 the contract calls the argument `input`

import re
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import billing.ledger.syncs
from billing.budget import Lane
from billing.errors import ErrorCode, Refused
from billing.invoicing.metadata_keys import OUR_KEYS
from billing.usage import CustomerId
from resolvers.context import Context, Info
from resolvers.mutations.payloads import CreatePortalSessionPayload
from resolvers.mutations.sync_billing import finished, request_sync
from resolvers.node_lookup import must_find_customer
from resolvers.types.sync import Sync, SyncTrigger
from resolvers.user_errors import refusing
from schema.inputs import CreatePortalSessionInput

PATIENCE = 5.0  # seconds that a customer who clicked is kept waiting for Stripe to be up to date
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
LONGEST_URL = 2000
PLAIN = re.compile(r"[\x21-\x7e]+")


@refusing
async def create_portal_session(
    info: Info, input: CreatePortalSessionInput
) -> CreatePortalSessionPayload:
    """A link to Stripe's Customer Portal, synced first: waits a few seconds, then says so in `sync`."""
    _check_way_back(input.return_url)
    customer = (await must_find_customer(info.context, input.customer_id)).record.id
    sync = await _synced(info.context, customer)
    params: dict[str, Any] = {"customer": customer, "return_url": input.return_url}
    if input.flow is not None:
        params["flow_data"] = {"type": input.flow.value}
    answer = await info.context.services.stripe.write(
        "/v1/billing_portal/sessions", params, key=f"{OUR_KEYS}portal:{uuid4()}", lane=Lane.CUSTOMER
    )
    return CreatePortalSessionPayload(url=answer.body["url"], sync=Sync.of(sync) if sync else None)


def _check_way_back(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port out of range is a ValueError
    except ValueError:
        host = None
    safe = host and (parts.scheme == "https" or (parts.scheme == "http" and host in LOCAL))
    plain = len(url) <= LONGEST_URL and PLAIN.fullmatch(url)
    if not safe or parts.username is not None or not plain:
        raise Refused(
            ErrorCode.INVALID_INPUT,
            "Give an https:// address (or http://localhost while developing) of at most "
            f"{LONGEST_URL:,} ASCII characters, without spaces or a password.",
            ("input", "returnUrl"),
        )


async def _synced(context: Context, customer: CustomerId) -> billing.ledger.syncs.Sync | None:
    """The sync after which Stripe shows everything, as far as it got in time."""
    snapshot = await context.loaders.snapshot.load(customer)
    if snapshot.up_to_date or snapshot.hold:
        return await context.loaders.last_sync.load(customer)
    sync, _ = await request_sync(context, customer, SyncTrigger.PORTAL)
    return await finished(context, sync, PATIENCE)
