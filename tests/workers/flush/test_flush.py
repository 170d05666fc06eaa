"""A flush against the real ledger and the Stripe sandbox: its requests, and its reaction to failures."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from redis.asyncio import Redis

from billing.budget import Budget, Lane
from billing.budget.policy import BudgetPolicy, RateLimit
from billing.invoicing import diff
from billing.invoicing.request_batch import RequestBatch, RequestKind, StripeRequest
from billing.invoicing.snapshot import Lease
from billing.ledger import Ledger, LedgerPolicy, keys
from billing.ledger.syncs import SyncStatus
from billing.redis_clients import client
from billing.stripe import StripeApi, boottime, count_calls
from billing.usage import CustomerId, Price, UsageDelta
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.ledger import Proxy
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import WebhookWorld
from workers.flush.flush import MAX_CRASHES
from workers.flush.outcome import FlushOutcome

CREATE = "POST /v1/invoices"
ADD = "POST /v1/invoices/{invoice}/add_lines"


@pytest.fixture
async def account(world_without_webhooks: WebhookWorld) -> Account:
    """A customer without usage."""
    customer = CustomerId(await world_without_webhooks.shop.customer())
    await record_usage(world_without_webhooks.services, [delta(customer, "0")])
    return Account(
        world_without_webhooks,
        customer,
        await world_without_webhooks.services.ledger.periods.current(customer),
    )


async def test_first_usage_creates_a_draft(account: Account) -> None:
    """Created once, filled by one call, with our metadata, and finalized only by us."""
    await account.use("3")
    await account.use("100", "machine-seconds")
    assert (await account.flush()).outcome is FlushOutcome.SYNCED

    sync = await account.last_sync()
    (invoice,) = await account.invoices()
    assert (sync.status, sync.invoice) == (SyncStatus.SUCCEEDED, invoice["id"])
    assert (sync.lines_added, sync.stripe_calls, sync.deltas) == (2, 3, 3)
    assert (invoice["status"], invoice["auto_advance"]) == ("draft", False)
    assert invoice["metadata"]["gw_period"] == str(account.period)
    assert await account.lines() == {"egress-gb": ("3", 6), "machine-seconds": ("100", 0)}
    assert (await account.snapshot()).up_to_date


async def test_more_usage_is_one_call(account: Account) -> None:
    """The number of calls depends on lines, not on deltas."""
    await account.use("3")
    await account.flush()
    for _ in range(5):
        await account.use("1")
    await account.flush()

    sync = await account.last_sync()
    assert (sync.lines_updated, sync.stripe_calls) == (1, 1)
    assert await account.lines() == {"egress-gb": ("8", 16)}


async def test_duplicated_line_is_billed_once(account: Account) -> None:
    """However the duplicate came to be; the oldest stays."""
    await account.use("3")
    await account.flush()
    (invoice,) = await account.invoices()
    double = {"amount": 6, "metadata": {"gw_line": "egress-gb", "gw_quantity": "3"}}
    path = f"/v1/invoices/{invoice['id']}/add_lines"
    await account.world.services.stripe.write(
        path, {"lines": [double]}, key="double", lane=Lane.SUPPORT
    )
    await account.world.services.ledger.periods.request_verify(account.customer, account.period)

    await account.flush()

    assert (await account.last_sync()).lines_removed == 1
    assert [line["id"] for line in (await account.invoices())[0]["lines"]["data"]] == [
        invoice["lines"]["data"][0]["id"]
    ]


async def test_up_to_date_period_makes_no_call(account: Account) -> None:
    """A superfluous job costs Stripe nothing."""
    await account.use("3")
    await account.flush()

    with count_calls() as sent:
        ending = await account.flush()

    assert (ending.outcome, sent.calls) == (FlushOutcome.SYNCED, 0)


async def test_usage_that_sums_to_zero_creates_no_draft(account: Account) -> None:
    """An empty invoice is useless."""
    await account.use("3")
    await account.use("-3")

    assert (await account.flush()).outcome is FlushOutcome.SYNCED
    assert await account.invoices() == []


async def test_line_may_cross_zero_and_come_back(account: Account) -> None:
    """A credit is a bare amount at Stripe, with its quantity in the metadata."""
    lines = []
    for quantity in ("3", "-5", "-1", "7", "-4"):
        await account.use(quantity)
        assert (await account.flush()).outcome is FlushOutcome.SYNCED
        lines.append(await account.lines())

    assert lines == [
        {"egress-gb": ("3", 6)},
        {"egress-gb": ("-2", -4)},
        {"egress-gb": ("-3", -6)},
        {"egress-gb": ("4", 8)},
        {},
    ]


@pytest.mark.parametrize("sign", ["", "-"])
async def test_amount_beyond_every_limit_parks_at_once_and_says_which(
    account: Account, sign: str
) -> None:
    """Stored as a request it would exceed 64 bits, and five workers in a row would die of it."""
    services, most = account.world.services, Decimal(f"{sign}999999999999999")
    prices = await services.price_catalog.by_sku(["egress-gb"])
    typo = UsageDelta("typo", account.customer, "egress-gb", most, datetime.now(UTC))
    await account.use("3", "volume-hours")
    await services.ledger.usage.record([typo], prices)  # as an older version took it

    ending = await account.flush()

    assert ending.outcome is FlushOutcome.PARKED
    assert await account.calls(CREATE) == 0
    assert ending.failure is not None
    assert ending.failure.code == "amount_too_large"
    assert ending.failure.message == (
        f"{most} of 'egress-gb' comes to USD {sign}19,999,999,999,999.98, and Stripe takes no amount above USD"
        " 999,999,999,999.99. Take it off with usage of the opposite sign."
    )

    await services.ledger.usage.record([replace(typo, id="undone", quantity=-most)], prices)
    assert (await account.flush()).outcome is FlushOutcome.SYNCED


async def test_foreign_line_is_left_alone(account: Account) -> None:
    """Support added a discount."""
    await account.use("3")
    await account.flush()
    (invoice,) = await account.invoices()
    await account.world.sandbox.dashboard("add_line", invoice["id"], amount=-5, description="Sorry")
    await account.use("1", "volume-hours")
    await account.flush()

    assert await account.lines() == {
        "egress-gb": ("3", 6),
        "Sorry": ("", -5),
        "volume-hours": ("1", 0),
    }


async def test_edited_line_is_restored_by_a_verify(account: Account) -> None:
    """The ledger decides; a person corrects usage with adjustUsage."""
    await account.use("3")
    await account.flush()
    (invoice,) = await account.invoices()
    line = invoice["lines"]["data"][0]["id"]
    edit = {"line": line, "quantity_decimal": "99"}
    await account.world.sandbox.dashboard("edit_line", invoice["id"], **edit)
    await account.world.services.ledger.periods.request_verify(account.customer, account.period)

    await account.flush()

    assert (await account.last_sync()).lines_updated == 1
    assert await account.lines() == {"egress-gb": ("3", 6)}


async def test_deleted_draft_is_created_again(account: Account) -> None:
    """Under a new key: the first one would replay the deleted invoice."""
    await account.use("3")
    await account.flush()
    (first,) = await account.invoices()
    await account.world.sandbox.dashboard("delete", first["id"])
    await account.use("1")
    await account.flush()

    (second,) = await account.invoices()
    assert second["id"] != first["id"]
    assert await account.lines() == {"egress-gb": ("4", 8)}


@pytest.mark.parametrize("endpoint", [CREATE, ADD])
@pytest.mark.parametrize(
    "accident",
    ["answer_lost_before", "answer_lost_after", "error_500_before", "rate_limited"],
)
async def test_failed_request_is_repeated_under_its_key(
    account: Account, endpoint: str, accident: str
) -> None:
    """The next worker sends it again: one draft, one line."""
    await account.use("3")
    await account.world.sandbox.fault(accident, endpoint)

    first = await account.flush()
    second = await account.flush()

    assert first.outcome is FlushOutcome.RETRYING
    assert first.delay_ms > 0
    assert second.outcome is FlushOutcome.SYNCED
    assert await account.lines() == {"egress-gb": ("3", 6)}


@pytest.mark.parametrize("accident", ["error_500_after", "partial_500_after"])
async def test_replayed_error_leads_to_a_fetch(account: Account, accident: str) -> None:
    """Stripe replays an error under its key; its effect is read, and the rest is sent anew."""
    await account.use("3")
    await account.use("2", "volume-hours")
    await account.world.sandbox.fault(accident, ADD)

    outcomes = [(await account.flush()).outcome for _ in range(2)]

    assert outcomes == [FlushOutcome.RETRYING, FlushOutcome.SYNCED]
    assert await account.lines() == {"egress-gb": ("3", 6), "volume-hours": ("2", 0)}


async def test_line_duplicated_by_a_late_request_is_billed_once(
    account: Account, redis_url: str
) -> None:
    """The ledger was replaced during the flush, so the line was sent twice, and both requests arrived."""
    async with Redis.from_url(redis_url) as redis:
        ledger = Ledger(redis, policy=LedgerPolicy(quiet_ms=1))
        await ledger.open()
        account.context = replace(account.context, ledger=ledger)
        await account.use("3")
        await account.world.sandbox.fault("answer_lost_before", ADD)
        lost = await account.flush()
        batch = (await account.snapshot()).batch
        await ledger.begin_epoch()
        sent = await account.flush()

        async def standing() -> int:
            (invoice,) = await account.invoices()
            return len(invoice["lines"]["data"])

        assert batch is not None
        await account.context.stripe.send(batch.requests[-1], lane=Lane.INTERVAL)  # it arrives
        assert await standing() == 2
        await account.flush()

    assert (lost.outcome, sent.outcome) == (FlushOutcome.RETRYING, FlushOutcome.SYNCED)
    assert await account.lines() == {"egress-gb": ("3", 6)}
    assert await standing() == 1


async def test_draft_lost_by_the_ledger_is_adopted(account: Account, redis_url: str) -> None:
    """Its metadata names the period, so a rewound ledger makes no second one."""
    await account.use("3")
    await account.flush()
    async with Redis.from_url(redis_url) as redis:
        await redis.hdel(keys.period(account.customer, account.period), "invoice", "seq")
        await redis.delete(keys.lines(account.customer, account.period))
    await account.use("1")
    await account.flush()

    assert len(await account.invoices()) == 1
    assert await account.lines() == {"egress-gb": ("4", 8)}


async def test_period_lost_by_the_ledger_is_recovered(account: Account, redis_url: str) -> None:
    """The server came back from an old copy; the lost period's draft is found, and waits for its usage."""
    await account.use("3")
    await account.flush()
    async with Redis.from_url(redis_url) as redis:
        lost = str(keys.period(account.customer, account.period))
        await redis.delete(*[key async for key in redis.scan_iter(f"{lost}*")])
    before = account.period.previous()
    last_moment = (before.end - timedelta(seconds=1)).isoformat()
    await account.use("1", occurred_at=last_moment)
    await Account(account.world, account.customer, before).flush()
    await account.flush()
    hold = await account.world.services.ledger.holds.get(account.customer)
    await account.use("3")
    synced = await account.flush()

    assert hold is not None
    assert (synced.outcome, (await account.snapshot()).hold) == (FlushOutcome.SYNCED, None)
    assert {str(invoice["metadata"]["gw_period"]) for invoice in await account.invoices()} == {
        str(account.period),
        str(before),
    }


