"""A flush against the real ledger and the local Stripe: what it sends, and what it does when refused."""

from dataclasses import replace
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from billing.budget import Lane
from billing.invoicing import diff
from billing.invoicing.snapshot import Flight, Lease, Op, OpKind
from billing.ledger import Ledger, LedgerPolicy, keys
from billing.ledger.syncs import SyncStatus
from billing.stripe import boottime, tally
from billing.usage import CustomerId, Price
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.polling import until
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import World
from workers.flush.flush import MAX_CRASHES
from workers.flush.outcome import FlushOutcome

CREATE = "POST /v1/invoices"
ADD = "POST /v1/invoices/{invoice}/add_lines"


@pytest.fixture
async def account(deaf: World) -> Account:
    """A customer who has used nothing yet."""
    customer = CustomerId(await deaf.shop.customer())
    await record_usage(deaf.services, [delta(customer, "0")])
    return Account(deaf, customer, await deaf.services.ledger.open_period(customer))


async def test_the_first_usage_makes_a_draft(account: Account) -> None:
    """Created once, filled in one call, ours by its metadata; finalized by nobody but us."""
    await account.use("3")
    await account.use("100", "machine-seconds")
    assert (await account.flush()).outcome is FlushOutcome.SYNCED

    sync = await account.told()
    (invoice,) = await account.invoices()
    assert (sync.status, sync.invoice) == (SyncStatus.SUCCEEDED, invoice["id"])
    assert (sync.lines_added, sync.stripe_calls, sync.deltas) == (2, 3, 3)
    assert (invoice["status"], invoice["auto_advance"]) == ("draft", False)
    assert invoice["metadata"]["gw_period"] == str(account.period)
    assert await account.lines() == {"egress-gb": ("3", 6), "machine-seconds": ("100", 0)}
    assert (await account.peek()).up_to_date


async def test_more_usage_is_one_call(account: Account) -> None:
    """However many deltas: the calls follow the lines."""
    await account.use("3")
    await account.flush()
    for _ in range(5):
        await account.use("1")
    await account.flush()

    sync = await account.told()
    assert (sync.lines_updated, sync.stripe_calls) == (1, 1)
    assert await account.lines() == {"egress-gb": ("8", 16)}


async def test_a_line_that_stands_twice_is_billed_once(account: Account) -> None:
    """However it came there; the oldest stays."""
    await account.use("3")
    await account.flush()
    (invoice,) = await account.invoices()
    double = {"amount": 6, "metadata": {"gw_line": "egress-gb", "gw_quantity": "3"}}
    path = f"/v1/invoices/{invoice['id']}/add_lines"
    await account.world.services.stripe.write(
        path, {"lines": [double]}, key="double", lane=Lane.SUPPORT
    )
    await account.world.services.ledger.request_verify(account.customer, account.period)

    await account.flush()

    assert (await account.told()).lines_removed == 1
    assert [line["id"] for line in (await account.invoices())[0]["lines"]["data"]] == [
        invoice["lines"]["data"][0]["id"]
    ]


async def test_nothing_new_is_no_call(account: Account) -> None:
    """A wake-up too many costs Stripe nothing."""
    await account.use("3")
    await account.flush()

    with tally() as sent:
        ending = await account.flush()

    assert (ending.outcome, sent.calls) == (FlushOutcome.SYNCED, 0)


async def test_usage_that_comes_to_nothing_makes_no_draft(account: Account) -> None:
    """Nobody wants an empty invoice."""
    await account.use("3")
    await account.use("-3")

    assert (await account.flush()).outcome is FlushOutcome.SYNCED
    assert await account.invoices() == []


async def test_a_line_may_cross_zero_and_come_back(account: Account) -> None:
    """A credit is a bare amount at Stripe; its quantity is kept beside it."""
    seen = []
    for quantity in ("3", "-5", "-1", "7", "-4"):
        await account.use(quantity)
        assert (await account.flush()).outcome is FlushOutcome.SYNCED
        seen.append(await account.lines())

    assert seen == [
        {"egress-gb": ("3", 6)},
        {"egress-gb": ("-2", -4)},
        {"egress-gb": ("-3", -6)},
        {"egress-gb": ("4", 8)},
        {},
    ]


async def test_a_persons_line_is_left_alone(account: Account) -> None:
    """Support put a discount there."""
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


