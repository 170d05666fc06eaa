"""The end of a period, with the real ledger and the Stripe sandbox."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest
from redis.asyncio import Redis

from billing.budget import Lane
from billing.events.effects import EventRef
from billing.invoicing.snapshot import PeriodState
from billing.ledger import Ledger, LedgerPolicy, keys
from billing.services import open_services
from billing.settings import Settings
from billing.usage import CustomerId, LineKey, Period, UsageDelta
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.stripe_catalog import Shop, delta
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.webhook_server import WebhookWorld
from workers.flush.closing import close_ended_periods
from workers.flush.outcome import FlushOutcome

HOUR_MS = 3_600_000


@pytest.fixture
async def account(world_without_webhooks: WebhookWorld) -> Account:
    """A customer in the period that ended last; its usage can still be reported."""
    return await account_of_last_month(world_without_webhooks)


async def account_of_last_month(world: WebhookWorld) -> Account:
    """Return a new customer with usage of last month."""
    customer = CustomerId(await world.shop.customer())
    month = Period.containing(datetime.now(UTC)).previous()
    await record_usage(world.services, [delta(customer, "0", occurred_at=_last_moment(month))])
    return Account(world, customer, month)


async def close(account: Account) -> None:
    """Close the period for usage."""
    assert await account.world.services.ledger.periods.close(account.customer, account.period)


def _last_moment(month: Period) -> str:
    return (month.end - timedelta(seconds=1)).isoformat()


async def use(account: Account, quantity: str, sku: str = "egress-gb") -> None:
    """Record usage of the ended period."""
    await account.use(quantity, sku, occurred_at=_last_moment(account.period))


async def test_closed_period_is_finalized_and_sealed(account: Account) -> None:
    """With the last usage; from there on Stripe collects it."""
    await use(account, "30")
    await account.flush()
    await use(account, "20")
    await close(account)
    result = await account.flush()

    (invoice,) = await account.invoices()
    assert result.outcome is FlushOutcome.SEALED
    assert (invoice["status"], invoice["auto_advance"], invoice["total"]) == ("open", True, 100)
    assert (await account.snapshot()).state is PeriodState.SEALED


async def test_sealed_period_is_retained_as_configured(
    settings: Settings, redis: Redis, sandbox: StripeSandbox
) -> None:
    """A late complaint can still be examined by app and region."""
    own = settings.model_copy(update={"ledger_retention": 200})
    async with open_services(own) as services:
        shop = Shop(services)
        await shop.open()
        account = await account_of_last_month(WebhookWorld(services, sandbox, shop))
        await use(account, "30")
        await close(account)
        assert (await account.flush()).outcome is FlushOutcome.SEALED

    ttl = await redis.ttl(keys.period(account.customer, account.period))
    assert 199 * 86_400 < ttl <= 200 * 86_400


async def test_late_usage_is_billed_in_the_next_period(account: Account) -> None:
    """On a line that names the period of the usage."""
    await use(account, "3")
    await close(account)
    await use(account, "4")
    await account.flush()

    following = await account.world.services.ledger.periods.snapshot(
        account.customer, account.period.next()
    )
    assert {str(key): str(quantity) for key, quantity in following.totals.items()} == {
        f"egress-gb~{account.period}": "4"
    }


async def test_period_without_usage_makes_no_invoice(account: Account) -> None:
    """Nothing is created, nothing is finalized."""
    await close(account)

    assert (await account.flush()).outcome is FlushOutcome.SEALED
    assert await account.invoices() == []


async def test_draft_without_lines_is_deleted(account: Account) -> None:
    """All of its usage was taken back."""
    await use(account, "3")
    await account.flush()
    await use(account, "-3")
    await close(account)

    assert (await account.flush()).outcome is FlushOutcome.SEALED
    assert await account.invoices() == []


@pytest.mark.parametrize("spare", [False, True])
async def test_resumed_deletion_keeps_a_draft_with_a_foreign_line(
    account: Account, spare: bool
) -> None:
    """The deletion failed once and a person used the draft meanwhile: a person decides, not the stored request."""
    await use(account, "30")
    await account.flush()
    (invoice,) = await account.invoices()
    if spare:
        body = {"customer": account.customer, "metadata": {"gw_period": str(account.period)}}
        write = account.world.services.stripe.write
        invoice = (await write("/v1/invoices", body, key="spare", lane=Lane.SUPPORT)).body
    else:
        await use(account, "-30")
    await close(account)
    await account.world.sandbox.fault("answer_lost_before", "DELETE /v1/invoices/{invoice}")
    assert (await account.flush()).outcome is FlushOutcome.RETRYING
    person = account.world.sandbox.dashboard
    await person("add_line", invoice["id"], amount=50_000, description="consulting")
    await account.flush()

    left = {invoice["id"]: invoice for invoice in await account.invoices()}
    assert left[invoice["id"]]["total"] == 50_000


@pytest.mark.parametrize("kind", ["answer_lost_before", "answer_lost_after"])
async def test_deletion_without_response_is_decided_again(account: Account, kind: str) -> None:
    """Whether it was executed or not: the empty draft goes, and the period is sealed."""
    await use(account, "30")
    await account.flush()
    await use(account, "-30")
    await close(account)
    await account.world.sandbox.fault(kind, "DELETE /v1/invoices/{invoice}")
    outcomes = [(await account.flush()).outcome for _ in range(2)]

    assert outcomes == [FlushOutcome.RETRYING, FlushOutcome.SEALED]
    assert await account.invoices() == []


async def test_amount_too_small_to_charge_is_sealed(account: Account) -> None:
    """Stripe moves it to the balance: the invoice is paid at once."""
    await use(account, "1")
    await close(account)

    assert (await account.flush()).outcome is FlushOutcome.SEALED
    (invoice,) = await account.invoices()
    assert invoice["status"] == "paid"


async def test_usage_of_a_sku_named_rest_is_not_credited(account: Account) -> None:
    """Such a SKU is refused now; an old ledger may have one, which is billed like any other."""
    moment = datetime.fromisoformat(_last_moment(account.period))
    used = UsageDelta("old", account.customer, "rest", Decimal(30), moment)
    ledger, catalog = account.world.services.ledger, account.world.services.price_catalog
    sold = await catalog.by_sku(["egress-gb"])
    await ledger.usage.record([used], {"rest": sold["egress-gb"]})
    await close(account)

    assert (await account.flush()).outcome is FlushOutcome.SEALED
    (invoice,) = await account.invoices()
    following = await ledger.periods.snapshot(account.customer, account.period.next())
    assert (invoice["total"], following.totals) == (60, {})


async def test_period_in_doubt_is_not_finalized(account: Account) -> None:
    """The request might still arrive and change the invoice."""
    await use(account, "3")
    await account.flush()
    await use(account, "1")
    await close(account)
    update = "POST /v1/invoices/{invoice}/update_lines"
    await account.world.sandbox.fault("answer_lost_before", update)
    results = [(await account.flush()) for _ in range(2)]

    assert [result.outcome for result in results] == [FlushOutcome.RETRYING, FlushOutcome.WAITING]
    assert 0 < results[1].delay_ms <= account.context.policy.quiet_ms
    assert (await account.invoices())[0]["status"] == "draft"

    account.context = replace(account.context, policy=replace(account.context.policy, quiet_ms=-1))
    assert (await account.flush()).outcome is FlushOutcome.SEALED
    assert await account.lines() == {"egress-gb": ("4", 8)}


async def test_finalization_without_response_is_verified(account: Account) -> None:
    """The invoice shows if it is final."""
    await use(account, "30")
    await close(account)
    finalize = "POST /v1/invoices/{invoice}/finalize"
    await account.world.sandbox.fault("answer_lost_after", finalize)
    outcomes = [(await account.flush()).outcome for _ in range(2)]

    assert outcomes == [FlushOutcome.RETRYING, FlushOutcome.SEALED]


async def test_invoice_finalized_by_a_person_ends_its_period(account: Account) -> None:
    """Usage that it lacks is billed in the next period; nothing is overwritten."""
    await use(account, "30")
    await account.flush()
    (invoice,) = await account.invoices()
    await account.world.sandbox.dashboard("finalize", invoice["id"])
    await use(account, "12")
    outcomes = [(await account.flush()).outcome for _ in range(2)]

    following = await account.world.services.ledger.periods.snapshot(
        account.customer, account.period.next()
    )
    carried = LineKey(f"egress-gb~{account.period}")
    assert outcomes == [FlushOutcome.WAITING, FlushOutcome.SEALED]
    assert str(following.totals[carried]) == "12"
    assert await account.lines() == {"egress-gb": ("30", 60)}


async def test_voided_invoice_places_a_hold(account: Account) -> None:
    """A person decides if its usage is still owed; the hold has the reason."""
    await use(account, "30")
    await account.flush()
    (invoice,) = await account.invoices()
    await account.world.sandbox.dashboard("finalize", invoice["id"])
    await account.world.sandbox.dashboard("void", invoice["id"])
    await close(account)
    await account.flush()

    hold = await account.world.services.ledger.holds.get(account.customer)
    assert hold is not None
    assert (hold.by, invoice["id"] in hold.reason) == ("gateway", True)
    assert (await account.snapshot()).state is PeriodState.SEALED

    ledger = account.world.services.ledger
    await ledger.holds.release(account.customer)
    late = EventRef("evt_1", "invoice.voided", invoice["id"], account.customer, invoice["id"])
    await account.world.services.inbox.receive([late])
    await account.world.process_events()
    assert (
        await ledger.holds.get(account.customer) is None
    )  # the event is late: a person has decided


@pytest.mark.parametrize("finalized", [True, False])
async def test_revised_bill_is_sealed_by_its_original(account: Account, finalized: bool) -> None:
    """The revision is the bill, edited or not: it is neither deleted nor credited, and nobody is held."""
    await use(account, "30")
    await account.flush()
    (invoice,) = await account.invoices()
    await account.world.sandbox.dashboard("finalize", invoice["id"])
    params = {"from_invoice": {"action": "revision", "invoice": invoice["id"]}}
    write = account.world.services.stripe.write
    made = (await write("/v1/invoices", params, key="revise", lane=Lane.SUPPORT)).body
    line = made["lines"]["data"][0]["id"]
    await account.world.sandbox.dashboard("edit_line", made["id"], line=line, amount=55)
    if finalized:
        await account.world.sandbox.dashboard("finalize", made["id"])
    await close(account)
    outcomes = [(await account.flush()).outcome for _ in range(2)]

    ledger = account.world.services.ledger
    following = await ledger.periods.snapshot(account.customer, account.period.next())
    assert outcomes[-1] is FlushOutcome.SEALED
    assert following.totals == {}
    assert await ledger.holds.get(account.customer) is None
    states = {invoice["id"]: invoice["status"] for invoice in await account.invoices()}
    revision = "open" if finalized else "draft"
    assert states == {invoice["id"]: "void" if finalized else "open", made["id"]: revision}


async def test_typed_amount_is_credited_even_if_the_ledger_lost_the_line(
    account: Account, redis_url: str
) -> None:
    """A person who accepts the loss gets it by the price in the line's metadata, once, and not before."""
    await use(account, "30")
    await account.flush()
    (invoice,) = await account.invoices()
    line = invoice["lines"]["data"][0]["id"]
    await account.world.sandbox.dashboard("edit_line", invoice["id"], line=line, amount=1000)
    await account.world.sandbox.dashboard("finalize", invoice["id"])
    async with Redis.from_url(redis_url) as redis:
        lost = str(keys.period(account.customer, account.period))
        await redis.delete(*[key async for key in redis.scan_iter(f"{lost}*")])
    ledger = account.world.services.ledger
    await ledger.periods.request_verify(account.customer, account.period)
    outcomes = [(await account.flush()).outcome]
    await ledger.holds.release(account.customer)
    outcomes += [(await account.flush()).outcome for _ in range(2)]

    following = await account.world.services.ledger.periods.snapshot(
        account.customer, account.period.next()
    )
    assert outcomes == [FlushOutcome.WAITING, FlushOutcome.WAITING, FlushOutcome.SEALED]
    assert following.totals[LineKey(f"egress-gb~{account.period}")] == -500


