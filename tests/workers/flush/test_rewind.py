"""A ledger that was emptied or restored from an old copy: bills wait for the lost usage or for a person."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from redis.asyncio import Redis

from billing.budget import Lane
from billing.invoicing.snapshot import PeriodState
from billing.ledger import keys
from billing.redis_clients import awaited
from billing.usage import CustomerId, LineKey, Period
from tests.support.account import Account
from tests.support.webhook_server import WebhookWorld
from workers.flush.outcome import FlushOutcome

Copy = Mapping[bytes, bytes]


@pytest.fixture
async def account(world_without_webhooks: WebhookWorld) -> Account:
    """A customer without usage, in the current period."""
    customer = CustomerId(await world_without_webhooks.shop.customer())
    return Account(world_without_webhooks, customer, Period.containing(datetime.now(UTC)))


async def back_up(redis: Redis) -> Copy:
    """Copy the server's keys."""
    found = [key async for key in redis.scan_iter(count=1000)]
    return {key: await awaited(redis.dump(key)) for key in found}


async def restore(redis: Redis, account: Account, copy: Copy) -> None:
    """Replace the server's keys by those of *copy*, as a restart on a backup does."""
    await redis.flushall()
    for key, value in copy.items():
        await redis.restore(key, 0, value)
    await account.world.services.ledger.begin_epoch()


async def hold_reason(account: Account) -> str:
    """Return the reason of the customer's hold, '' without one."""
    hold = await account.world.services.ledger.holds.get(account.customer)
    return hold.reason if hold else ""


async def rewound(account: Account) -> int:
    """Return the number of customers of whom usage is lost."""
    return sum(backlog.rewound for backlog in await account.world.services.ledger.due.backlogs())


async def sealed_month(account: Account, quantity: str) -> Account:
    """Bill *quantity* for the month before; return the account of that month."""
    before = Account(account.world, account.customer, account.period.previous())
    at = (before.period.end - timedelta(minutes=1)).isoformat()
    await before.use(quantity, occurred_at=at)
    await before.flush()
    assert await account.world.services.ledger.periods.close(account.customer, before.period)
    assert (await before.flush()).outcome is FlushOutcome.SEALED
    return before


async def test_emptied_ledger_lowers_no_draft(account: Account, redis: Redis) -> None:
    """Stripe's draft is the only record of what was used; it waits for the producers, who end the hold."""
    await account.use("3000")
    await account.flush()
    await redis.flushall()
    await account.use("1")
    waiting = await account.flush()

    assert waiting.outcome is FlushOutcome.WAITING
    assert await account.lines() == {"egress-gb": ("3000", 6000)}
    assert "USD 59.98" in await hold_reason(account)
    assert await rewound(account) == 1

    await account.use("2000")
    assert (await account.flush()).outcome is FlushOutcome.WAITING
    await account.use("1000")
    synced = await account.flush()

    assert synced.outcome is FlushOutcome.SYNCED
    assert await account.lines() == {"egress-gb": ("3001", 6002)}
    assert (await hold_reason(account), await rewound(account)) == ("", 0)


async def test_emptied_ledger_credits_no_bill(account: Account, redis: Redis) -> None:
    """A final bill is neither sealed nor given back; a person who releases the hold accepts the loss."""
    ledger = account.world.services.ledger
    before = await sealed_month(account, "1000")
    await redis.flushall()
    await account.use("1")
    await account.flush()  # its listing finds the bill
    assert await ledger.periods.close(account.customer, before.period)
    outcomes = [(await before.flush()).outcome for _ in range(2)]
    await account.flush()

    assert outcomes == [FlushOutcome.WAITING, FlushOutcome.WAITING]
    assert (await before.snapshot()).state is PeriodState.CLOSING
    assert (await account.snapshot()).totals == {"egress-gb": 1}

    await ledger.holds.release(account.customer)
    assert (await before.flush()).outcome is FlushOutcome.SEALED
    carried = LineKey(f"egress-gb~{before.period}")
    assert (await account.snapshot()).totals[carried] == -1000
    assert await rewound(account) == 0


