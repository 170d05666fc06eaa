"""`createPortalSession`: a link to Stripe's Customer Portal."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from billing.budget import Lane
from billing.errors import ErrorCode, Refused
from billing.invoicing.metadata_keys import IDEMPOTENCY_PREFIX
from billing.ledger.syncs import Sync, SyncTrigger
from billing.usage import CustomerId
from resolvers.context import Context
from resolvers.mutations.sync_billing import request_sync, wait_until_finished
from resolvers.node_lookup import require_customer

MAX_WAIT_SECONDS = 5.0  # of waiting for the sync before the portal opens
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_URL_LENGTH = 2000
PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class PortalSession:
    """The *url* of a session of the Customer Portal, and the *sync* that preceded it, if any ever ran."""

    url: str
    sync: Sync | None


async def create_portal_session(
    context: Context, customer_id: str, return_url: str, flow: str | None
) -> PortalSession:
    """Sync pending usage, wait a few seconds, and create a session; *flow* is one of Stripe's flow types."""
    _validate_return_url(return_url)
    customer = (await require_customer(context, customer_id)).value.id
    sync = await _sync_first(context, customer)
    params: dict[str, Any] = {"customer": customer, "return_url": return_url}
    if flow is not None:
        params["flow_data"] = {"type": flow}
    response = await context.bypass_loaders().stripe.write(
        "/v1/billing_portal/sessions",
        params,
        key=f"{IDEMPOTENCY_PREFIX}portal:{uuid4()}",
        lane=Lane.CUSTOMER,
    )
    return PortalSession(response.body["url"], sync)


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
            ("returnUrl",),
        )


async def _sync_first(context: Context, customer: CustomerId) -> Sync | None:
    """Sync pending usage and wait for the end; return the last sync if nothing is pending or a hold is active."""
    snapshot = await context.loaders.snapshot(customer)
    if snapshot.up_to_date or snapshot.hold:
        return await context.loaders.last_sync(customer)
    sync, _ = await request_sync(context, customer, SyncTrigger.PORTAL)
    return await wait_until_finished(context, sync, MAX_WAIT_SECONDS)
