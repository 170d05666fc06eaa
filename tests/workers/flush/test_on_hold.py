"""A hold stops finalization however it would have come, and what it stopped goes on after it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.invoicing.snapshot import Flight, Lease
from billing.ledger import Ledger
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import World
from workers.flush.outcome import FlushOutcome

FINALIZE = "POST /v1/invoices/{invoice}/finalize"
TWO_HOURS = 7200  # Stripe finalizes an hour after its timer was set


@pytest.fixture
async def account(deaf: World) -> Account:
    """A customer whose last month is on a draft at Stripe."""
    customer = CustomerId(await deaf.shop.customer())
    month = Period.containing(datetime.now(UTC)).previous()
    used = delta(customer, "30", "egress-gb", occurred_at=(month.end - timedelta(1)).isoformat())
    await record_usage(deaf.services, [used])
    account = Account(deaf, customer, month)
    await account.flush()
    return account


async def status(account: Account) -> str:
    """Where the month's invoice stands at Stripe."""
    (invoice,) = await account.invoices()
    return str(invoice["status"])


async def hold(account: Account) -> None:
    """Support stops the billing."""
    await account.world.services.ledger.hold(account.customer, "review", "agent")


async def released(account: Account) -> FlushOutcome:
    """Support lets it go on; how the flush that follows ends."""
    await account.world.services.ledger.release_hold(account.customer)
    return (await account.flush()).outcome


async def test_the_close_of_the_month_waits(account: Account) -> None:
    """The month is cut, and its bill stays a draft until somebody has looked."""
    await hold(account)
    await account.world.services.ledger.close(account.customer, account.period)

    assert (await account.flush()).outcome is FlushOutcome.WAITING
    assert await status(account) == "draft"
    assert await released(account) is FlushOutcome.SEALED
    assert await status(account) == "open"


async def test_what_another_worker_was_about_to_finalize_waits(account: Account) -> None:
    """It died with the request written down; whoever comes after it does not send it."""
    await account.world.services.ledger.close(account.customer, account.period)
    await account.world.sandbox.fault("error_500_before", FINALIZE)
    assert (await account.flush()).outcome is FlushOutcome.RETRYING
    await account.world.sandbox.reset_counters()
    await hold(account)

    assert (await account.flush()).outcome is FlushOutcome.WAITING
    assert await account.calls(FINALIZE) == 0
    assert await released(account) is FlushOutcome.SEALED


class _HeldMeanwhile:
    """The real ledger; somebody holds the bill in the moment before it is finalized."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def prepare(self, lease: Lease, flight: Flight) -> bool:
        """As the ledger does."""
        written = await self._ledger.prepare(lease, flight)
        await self._ledger.hold(lease.customer, "review", "agent")
        return written


async def test_a_worker_that_is_at_it_stops(account: Account) -> None:
    """The hold came after its snapshot: it is asked for once more before the bill becomes final."""
    ledger = account.world.services.ledger
    await ledger.close(account.customer, account.period)
    account.ports = replace(account.ports, ledger=_HeldMeanwhile(ledger))

    assert (await account.flush()).outcome is FlushOutcome.WAITING
    assert await status(account) == "draft"
    assert await released(account) is FlushOutcome.SEALED


async def test_our_drafts_have_no_timer(account: Account) -> None:
    """Stripe finalizes nothing by itself, hold or no hold."""
    await account.world.sandbox.advance(100 * TWO_HOURS)

    assert await status(account) == "draft"


@pytest.mark.parametrize("first", ["timer", "hold"])
async def test_a_timer_that_a_person_set_is_stopped(account: Account, first: str) -> None:
    """Before the hold or under it; without us Stripe would finalize within the hour."""
    (invoice,) = await account.invoices()
    if first == "hold":
        await hold(account)
    await account.world.sandbox.dashboard("update", invoice["id"], auto_advance=True)
    if first == "timer":
        await hold(account)
    held = await account.flush()
    await account.world.sandbox.advance(TWO_HOURS)

    assert (held.outcome, await status(account)) == (FlushOutcome.WAITING, "draft")


async def test_a_timer_is_stopped_even_if_stripe_fails_first(account: Account) -> None:
    """The flush comes again until it is done."""
    (invoice,) = await account.invoices()
    await account.world.sandbox.dashboard("update", invoice["id"], auto_advance=True)
    await hold(account)
    await account.world.sandbox.fault("answer_lost_before", "POST /v1/invoices/{invoice}")
    outcomes = [(await account.flush()).outcome for _ in range(2)]
    await account.world.sandbox.advance(TWO_HOURS)

    assert outcomes == [FlushOutcome.RETRYING, FlushOutcome.WAITING]
    assert await status(account) == "draft"


async def test_a_void_that_meets_a_hold_holds_when_that_is_released(world: World) -> None:
    """Who settles a dispute decides nothing about an invoice that was voided meanwhile."""
    customer, draft = await world.billed(quantity="30000000")
    await world.sandbox.dashboard("finalize", draft["id"])
    await world.heard()
    await world.flushed(customer)
    await world.services.ledger.hold(customer, "Disputed", "ann")
    await world.sandbox.dashboard("void", draft["id"])
    await world.heard()
    held = await world.services.ledger.held(customer)
    assert held is not None
    assert held.by == "ann"

    left = await world.services.ledger.release_hold(customer, held)

    assert left is not None
    assert draft["id"] in left.reason
    assert (
        await world.services.ledger.release_hold(customer, held) == left
    )  # a second person's click
    assert await world.services.ledger.held(customer) == left
    assert await world.services.ledger.release_hold(customer, left) is None
    assert await world.services.ledger.held(customer) is None