async def test_restored_ledger_waits_for_replay_of_usage_after_the_backup(
    account: Account, redis: Redis
) -> None:
    """An old copy has some of the usage; once it has all of it again, lower usage is billed as always."""
    await account.use("10")
    await account.flush()
    copy = await back_up(redis)
    await account.use("5")
    await account.flush()
    await restore(redis, account, copy)
    await account.use("1")
    await account.flush()

    assert await account.lines() == {"egress-gb": ("15", 30)}
    assert "USD 0.08" in await hold_reason(account)

    await account.use("4")
    assert (await account.flush()).outcome is FlushOutcome.SYNCED
    assert await hold_reason(account) == ""
    await account.use("-6")
    await account.flush()
    assert await account.lines() == {"egress-gb": ("9", 18)}
    assert await hold_reason(account) == ""


async def test_lost_adjustment_waits_for_a_person(account: Account, redis: Redis) -> None:
    """Nobody sends an adjustment again; released, the ledger's figures count, also after another restart."""
    await account.use("10")
    await account.flush()
    copy = await back_up(redis)
    await account.adjust("-3", "goodwill")
    await account.flush()
    await restore(redis, account, copy)
    await account.use("1")
    await account.flush()
    with_adjustment = await account.lines()
    await account.world.services.ledger.holds.release(account.customer)
    await account.flush()

    assert len(with_adjustment) == 2
    assert await account.lines() == {"egress-gb": ("11", 22)}
    await account.world.services.ledger.begin_epoch()
    await account.use("1")
    assert (await account.flush()).outcome is FlushOutcome.SYNCED
    assert await hold_reason(account) == ""


async def test_plain_restart_is_no_loss(account: Account, redis: Redis) -> None:
    """The ledger knows every flush, the one that was under way included: lower usage is billed at once."""
    await account.use("10")
    await account.world.sandbox.fault("answer_lost_after", "POST /v1/invoices/{invoice}/add_lines")
    await account.flush()
    await account.world.services.ledger.begin_epoch()
    await account.use("-4")
    await account.flush()

    assert await account.lines() == {"egress-gb": ("6", 12)}
    assert await hold_reason(account) == ""


async def test_month_is_not_closed_while_usage_is_lost(account: Account, redis: Redis) -> None:
    """Usage that is sent again belongs to its own month; afterwards the month is cut as always."""
    before = Account(account.world, account.customer, account.period.previous())
    at = (before.period.end - timedelta(minutes=1)).isoformat()
    await before.use("10", occurred_at=at)
    await before.flush()
    await redis.flushall()
    await before.use("1", occurred_at=at)
    await before.flush()

    open_periods = keys.open_periods(keys.shard_of(account.customer))
    assert await redis.zcard(open_periods) == 0
    await before.use("9", occurred_at=at)
    assert (await before.flush()).outcome is FlushOutcome.SYNCED
    assert await redis.zcard(open_periods) == 1


async def test_rewind_hold_and_support_hold_are_released_separately(
    account: Account, redis: Redis
) -> None:
    """The hold for lost usage waits behind Support's, and ends by itself after it."""
    ledger = account.world.services.ledger
    await account.use("10")
    await account.flush()
    await redis.flushall()
    await account.use("1")
    await account.flush()
    lost = await ledger.holds.get(account.customer)
    await ledger.holds.release(account.customer, lost)
    await redis.flushall()
    await account.use("1")
    await ledger.holds.place(account.customer, "Disputed", "ann")
    await account.flush()
    await ledger.holds.release(account.customer)
    await account.flush()
    assert "lost usage" in await hold_reason(account)

    await account.use("9")
    await account.flush()
    assert await hold_reason(account) == ""
    assert await account.lines() == {"egress-gb": ("10", 20)}


async def test_draft_deleted_by_a_person_ends_the_hold(account: Account, redis: Redis) -> None:
    """Stripe shows nothing more than the ledger has, so nothing is lost by billing it."""
    await account.use("10")
    await account.flush()
    await redis.flushall()
    await account.use("10")
    await account.use("-1")
    await account.flush()
    (draft,) = await account.invoices()
    await account.world.sandbox.dashboard("delete", draft["id"])
    await account.use("1")
    await account.flush()

    assert await account.lines() == {"egress-gb": ("10", 20)}
    assert (await hold_reason(account), await rewound(account)) == ("", 0)


