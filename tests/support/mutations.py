"""GraphQL documents of the mutations, and the helpers that their tests share."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from billing.usage import CustomerId, Period
from tests.resolvers.conftest import SUPPORT, ApiHarness

ADJUST = """mutation ($id: ID!, $sku: String!, $q: Decimal!, $why: String!, $key: String!, $month: String) {
  adjustUsage(input: {customerId: $id, sku: $sku, quantity: $q, reason: $why, idempotencyKey: $key, month: $month}) {
    adjustment { id period sku quantity amount { formatted } reason by at } sync { id status trigger } errors { code message path } } }"""

HOLD = """mutation ($id: ID!, $why: String!) { holdBilling(input: {customerId: $id, reason: $why}) {
  hold { reason by since } errors { code message path } } }"""

RELEASE = """mutation ($id: ID!, $why: String!) { releaseBilling(input: {customerId: $id, reason: $why}) {
  customer { id hold { reason } currentPeriod { state } syncState { status } } errors { code message } } }"""

FINALIZE = """mutation ($id: ID!, $why: String!) { finalizeInvoice(input: {invoiceId: $id, reason: $why}) {
  invoice { id status } errors { code message path } } }"""

PREVIEW = """mutation ($id: ID!) { previewSync(input: {customerId: $id}) { errors { code } plan { createsInvoice stripeCalls
  linesAdded { ...Line } linesUpdated { ...Line } linesRemoved { ...Line } } } }
  fragment Line on PlannedLine { sku quantity wasQuantity amount { amount } }"""

RETRY = """mutation ($id: ID!) { retrySync(input: {syncId: $id}) { sync { id status trigger } errors { code message path } } }"""

REPAIR = """mutation ($id: ID!, $why: String!) { repairDrift(input: {customerId: $id, reason: $why}) { sync { id } errors { code message } } }"""

REPLAY = """mutation ($id: ID!) { replayWebhookEvent(input: {eventId: $id}) { event { id status } errors { code path } } }"""

DRIFT = """query ($id: ID!) { customer(id: $id) { drift { checkedAt lines { sku lineId kind expected found amount { amount } } } } }"""

ACTIONS = """query ($id: ID!) { invoice(id: $id) { availableActions { action blockedBy } } }"""

AUDIT = """query ($id: ID!) { customer(id: $id) { auditLog { nodes { at by action reason outcome detail changes { what before after } } } adjustments { nodes { id quantity } } } }"""

SYNC = """mutation ($id: ID!) { syncBilling(input: {customerId: $id}) {
  coalesced sync { id status trigger } errors { code message path } } }"""

PORTAL = """mutation ($id: ID!, $url: String!, $flow: PortalFlow) {
  createPortalSession(input: {customerId: $id, returnUrl: $url, flow: $flow}) {
    url sync { status trigger } errors { code message path } } }"""


async def audit_entries(api: ApiHarness, customer: str) -> list[dict[str, Any]]:
    """The customer's audit log, newest entry first, with parsed details."""
    entries = (await api.query(SUPPORT, AUDIT, id=customer))["customer"]["auditLog"]["nodes"]
    return [{**entry, "detail": json.loads(entry["detail"])} for entry in entries]


async def draft_of(api: ApiHarness, customer: str) -> str:
    """The id of the draft of *customer*'s current month."""
    owner = CustomerId(customer)
    snapshot = await api.services.ledger.periods.snapshot(
        owner, await api.services.ledger.periods.current(owner)
    )
    assert snapshot.invoice is not None
    return snapshot.invoice


async def last_month_draft(api: ApiHarness) -> tuple[CustomerId, Period, str]:
    """A customer with usage in the last month, that month, and the id of its draft."""
    customer = CustomerId(await api.shop.customer())
    last_month = Period.containing(datetime.now(UTC)).previous()
    late = (last_month.end - timedelta(minutes=1)).isoformat()
    await api.record_usage(customer, "1000000", occurred_at=late)
    await api.flush(customer, last_month)
    invoice = (await api.services.ledger.periods.snapshot(customer, last_month)).invoice
    assert invoice is not None
    return customer, last_month, invoice


async def available_actions(api: ApiHarness, invoice: str) -> dict[str, list[str]]:
    """The actions on *invoice*, each with its blockers."""
    shown = await api.query(SUPPORT, ACTIONS, id=invoice)
    return {
        action["action"]: action["blockedBy"] for action in shown["invoice"]["availableActions"]
    }


async def closing_draft(api: ApiHarness) -> tuple[CustomerId, Period, str]:
    """As `last_month_draft`, with the month closed under a hold; the draft has a total of USD 31.00."""
    customer, last_month, invoice = await last_month_draft(api)
    await api.query(SUPPORT, HOLD, id=customer, why="disputed")
    await api.services.ledger.periods.close(customer, last_month)
    return customer, last_month, invoice
