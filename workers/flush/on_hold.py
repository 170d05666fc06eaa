"""While a hold stands nothing is told to Stripe, and nothing there may become final by itself."""

from contextlib import suppress

import structlog

from billing.errors import OutcomeUnknown, StripeRejected
from billing.invoicing.metadata_keys import OUR_KEYS
from billing.invoicing.remote_invoice import DRAFT
from billing.invoicing.snapshot import Op, OpKind, PeriodState
from billing.usage import CustomerId, Period
from workers.flush.execution import Run
from workers.flush.outcome import Ending, FlushOutcome
from workers.flush.policy import LedgerPort

log = structlog.get_logger(__name__)

GATEWAY = "gateway"


async def hold_for_void(
    ledger: LedgerPort, customer: CustomerId, period: Period, invoice: str
) -> None:
    """Whether what a voided *invoice* billed is asked for again is a person's decision, made once."""
    reason = (
        f"Invoice {invoice} for {period} was voided in Stripe. Correct the next bill if its usage is"
        " still owed, then release."
    )
    await ledger.hold_once(customer, reason, GATEWAY, about=f"void of {invoice}")
    log.warning("invoice.voided", customer=customer, invoice=invoice)


async def is_held(run: Run) -> bool:
    """Whether a hold stands; asked once more before a bill becomes final, because minutes may have gone by."""
    flight = run.snapshot.flight
    if run.snapshot.hold is None and flight is not None and flight.finalizes:
        return await run.ports.ledger.held(run.snapshot.customer) is not None
    return run.snapshot.hold is not None


async def held_step(run: Run) -> Ending:
    """Wait. Our drafts have no timer of Stripe's; one that a person set would finalize within the hour."""
    if run.snapshot.invoice is not None and run.snapshot.state is not PeriodState.SEALED:
        with suppress(StripeRejected):  # gone or final already: the look after the hold sees to it
            await _stop_timer(run, run.snapshot.invoice)
    return Ending(FlushOutcome.WAITING, run.ports.policy.held)


async def _stop_timer(run: Run, invoice: str) -> None:
    path, touched = f"/v1/invoices/{invoice}", (run.snapshot.customer, invoice)
    run.sent.calls += 1
    body = await run.ports.stripe.read(path, lane=run.lane)
    if body["status"] != DRAFT or not body.get("auto_advance"):
        return
    await run.ports.cache.intend_write(*touched)
    run.touched |= set(touched)
    run.sent.calls += 1
    key = f"{OUR_KEYS}timer:{invoice}:{run.lease.fence}"
    try:
        op = Op(OpKind.STOP_TIMER, "POST", path, {"auto_advance": False}, key)
        await run.ports.stripe.send(op, lane=run.lane)
    except OutcomeUnknown:
        await run.ports.ledger.in_doubt(run.lease)
        raise
