"""A hold prevents finalization in every way, and billing continues after its release."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.invoicing.request_batch import RequestBatch
from billing.invoicing.snapshot import Lease
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.ledger import Proxy
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import WebhookWorld
from workers.flush.outcome import FlushOutcome

FINALIZE = "POST /v1/invoices/{invoice}/finalize"
TWO_HOURS = 7200  # Stripe finalizes an hour after its timer was set


@pytest.fixture
async def account(world_without_webhooks: WebhookWorld) -> Account:
    """A customer whose last month has a draft at Stripe."""
    customer = CustomerId(await world_without_webhooks.shop.customer())
    month = Period.containing(datetime.now(UTC)).previous()
    used = delta(customer, "30", "egress-gb", occurred_at=(month.end - timedelta(1)).isoformat())
    await record_usage(world_without_webhooks.services, [used])
    account = Account(world_without_webhooks, customer, month)
    await account.flush()
    return account


async def status(account: Account) -> str:
    """Return the status of the period's invoice at Stripe."""
    (invoice,) = await account.invoices()
    return str(invoice["status"])


async def hold(account: Account) -> None:
    """Place a hold."""
    await account.world.services.ledger.holds.place(account.customer, "review", "agent")


async def release_and_flush(account: Account) -> FlushOutcome:
    """Release the hold and flush; return the outcome."""
    await account.world.services.ledger.holds.release(account.customer)
    return (await account.flush()).outcome


async def test_closed_period_stays_a_draft_under_hold(account: Account) -> None:
    """It is finalized after the release."""
    await hold(account)
    await account.world.services.ledger.periods.close(account.customer, account.period)

    assert (await account.flush()).outcome is FlushOutcome.WAITING
    assert await status(account) == "draft"
    assert await release_and_flush(account) is FlushOutcome.SEALED
    assert await status(account) == "open"


async def test_stored_finalize_request_is_not_sent_under_hold(account: Account) -> None:
    """A worker died with the request stored; its successor does not send it."""
    await account.world.services.ledger.periods.close(account.customer, account.period)
    await account.world.sandbox.fault("error_500_before", FINALIZE)
    assert (await account.flush()).outcome is FlushOutcome.RETRYING
    await account.world.sandbox.reset_counters()
    await hold(account)

    assert (await account.flush()).outcome is FlushOutcome.WAITING
    assert await account.calls(FINALIZE) == 0
    assert await release_and_flush(account) is FlushOutcome.SEALED


async def test_hold_placed_during_the_flush_stops_it(account: Account) -> None:
    """It is newer than the snapshot: it is read again before the invoice is finalized."""
    ledger = account.world.services.ledger
    await ledger.periods.close(account.customer, account.period)

    async def prepare(lease: Lease, batch: RequestBatch) -> bool:
        written = await ledger.leases.prepare(lease, batch)
        await ledger.holds.place(lease.customer, "review", "agent")
        return written

    double: Any = Proxy(ledger, leases=Proxy(ledger.leases, prepare=prepare))
    account.context = replace(account.context, ledger=double)

    assert (await account.flush()).outcome is FlushOutcome.WAITING
    assert await status(account) == "draft"
    assert await release_and_flush(account) is FlushOutcome.SEALED


async def test_our_drafts_do_not_auto_advance(account: Account) -> None:
    """Stripe finalizes none of them by itself, with or without a hold."""
    await account.world.sandbox.advance(100 * TWO_HOURS)

    assert await status(account) == "draft"


@pytest.mark.parametrize("first", ["timer", "hold"])
async def test_auto_advance_set_by_a_person_is_disabled(account: Account, first: str) -> None:
    """Before or under the hold; otherwise Stripe would finalize within the hour."""
    (invoice,) = await account.invoices()
    if first == "hold":
        await hold(account)
    await account.world.sandbox.dashboard("update", invoice["id"], auto_advance=True)
    if first == "timer":
        await hold(account)
    result = await account.flush()
    await account.world.sandbox.advance(TWO_HOURS)

    assert (result.outcome, await status(account)) == (FlushOutcome.WAITING, "draft")


async def test_auto_advance_is_disabled_even_if_stripe_fails_first(account: Account) -> None:
    """The flush is repeated until it succeeds."""
    (invoice,) = await account.invoices()
    await account.world.sandbox.dashboard("update", invoice["id"], auto_advance=True)
    await hold(account)
    await account.world.sandbox.fault("answer_lost_before", "POST /v1/invoices/{invoice}")
    outcomes = [(await account.flush()).outcome for _ in range(2)]
    await account.world.sandbox.advance(TWO_HOURS)

    assert outcomes == [FlushOutcome.RETRYING, FlushOutcome.WAITING]
    assert await status(account) == "draft"


async def test_void_under_a_hold_is_held_after_its_release(world: WebhookWorld) -> None:
    """The release of a dispute does not decide about an invoice voided meanwhile."""
    customer, draft = await world.billed(quantity="30000000")
    await world.sandbox.dashboard("finalize", draft["id"])
    await world.wait_delivered()
    await world.flushed(customer)
    await world.services.ledger.holds.place(customer, "Disputed", "ann")
    await world.sandbox.dashboard("void", draft["id"])
    await world.wait_delivered()
    dispute = await world.services.ledger.holds.get(customer)
    assert dispute is not None
    assert dispute.by == "ann"

    void = await world.services.ledger.holds.release(customer, dispute)

    assert void is not None
    assert draft["id"] in void.reason
    assert (
        await world.services.ledger.holds.release(customer, dispute) == void
    )  # a second person's click
    assert await world.services.ledger.holds.get(customer) == void
    assert await world.services.ledger.holds.release(customer, void) is None
    assert await world.services.ledger.holds.get(customer) is None