async def test_draft_lowered_by_a_person_ends_the_hold(account: Account, redis: Redis) -> None:
    """Stripe is read when it says that the draft was changed, though the stored lines are still ahead."""
    await account.use("10")
    await account.flush()
    await redis.flushall()
    await account.use("9")
    await account.flush()
    (draft,) = await account.invoices()
    line = (await account.snapshot()).lines[LineKey("egress-gb")].id
    edit = {"line": line, "quantity_decimal": "9"}
    await account.world.sandbox.dashboard("edit_line", draft["id"], **edit)
    await account.flush()
    assert "lost usage" in await hold_reason(account)

    await account.world.services.ledger.periods.request_verify(account.customer, account.period)
    await account.flush()
    assert (await hold_reason(account), await rewound(account)) == ("", 0)
    assert await account.lines() == {"egress-gb": ("10", 18)}


async def test_verification_that_finds_the_loss_is_not_repeated(
    account: Account, redis: Redis
) -> None:
    """Its answer is stored, so the checks every ten minutes read nothing."""
    await account.use("10")
    await account.flush()
    await redis.flushall()
    await account.use("9")
    await account.flush()
    await account.world.services.ledger.periods.request_verify(account.customer, account.period)
    await account.flush()
    await account.world.sandbox.reset_counters()
    await account.flush()

    assert (await account.world.sandbox.counters())["total"] == 0
    assert "lost usage" in await hold_reason(account)


async def test_second_lost_month_does_not_wait_for_its_turn(account: Account, redis: Redis) -> None:
    """Two workers found them at once, so one hold is queued; when the other ends its month is due at once."""
    before = Account(account.world, account.customer, account.period.previous())
    at = (before.period.end - timedelta(minutes=1)).isoformat()
    for month, facts in ((before, {"occurred_at": at}), (account, {})):
        await month.use("10", **facts)
        await month.flush()
    await redis.flushall()
    await before.use("1", occurred_at=at)
    await account.use("1")
    await asyncio.gather(before.flush(), account.flush())
    await before.use("9", occurred_at=at)
    await account.use("9")
    first, second = (before, account)
    if str(account.period) in await hold_reason(account):
        first, second = second, first
    await second.flush()
    await first.flush()
    assert str(second.period) in await hold_reason(account)

    due_ms = await account.world.services.ledger.due.time_ms(account.customer, second.period)
    assert due_ms is not None
    assert due_ms <= (await second.snapshot()).now_ms
    await second.flush()
    assert (await hold_reason(account), await rewound(account)) == ("", 0)


async def test_accepted_loss_places_no_second_hold_for_a_surplus_draft(
    account: Account, redis: Redis
) -> None:
    """The draft stays because of a person's line; what it shows was accepted with the other."""
    services = account.world.services
    await account.use("10")
    await account.flush()
    (draft,) = await account.invoices()
    metadata = {**draft["metadata"], "gw_seq": "1", "gw_ver": f"9:{draft['id']}"}
    body = {"customer": account.customer, "metadata": metadata}
    await account.world.sandbox.advance(2)  # the older draft is adopted
    spare = (await services.stripe.write("/v1/invoices", body, key="x", lane=Lane.SUPPORT)).body
    line = {
        "amount": 10,
        "description": "late",
        "metadata": {"gw_line": "egress-gb", "gw_quantity": "5"},
    }
    path = f"/v1/invoices/{spare['id']}/add_lines"
    await services.stripe.write(path, {"lines": [line]}, key="y", lane=Lane.SUPPORT)
    await account.world.sandbox.dashboard("add_line", spare["id"], amount=5, description="advice")
    await redis.flushall()
    await account.use("1")
    await account.flush()
    assert "lost usage" in await hold_reason(account)
    await services.ledger.holds.release(account.customer)

    for _ in range(3):
        await services.ledger.periods.request_verify(account.customer, account.period)
        await account.flush()
    assert await hold_reason(account) == ""


async def test_credit_that_the_ledger_lost_stays(account: Account, redis: Redis) -> None:
    """A loss is not taken from the customer either."""
    await account.use("-5")
    await account.flush()
    await redis.flushall()
    await account.use("1", sku="machine-seconds")
    await account.flush()

    assert await account.lines() == {"egress-gb": ("-5", -10)}