async def test_update_of_many_lines_needs_no_read(account: Account) -> None:
    """Stripe embeds ten lines in a response; reads are limited, and an update's outcome is known."""
    for n in range(12):
        await account.adjust("1", f"adj-{n}")
    await account.flush()
    await account.use("1")
    await account.flush()
    await account.use("1")
    await account.flush()

    sync = await account.last_sync()
    assert (sync.stripe_calls, sync.lines_updated) == (1, 1)
    assert len((await account.snapshot()).lines) == 13
    assert (await account.lines())["egress-gb"] == ("2", 4)


async def test_invoice_has_at_most_250_lines(account: Account) -> None:
    """Foreign lines included; the rest is billed as one line."""
    await account.use("1")
    await account.flush()
    (invoice,) = await account.invoices()
    await account.world.sandbox.dashboard("add_line", invoice["id"], amount=100, description="Gift")
    for n in range(260):
        await account.adjust("2", f"adj-{n}")
    result = await account.flush()

    lines = await account.lines()
    assert result.outcome is FlushOutcome.SYNCED
    assert len(lines) == 250
    assert lines["rest"] == ("13", 52)
    assert sum(amount for _, amount in lines.values()) == 100 + 2 + 260 * 4


async def test_hold_stops_the_flush_until_release(account: Account) -> None:
    """Usage is recorded all the same."""
    ledger = account.world.services.ledger
    await ledger.holds.place(account.customer, "a dispute", "agent")
    await account.use("3")
    with count_calls() as sent:
        result = await account.flush()
    await ledger.holds.release(account.customer)

    assert (result.outcome, sent.calls) == (FlushOutcome.WAITING, 0)
    assert (await account.flush()).outcome is FlushOutcome.SYNCED