async def test_what_a_person_did_to_our_line_is_undone_when_looked_at(account: Account) -> None:
    """The ledger says what was used; a person corrects it with adjustUsage."""
    await account.use("3")
    await account.flush()
    (invoice,) = await account.invoices()
    line = invoice["lines"]["data"][0]["id"]
    edit = {"line": line, "quantity_decimal": "99"}
    await account.world.sandbox.dashboard("edit_line", invoice["id"], **edit)
    await account.world.services.ledger.request_verify(account.customer, account.period)

    await account.flush()

    assert (await account.told()).lines_updated == 1
    assert await account.lines() == {"egress-gb": ("3", 6)}


async def test_a_draft_that_a_person_deleted_is_made_again(account: Account) -> None:
    """Under a key of its own: the first one would replay the invoice that is gone."""
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
async def test_an_accident_on_the_way_is_made_good(
    account: Account, endpoint: str, accident: str
) -> None:
    """Sent again under the same key, by whoever comes next: one draft, one line."""
    await account.use("3")
    await account.world.sandbox.fault(accident, endpoint)

    first = await account.flush()
    second = await account.flush()

    assert first.outcome is FlushOutcome.RETRYING
    assert first.delay_ms > 0
    assert second.outcome is FlushOutcome.SYNCED
    assert await account.lines() == {"egress-gb": ("3", 6)}


@pytest.mark.parametrize("accident", ["error_500_after", "partial_500_after"])
async def test_a_stored_error_is_looked_into(account: Account, accident: str) -> None:
    """Stripe repeats it for ever under its key; what it did is read, the rest is sent anew."""
    await account.use("3")
    await account.use("2", "volume-hours")
    await account.world.sandbox.fault(accident, ADD)

    outcomes = [(await account.flush()).outcome for _ in range(2)]

    assert outcomes == [FlushOutcome.RETRYING, FlushOutcome.SYNCED]
    assert await account.lines() == {"egress-gb": ("3", 6), "volume-hours": ("2", 0)}


async def test_a_line_that_a_late_request_doubles_is_billed_once(
    account: Account, redis_url: str
) -> None:
    """Its ledger was replaced while it was under way, so it was sent anew, and both arrived."""
    async with Redis.from_url(redis_url) as redis:
        ledger = Ledger(redis, policy=LedgerPolicy(quiet_ms=1))
        await ledger.open()
        account.ports = replace(account.ports, ledger=ledger)
        await account.use("3")
        await account.world.sandbox.fault("late_delivery", ADD, seconds=0.5)
        lost = await account.flush()
        await ledger.begin_epoch()
        sent = await account.flush()

        async def standing() -> int:
            (invoice,) = await account.invoices()
            return len(invoice["lines"]["data"])

        await until(standing, 2)
        await account.flush()

    assert (lost.outcome, sent.outcome) == (FlushOutcome.RETRYING, FlushOutcome.SYNCED)
    assert await account.lines() == {"egress-gb": ("3", 6)}
    assert await standing() == 1


async def test_a_draft_that_the_ledger_forgot_is_adopted(account: Account, redis_url: str) -> None:
    """Its metadata names the period: a rewound ledger makes no second one."""
    await account.use("3")
    await account.flush()
    async with Redis.from_url(redis_url) as redis:
        await redis.hdel(keys.period(account.customer, account.period), "invoice", "seq")
        await redis.delete(keys.lines(account.customer, account.period))
    await account.use("1")
    await account.flush()

    assert len(await account.invoices()) == 1
    assert await account.lines() == {"egress-gb": ("4", 8)}


async def test_a_month_that_the_ledger_lost_is_found_again(
    account: Account, redis_url: str
) -> None:
    """A server that came back from an old copy: nobody may be left with a draft that we forgot."""
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

    assert (await account.told()).lines_removed == 1
    assert {str(each["metadata"]["gw_period"]) for each in await account.invoices()} == {
        str(account.period),
        str(before),
    }


async def test_many_lines_need_no_reading_to_be_updated(account: Account) -> None:
    """Stripe embeds ten lines in an answer; reads are rationed, and an update's outcome is known."""
    for n in range(12):
        await account.adjust("1", f"adj-{n}")
    await account.flush()
    await account.use("1")
    await account.flush()
    await account.use("1")
    await account.flush()

    sync = await account.told()
    assert (sync.stripe_calls, sync.lines_updated) == (1, 1)
    assert len((await account.peek()).lines) == 13
    assert (await account.lines())["egress-gb"] == ("2", 4)


async def test_an_invoice_has_at_most_250_lines(account: Account) -> None:
    """Other people's included; what does not fit is billed as one line."""
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


