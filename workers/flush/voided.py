"""Holds for voided bills: a person decides if their usage is billed again.

A bill that was revised is void too, but its revision bills the usage. What a person changed on the revision is
their decision: it is neither restored nor carried to another month.
"""

from collections.abc import Sequence
from dataclasses import replace

import structlog

from billing.budget import Lane
from billing.errors import StripeRejected
from billing.events.effects import EventRef, FollowUp
from billing.invoicing.metadata_keys import revised_invoice
from billing.invoicing.remote_invoice import VOID
from billing.invoicing.snapshot import GATEWAY, Snapshot
from billing.ledger import Ledger
from billing.stripe import StripeApi

log = structlog.get_logger(__name__)

MAX_REVISIONS = 10  # of one bill, that are followed


async def hold_voided(
    stripe: StripeApi, ledger: Ledger, snapshot: Snapshot, invoice: str, lane: Lane
) -> None:
    """Hold the customer, once, if *invoice* of the period and every revision of it is void."""
    body = await stripe.read(f"/v1/invoices/{invoice}", lane=lane)
    for _ in range(MAX_REVISIONS):
        if body.get("status") != VOID or not body.get("latest_revision"):
            break
        body = await stripe.read(f"/v1/invoices/{body['latest_revision']}", lane=lane)
    customer, last = snapshot.customer, body.get("id", invoice)
    if body.get("status") != VOID:
        log.info("invoice.revised", customer=customer, invoice=invoice, revision=last)
        return
    revised = "" if last == invoice else f", the last revision of {invoice},"
    reason = (
        f"Invoice {last}{revised} for {snapshot.period} was voided in Stripe. Correct the next bill"
        " if its usage is still owed, then release."
    )
    await ledger.holds.place_once(customer, reason, GATEWAY, cause=f"void of {last}")
    log.warning("invoice.voided", customer=customer, invoice=last)


async def voided_bills(stripe: StripeApi, events: Sequence[EventRef], lane: Lane) -> list[EventRef]:
    """Return the events of voided invoices; that of a revision has its original for *invoice*."""
    return [
        replace(event, invoice=await _fetch_original(stripe, event.invoice, lane))
        for event in events
        if event.invoice and event.effect and event.effect.follow_up is FollowUp.HOLD
    ]


async def _fetch_original(stripe: StripeApi, invoice: str, lane: Lane) -> str:
    """Return the id of the first invoice that *invoice* is a revision of; its own id if it is none."""
    for _ in range(MAX_REVISIONS):
        try:
            body = await stripe.read(f"/v1/invoices/{invoice}", lane=lane)
        except StripeRejected as error:
            log.info("invoice.original_unknown", invoice=invoice, status=error.status)
            break
        if (original := revised_invoice(body)) is None:
            break
        invoice = original
    return invoice