async def test_refusal_for_a_deleted_customer_is_explained(account: Account) -> None:
    """It cannot be billed; a person has to decide, and other customers are billed on."""
    await account.use("3")
    deletion = StripeRequest(
        RequestKind.DELETE, "DELETE", f"/v1/customers/{account.customer}", {}, "gone"
    )
    await account.world.services.stripe.send(deletion, lane=Lane.SUPPORT)

    with count_calls() as sent:
        result = await account.flush()

    assert result.outcome is FlushOutcome.PARKED
    assert result.failure is not None
    assert result.failure.code == "customer_deleted"
    assert (await account.snapshot()).parked_reason == "customer_deleted"
    assert (await account.last_sync()).stripe_calls == sent.calls > 0


async def test_busy_period_is_left_to_its_worker(account: Account) -> None:
    """Two workers on one customer would only disturb each other."""
    await account.use("3")
    await account.world.services.ledger.leases.acquire(account.customer, account.period)

    assert (await account.flush()).outcome is FlushOutcome.BUSY


async def test_frozen_worker_sends_nothing(account: Account) -> None:
    """Its snapshot is old and Stripe may have dropped the key; another worker may still send it."""
    await account.use("3")
    context = account.context
    account.context = replace(context, clock=lambda: boottime() - 100_000)
    first = await account.flush()
    account.context = context

    assert first.outcome is FlushOutcome.RETRYING
    assert await account.invoices() == []
    assert (await account.flush()).outcome is FlushOutcome.SYNCED