async def test_a_hold_stops_everything_until_it_is_released(account: Account) -> None:
    """Support has said so; usage is counted all the same."""
    ledger = account.world.services.ledger
    await ledger.hold(account.customer, "a dispute", "agent")
    await account.use("3")
    with tally() as sent:
        held = await account.flush()
    await ledger.release_hold(account.customer)

    assert (held.outcome, sent.calls) == (FlushOutcome.WAITING, 0)
    assert (await account.flush()).outcome is FlushOutcome.SYNCED


async def test_a_deleted_customer_is_set_aside_with_stripes_reason(account: Account) -> None:
    """Nobody can bill them; a person has to decide, and others are billed on."""
    await account.use("3")
    gone = Op(OpKind.DELETE, "DELETE", f"/v1/customers/{account.customer}", {}, "gone")
    await account.world.services.stripe.send(gone, lane=Lane.SUPPORT)

    with tally() as sent:
        result = await account.flush()

    assert result.outcome is FlushOutcome.PARKED
    assert result.failure is not None
    assert result.failure.code == "resource_missing"
    assert (await account.peek()).stuck == "resource_missing"
    assert (await account.told()).stripe_calls == sent.calls > 0


async def test_a_lease_that_is_held_is_left_alone(account: Account) -> None:
    """Two workers on one customer would only get in each other's way."""
    await account.use("3")
    await account.world.services.ledger.acquire(account.customer, account.period)

    assert (await account.flush()).outcome is FlushOutcome.BUSY


async def test_a_worker_that_stood_still_sends_nothing(account: Account) -> None:
    """Its picture is old, and Stripe may have forgotten the key; but another may still send it."""
    await account.use("3")
    ports = account.ports
    account.ports = replace(ports, clock=lambda: boottime() - 100_000)
    first = await account.flush()
    account.ports = ports

    assert first.outcome is FlushOutcome.RETRYING
    assert await account.invoices() == []
    assert (await account.flush()).outcome is FlushOutcome.SYNCED


async def test_workers_that_die_on_a_period_leave_it_to_a_person(account: Account) -> None:
    """Whatever it is that kills them; an hour later it is tried again."""
    await account.use("3")
    services = account.world.services
    for _ in range(MAX_CRASHES):
        await services.ledger.acquire(account.customer, account.period, lease_ms=0)
    result = await account.flush()

    assert result.failure is not None
    assert (result.outcome, result.failure.code) == (FlushOutcome.PARKED, "crash_loop")
    assert await account.invoices() == []


async def test_usage_whose_price_is_gone_is_set_aside(account: Account) -> None:
    """It cannot be billed; the failure names the price."""

    class Forgetful:
        async def by_id(self, _: object) -> dict[str, Price]:
            return {}

    await account.use("3")
    account.ports = replace(account.ports, catalogue=Forgetful())
    result = await account.flush()

    assert result.failure is not None
    assert (result.outcome, result.failure.code) == (FlushOutcome.PARKED, "UNKNOWN_SKU")


async def test_an_invoice_full_of_other_peoples_lines_waits_for_room(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We remove nothing that is not ours."""
    await account.use("3")
    await account.flush()
    (invoice,) = await account.invoices()
    for _ in range(2):
        await account.world.sandbox.dashboard(
            "add_line", invoice["id"], amount=1, description="Gift"
        )
    monkeypatch.setattr(diff, "MAX_LINES", 2)
    await account.world.services.ledger.request_verify(account.customer, account.period)
    result = await account.flush()

    assert result.failure is not None
    assert (result.outcome, result.failure.code) == (FlushOutcome.PARKED, "no_room")


async def test_a_worker_that_was_overtaken_stops(account: Account) -> None:
    """The server was replaced under it: nothing that it knows can be trusted, so nothing is sent."""

    class Replaced:
        """The ledger, on a server that is replaced when the flight is written down."""

        def __getattr__(self, name: str) -> object:
            return getattr(account.world.services.ledger, name)

        async def prepare(self, lease: Lease, flight: Flight) -> bool:
            await account.world.services.ledger.begin_epoch()
            return await account.world.services.ledger.prepare(lease, flight)

    await account.use("3")
    ports = account.ports
    account.ports = replace(ports, ledger=Replaced())
    overtaken = await account.flush()
    account.ports = ports

    assert overtaken.outcome is FlushOutcome.LOST
    assert await account.invoices() == []
    assert (await account.flush()).outcome is FlushOutcome.SYNCED