async def test_second_draft_of_a_period_is_deleted(account: Account) -> None:
    """The older one is the period's."""
    await use(account, "30")
    await account.flush()
    spare = await _second_draft(account)
    await close(account)
    await account.flush()

    assert spare not in [invoice["id"] for invoice in await account.invoices()]
    assert await account.lines() == {"egress-gb": ("30", 60)}


async def test_second_draft_with_a_foreign_line_is_parked(account: Account) -> None:
    """We delete nothing that we did not write."""
    await use(account, "30")
    await account.flush()
    spare = await _second_draft(account)
    await account.world.sandbox.dashboard("add_line", spare, amount=100, description="Mine")
    await close(account)
    result = await account.flush()

    assert result.failure is not None
    assert (result.outcome, result.failure.code) == (FlushOutcome.PARKED, "two_drafts")
    assert len(await account.invoices()) == 2


async def test_ended_periods_are_closed_after_the_settle_window(
    account: Account, redis: Redis
) -> None:
    """Not before it by the ledger's clock or by the worker's; repeating it does no harm."""
    over = round(account.period.end.timestamp() * 1000) + HOUR_MS
    days = 40 * 24 * HOUR_MS
    closed = []
    clocks = [(over - 1, over + days), (over + days, over - 1), (over, over), (over, over)]
    policy = LedgerPolicy(settle_ms=HOUR_MS)
    for ledger_ms, worker_ms in clocks:
        ledger = Ledger(redis, policy=policy, clock=partial(int, ledger_ms))
        await ledger.open()
        times = {"now_ms": worker_ms, "settle_ms": HOUR_MS}
        closed.append(await close_ended_periods(ledger, range(64), **times))

    assert closed == [0, 0, 1, 0]
    assert (await account.snapshot()).state is PeriodState.CLOSING


async def test_flush_of_a_forgotten_month_begins_nothing(account: Account) -> None:
    """Its header has expired: begun again, empty, it would credit the whole bill to the customer."""
    account.period = account.period.previous().previous().previous()
    services = account.world.services
    shard = keys.due(keys.shard_of(account.customer))
    await services.ledger._server.execute("ZADD", shard, 0, f"{account.customer}|{account.period}")

    assert (await account.flush()).outcome is FlushOutcome.SEALED

    assert account.period not in await services.ledger.periods.list_retained(account.customer)
    assert await services.ledger.due.time_ms(account.customer, account.period) is None


async def _second_draft(account: Account) -> str:
    params = {"customer": account.customer, "metadata": {"gw_period": str(account.period)}}
    answer = await account.world.services.stripe.write(
        "/v1/invoices", params, key="spare", lane=Lane.SUPPORT
    )
    draft: str = answer.body["id"]
    return draft
