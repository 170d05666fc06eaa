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
from billing.setting_checks import is_loopback
from billing.settings import Environment, Settings
from billing.usage import CustomerId
from resolvers.audited import AuditedAction
from resolvers.context import Context, Role
from resolvers.mutations.sync_billing import request_sync, wait_until_finished
from resolvers.node_lookup import require_customer
from resolvers.validation import validate_optional_reason

MAX_WAIT_SECONDS = 5.0  # of waiting for the sync before the portal opens
MAX_URL_LENGTH = 2000
NO_REASON = "No reason was given."
PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class PortalSession:
    """The *id* and *url* of a session of the Customer Portal, and the *sync* that preceded it, if any ever ran."""

    id: str
    url: str
    sync: Sync | None


async def create_portal_session(
    context: Context, customer_id: str, return_url: str, flow: str | None, reason: str | None
) -> PortalSession:
    """Sync pending usage, wait a few seconds, and create a session; *flow* is one of Stripe's flow types.

    Whoever has a session's URL can change cards and addresses, so one of Support's is in the audit log, with *reason*.
    """
    _validate_return_url(return_url, context.bypass_loaders().settings)
    reason = validate_optional_reason(reason) or NO_REASON
    customer = (await require_customer(context, customer_id)).value.id
    await context.bypass_loaders().budget.portal.count(customer, context.viewer.caller)
    if context.viewer.role is not Role.SUPPORT:
        return await _create(context, customer, return_url, flow)
    action = AuditedAction(context, customer, "createPortalSession", reason)
    async with action.run({}) as audit:
        session = await _create(context, customer, return_url, flow)
        audit.after = {"session": session.id, "flow": flow}
    return session


async def _create(
    context: Context, customer: CustomerId, return_url: str, flow: str | None
) -> PortalSession:
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
    return PortalSession(response.body["id"], response.body["url"], sync)


def _validate_return_url(url: str, settings: Settings) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port out of range is a ValueError
    except ValueError:
        parts, host = urlsplit(""), None
    secure = parts.scheme == "https"
    production = settings.environment is Environment.PRODUCTION
    if production:
        # A page of the gateway's own origin is named there, too: only callers tell what that origin is.
        origin = f"https://{parts.netloc.lower().removesuffix(':443')}"
        safe = secure and not {origin, "*"}.isdisjoint(settings.origins)
    else:
        safe = secure or (parts.scheme == "http" and is_loopback(url))
    plain = len(url) <= MAX_URL_LENGTH and PRINTABLE_ASCII.fullmatch(url)
    if not (host and safe and plain) or parts.username is not None:
        allowed = (
            "an address on one of the origins in BILLING_ALLOWED_ORIGINS"
            if production
            else "an https:// address (or http://localhost while developing)"
        )
        raise Refused(
            ErrorCode.INVALID_INPUT,
            f"Give {allowed} of at most {MAX_URL_LENGTH:,} ASCII characters, without spaces or a password.",
            ("returnUrl",),
        )


async def _sync_first(context: Context, customer: CustomerId) -> Sync | None:
    """Sync pending usage and wait for the end; return the last sync if nothing is pending or a hold is active."""
    snapshot = await context.loaders.snapshot(customer)
    if snapshot.up_to_date or snapshot.hold:
        return await context.loaders.last_sync(customer)
    sync, _ = await request_sync(context, customer, SyncTrigger.PORTAL)
    return await wait_until_finished(context, sync, MAX_WAIT_SECONDS)
