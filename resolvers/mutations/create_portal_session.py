"""`createPortalSession`: a link to Stripe's Customer Portal."""

# ruff: noqa: A002 the contract calls the argument `input`

import re
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import billing.ledger.syncs
from billing.budget import Lane
from billing.errors import ErrorCode, Refused
from billing.invoicing.metadata_keys import IDEMPOTENCY_PREFIX
from billing.usage import CustomerId
from resolvers.context import Context, Info
from resolvers.mutations.payloads import CreatePortalSessionPayload
from resolvers.mutations.sync_billing import request_sync, wait_until_finished
from resolvers.node_lookup import require_customer
from resolvers.types.sync import Sync, SyncTrigger
from resolvers.user_errors import with_user_errors
from schema.inputs import CreatePortalSessionInput

MAX_WAIT_SECONDS = 5.0  # of waiting for the sync before the portal opens
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_URL_LENGTH = 2000
PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+")


@with_user_errors
async def create_portal_session(
    info: Info, input: CreatePortalSessionInput
) -> CreatePortalSessionPayload:
    """Create a session of Stripe's Customer Portal, after a sync of pending usage.

    Waits up to five seconds for the sync; if it is not finished by then, the session is created all the same
    and `sync` shows the status. Each call creates a new session.
    """
    _validate_return_url(input.return_url)
    customer = (await require_customer(info.context, input.customer_id)).record.id
    sync = await _sync_first(info.context, customer)
    params: dict[str, Any] = {"customer": customer, "return_url": input.return_url}
    if input.flow is not None:
        params["flow_data"] = {"type": input.flow.value}
    answer = await info.context.uncached_services().stripe.write(
        "/v1/billing_portal/sessions",
        params,
        key=f"{IDEMPOTENCY_PREFIX}portal:{uuid4()}",
        lane=Lane.CUSTOMER,
    )
    return CreatePortalSessionPayload(
        url=answer.body["url"], sync=Sync.from_record(sync) if sync else None
    )


def _validate_return_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port out of range is a ValueError
    except ValueError:
        host = None
    safe = host and (parts.scheme == "https" or (parts.scheme == "http" and host in LOCAL_HOSTS))
    plain = len(url) <= MAX_URL_LENGTH and PRINTABLE_ASCII.fullmatch(url)
    if not safe or parts.username is not None or not plain:
        raise Refused(
            ErrorCode.INVALID_INPUT,
            "Give an https:// address (or http://localhost while developing) of at most "
            f"{MAX_URL_LENGTH:,} ASCII characters, without spaces or a password.",
            ("input", "returnUrl"),
        )


async def _sync_first(context: Context, customer: CustomerId) -> billing.ledger.syncs.Sync | None:
    """Sync pending usage and wait for the end; return the last sync if nothing is pending or a hold is active."""
    snapshot = await context.loaders.snapshot.load(customer)
    if snapshot.up_to_date or snapshot.hold:
        return await context.loaders.last_sync.load(customer)
    sync, _ = await request_sync(context, customer, SyncTrigger.PORTAL)
    return await wait_until_finished(context, sync, MAX_WAIT_SECONDS)