async def test_refusal_by_our_own_limits_is_no_attempt(account: Account) -> None:
    """The customer is due again at the time that the limit named, however often that happens, without a failure."""
    await account.use("3")
    services = account.world.services
    crowded = replace(
        BudgetPolicy.from_settings(services.settings), account=RateLimit(0.2, 1), max_wait=0
    )
    async with client(services.settings.queue, Redis) as redis:
        api_key = services.settings.stripe_api_key.get_secret_value()
        stripe = StripeApi(api_key, services.settings.stripe_api_base, Budget(redis, crowded))
        context, account.context = account.context, replace(account.context, stripe=stripe)
        results = [await account.flush() for _ in range(4)]
        await stripe.aclose()
    snapshot = await account.snapshot()

    assert {result.outcome for result in results} == {FlushOutcome.WAITING}
    assert all(500 <= result.delay_ms <= 7_500 for result in results)
    assert snapshot.attempts == 0
    assert all(result.failure is None for result in results)
    account.context = context
    assert (await account.flush()).outcome is FlushOutcome.SYNCED


async def test_period_that_kills_workers_is_parked(account: Account) -> None:
    """It is tried again an hour later."""
    await account.use("3")
    services = account.world.services
    for _ in range(MAX_CRASHES):
        await services.ledger.leases.acquire(account.customer, account.period, lease_ms=0)
    result = await account.flush()

    assert result.failure is not None
    assert (result.outcome, result.failure.code) == (FlushOutcome.PARKED, "crash_loop")
    assert await account.invoices() == []


async def test_usage_with_missing_price_is_parked(account: Account) -> None:
    """It cannot be billed; the failure names the price."""

    class EmptyCatalog:
        async def by_id(self, _: object) -> dict[str, Price]:
            return {}

    await account.use("3")
    catalog: Any = EmptyCatalog()
    account.context = replace(account.context, price_catalog=catalog)
    result = await account.flush()

    assert result.failure is not None
    assert (result.outcome, result.failure.code) == (FlushOutcome.PARKED, "UNKNOWN_SKU")


async def test_invoice_full_of_foreign_lines_is_parked(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We never remove foreign lines."""
    await account.use("3")
    await account.flush()
    (invoice,) = await account.invoices()
    for _ in range(2):
        await account.world.sandbox.dashboard(
            "add_line", invoice["id"], amount=1, description="Gift"
        )
    monkeypatch.setattr(diff, "MAX_LINES", 2)
    await account.world.services.ledger.periods.request_verify(account.customer, account.period)
    result = await account.flush()

    assert result.failure is not None
    assert (result.outcome, result.failure.code) == (FlushOutcome.PARKED, "no_room")


async def test_worker_with_lost_lease_stops(account: Account) -> None:
    """The server was replaced: its snapshot cannot be trusted, so nothing is sent."""
    ledger = account.world.services.ledger

    async def prepare(lease: Lease, batch: RequestBatch) -> bool:
        await ledger.begin_epoch()  # the server is replaced when the batch is stored
        return await ledger.leases.prepare(lease, batch)

    replaced: Any = Proxy(ledger, leases=Proxy(ledger.leases, prepare=prepare))
    await account.use("3")
    context = account.context
    account.context = replace(context, ledger=replaced)
    interrupted = await account.flush()
    account.context = context

    assert interrupted.outcome is FlushOutcome.LOST
    assert await account.invoices() == []
    assert (await account.flush()).outcome is FlushOutcome.SYNCED


async def test_pending_items_of_a_person_stay_pending(account: Account) -> None:
    """A person's pending item belongs on the invoice that they mean, not on the month's usage."""
    item = {"customer": account.customer, "amount": 500, "currency": "usd", "description": "Gift"}
    await account.world.services.stripe.write(
        "/v1/invoiceitems", item, key=f"gift {account.customer}", lane=Lane.SUPPORT
    )
    await account.use("3000")
    await account.flush()

    assert await account.lines() == {"egress-gb": ("3000", 6000)}