async def test_lost_part_of_a_rolled_up_line_is_noticed(
    account: Account, redis: Redis, monkeypatch: Any
) -> None:
    """Lines beyond the limit are one line, whose parts are compared by their amount."""
    monkeypatch.setattr("billing.invoicing.diff.MAX_LINES", 2)
    await account.use("1")
    for n in range(4):
        await account.adjust("1", f"k{n}")
    await account.flush()
    copy = await back_up(redis)
    await account.adjust("100", "more")
    await account.flush()
    before = await account.lines()
    await restore(redis, account, copy)
    await account.use("1")
    await account.flush()

    assert await account.lines() == before
    assert "USD 2.00" in await hold_reason(account)
    assert Decimal(before["rest"][0]) == 5


@pytest.mark.parametrize("closing", [False, True], ids=["open", "closing"])
async def test_deleted_draft_of_a_lost_month_is_not_awaited_for_ever(
    account: Account, redis: Redis, *, closing: bool
) -> None:
    """The mark once stayed when no invoice was left to review, and no month of the customer was closed again."""
    ledger = account.world.services.ledger
    before = Account(account.world, account.customer, account.period.previous())
    at = (before.period.end - timedelta(minutes=1)).isoformat()
    await before.use("1000", occurred_at=at)
    await before.flush()
    await redis.flushall()
    await account.use("1")
    await account.flush()
    if closing:
        assert await ledger.periods.close(account.customer, before.period)
    await before.flush()
    assert await rewound(account) == 1

    [draft] = [
        invoice
        for invoice in await account.invoices()
        if invoice["metadata"].get("gw_period") == str(before.period)
    ]
    await account.world.sandbox.dashboard("delete", draft["id"])
    await ledger.holds.release(account.customer)
    for _ in range(3):
        await before.flush()
        await account.flush()

    assert await rewound(account) == 0
    shard = keys.shard_of(account.customer)
    members = await awaited(redis.zrange(keys.open_periods(shard), 0, -1))
    assert f"{account.customer}|{account.period}".encode() in members


async def test_lost_month_stays_open_for_its_usage(account: Account, redis: Redis) -> None:
    """A lost month has ended already; closed at once, it would send its own usage to the next month."""
    before = Account(account.world, account.customer, account.period.previous())
    at = (before.period.end - timedelta(minutes=1)).isoformat()
    await before.use("1000", occurred_at=at)
    await before.flush()
    await redis.flushall()
    began_ms = datetime.now(UTC).timestamp() * 1000
    await account.use("1")
    await account.flush()

    open_periods = keys.open_periods(keys.shard_of(account.customer))
    closes_after_ms = await awaited(
        redis.zscore(open_periods, f"{account.customer}|{before.period}")
    )
    assert closes_after_ms is not None
    assert closes_after_ms >= began_ms - 1000


async def test_copy_of_a_bill_is_a_persons(account: Account, redis: Redis) -> None:
    """A restored ledger that seals a month again does not credit what a duplicate bills."""
    services = account.world.services
    before = Account(account.world, account.customer, account.period.previous())
    at = (before.period.end - timedelta(minutes=1)).isoformat()
    await before.use("1000", occurred_at=at)
    await before.flush()
    copy = await back_up(redis)
    assert await services.ledger.periods.close(account.customer, before.period)
    assert (await before.flush()).outcome is FlushOutcome.SEALED
    (bill,) = await account.invoices()
    [line] = bill["lines"]["data"]
    body = {"customer": account.customer, "metadata": bill["metadata"]}
    await account.world.sandbox.advance(2)
    made = (await services.stripe.write("/v1/invoices", body, key="x", lane=Lane.SUPPORT)).body
    path = f"/v1/invoices/{made['id']}"
    copied = {"amount": 2000, "description": "copied", "metadata": line["metadata"]}
    await services.stripe.write(
        f"{path}/add_lines", {"lines": [copied]}, key="y", lane=Lane.SUPPORT
    )
    await services.stripe.write(f"{path}/finalize", {}, key="z", lane=Lane.SUPPORT)

    await restore(redis, account, copy)
    assert await services.ledger.periods.close(account.customer, before.period)
    assert (await before.flush()).outcome is FlushOutcome.SEALED
    assert (await account.snapshot()).totals == {}
