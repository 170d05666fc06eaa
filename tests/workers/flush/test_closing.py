"""The end of a month, on the real ledger and the local Stripe."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from billing.budget import Lane
from billing.events.effects import Notice
from billing.invoicing.snapshot import PeriodState
from billing.ledger import keys
from billing.services import open_services
from billing.settings import Settings
from billing.usage import CustomerId, LineKey, Period, UsageDelta
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.stripe_catalog import Shop, delta
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.webhook_server import World
from workers.flush.closing import close_ended
from workers.flush.outcome import FlushOutcome

HOUR_MS = 3_600_000


@pytest.fixture
async def account(deaf: World) -> Account:
    """A customer in the month that ended last; its usage can still be reported."""
    return await billed_last_month(deaf)


async def billed_last_month(world: World) -> Account:
    """A new customer with usage of last month."""
    customer = CustomerId(await world.shop.customer())
    month = Period.containing(datetime.now(UTC)).previous()
    await record_usage(world.services, [delta(customer, "0", occurred_at=_last_moment(month))])
    return Account(world, customer, month)


async def cut(account: Account) -> None:
    """The period takes no more usage."""
    assert await account.world.services.ledger.close(account.customer, account.period)


def _last_moment(month: Period) -> str:
    return (month.end - timedelta(seconds=1)).isoformat()


async def use(account: Account, quantity: str, sku: str = "egress-gb") -> None:
    """Usage of the month that has ended."""
    await account.use(quantity, sku, occurred_at=_last_moment(account.period))


async def test_a_month_is_finalized_and_sealed(account: Account) -> None:
    """With what came to the end, collected by Stripe from there on."""
    await use(account, "30")
    await account.flush()
    await use(account, "20")
    await cut(account)
    result = await account.flush()

    (invoice,) = await account.invoices()
    assert result.outcome is FlushOutcome.SEALED
    assert (invoice["status"], invoice["auto_advance"], invoice["total"]) == ("open", True, 100)
    assert (await account.peek()).state is PeriodState.SEALED


async def test_a_sealed_month_is_kept_as_long_as_the_operator_says(
    settings: Settings, redis: Redis, sandbox: StripeSandbox
) -> None:
    """So that a complaint which comes late can still be looked into by app and region."""
    own = settings.model_copy(update={"ledger_retention": 200})
    async with open_services(own) as services:
        shop = Shop(services)
        await shop.open()
        account = await billed_last_month(World(services, sandbox, shop))
        await use(account, "30")
        await cut(account)
        assert (await account.flush()).outcome is FlushOutcome.SEALED

    left = await redis.ttl(keys.period(account.customer, account.period))
    assert 199 * 86_400 < left <= 200 * 86_400


async def test_late_usage_is_billed_with_the_next_month(account: Account) -> None:
    """On a line that says when it was used."""
    await use(account, "3")
    await cut(account)
    await use(account, "4")
    await account.flush()

    following = await account.world.services.ledger.peek(account.customer, account.period.next())
    assert {str(key): str(quantity) for key, quantity in following.totals.items()} == {
        f"egress-gb~{account.period}": "4"
    }


async def test_a_month_without_usage_leaves_no_invoice(account: Account) -> None:
    """Nothing was made, nothing is finalized."""
    await cut(account)

    assert (await account.flush()).outcome is FlushOutcome.SEALED
    assert await account.invoices() == []


async def test_a_draft_that_came_to_nothing_is_deleted(account: Account) -> None:
    """All of its usage was taken back."""
    await use(account, "3")
    await account.flush()
    await use(account, "-3")
    await cut(account)

    assert (await account.flush()).outcome is FlushOutcome.SEALED
    assert await account.invoices() == []


async def test_an_amount_too_small_to_charge_goes_to_the_balance(account: Account) -> None:
    """Stripe's doing: the invoice is paid at once, and sealed as any other."""
    await use(account, "1")
    await cut(account)

    assert (await account.flush()).outcome is FlushOutcome.SEALED
    (invoice,) = await account.invoices()
    assert invoice["status"] == "paid"


async def test_usage_of_a_sku_called_rest_is_not_given_back(account: Account) -> None:
    """No door takes such a SKU; a ledger from before may hold one, which is billed like any other."""
    moment = datetime.fromisoformat(_last_moment(account.period))
    used = UsageDelta("old", account.customer, "rest", Decimal(30), moment)
    ledger, catalogue = account.world.services.ledger, account.world.services.catalogue
    sold = await catalogue.by_sku(["egress-gb"])
    await ledger.record([used], {"rest": sold["egress-gb"]})
    await cut(account)

    assert (await account.flush()).outcome is FlushOutcome.SEALED
    (invoice,) = await account.invoices()
    following = await ledger.peek(account.customer, account.period.next())
    assert (invoice["total"], following.totals) == (60, {})


async def test_nothing_is_finalized_while_a_request_is_in_doubt(account: Account) -> None:
    """It might still arrive, and change the bill."""
    await use(account, "3")
    await account.flush()
    await use(account, "1")
    await cut(account)
    update = "POST /v1/invoices/{invoice}/update_lines"
    await account.world.sandbox.fault("answer_lost_before", update)
    outcomes = [(await account.flush()) for _ in range(2)]

    assert [each.outcome for each in outcomes] == [FlushOutcome.RETRYING, FlushOutcome.WAITING]
    assert 0 < outcomes[1].delay_ms <= account.ports.policy.quiet
    assert (await account.invoices())[0]["status"] == "draft"

    account.ports = replace(account.ports, policy=replace(account.ports.policy, quiet=-1))
    assert (await account.flush()).outcome is FlushOutcome.SEALED
    assert await account.lines() == {"egress-gb": ("4", 8)}


async def test_a_finalization_without_an_answer_is_looked_into(account: Account) -> None:
    """The invoice says whether it is final."""
    await use(account, "30")
    await cut(account)
    finalize = "POST /v1/invoices/{invoice}/finalize"
    await account.world.sandbox.fault("answer_lost_after", finalize)
    outcomes = [(await account.flush()).outcome for _ in range(2)]

    assert outcomes == [FlushOutcome.RETRYING, FlushOutcome.SEALED]


async def test_an_invoice_that_a_person_finalized_ends_its_month(account: Account) -> None:
    """What was not on it is billed with the next one, nothing is overwritten."""
    await use(account, "30")
    await account.flush()
    (invoice,) = await account.invoices()
    await account.world.sandbox.dashboard("finalize", invoice["id"])
    await use(account, "12")
    outcomes = [(await account.flush()).outcome for _ in range(2)]

    following = await account.world.services.ledger.peek(account.customer, account.period.next())
    carried = LineKey(f"egress-gb~{account.period}")
    assert outcomes == [FlushOutcome.WAITING, FlushOutcome.SEALED]
    assert str(following.totals[carried]) == "12"
    assert await account.lines() == {"egress-gb": ("30", 60)}


async def test_a_voided_invoice_waits_for_a_person(account: Account) -> None:
    """Whether its usage is still owed is not for us to say; the customer is held, with the reason."""
    await use(account, "30")
    await account.flush()
    (invoice,) = await account.invoices()
    await account.world.sandbox.dashboard("finalize", invoice["id"])
    await account.world.sandbox.dashboard("void", invoice["id"])
    await cut(account)
    await account.flush()

    hold = await account.world.services.ledger.held(account.customer)
    assert hold is not None
    assert (hold.by, invoice["id"] in hold.reason) == ("gateway", True)
    assert (await account.peek()).state is PeriodState.SEALED

    ledger = account.world.services.ledger
    await ledger.release_hold(account.customer)
    late = Notice("evt_1", "invoice.voided", invoice["id"], account.customer, invoice["id"])
    await account.world.services.inbox.receive([late])
    await account.world.worked()
    assert await ledger.held(account.customer) is None  # told late, of what a person has decided


async def test_an_amount_that_a_person_typed_comes_back_though_the_ledger_lost_the_line(
    account: Account, redis_url: str
) -> None:
    """Its mark still names the price; the customer pays what was used, on this bill and the next."""
    await use(account, "30")
    await account.flush()
    (invoice,) = await account.invoices()
    line = invoice["lines"]["data"][0]["id"]
    await account.world.sandbox.dashboard("edit_line", invoice["id"], line=line, amount=1000)
    await account.world.sandbox.dashboard("finalize", invoice["id"])
    async with Redis.from_url(redis_url) as redis:
        lost = str(keys.period(account.customer, account.period))
        await redis.delete(*[key async for key in redis.scan_iter(f"{lost}*")])
    await account.world.services.ledger.request_verify(account.customer, account.period)
    outcomes = [(await account.flush()).outcome for _ in range(2)]

    following = await account.world.services.ledger.peek(account.customer, account.period.next())
    assert outcomes == [FlushOutcome.WAITING, FlushOutcome.SEALED]
    assert following.totals[LineKey(f"egress-gb~{account.period}")] == -500


async def test_a_second_draft_of_a_month_is_deleted(account: Account) -> None:
    """The elder one is the month's."""
    await use(account, "30")
    await account.flush()
    spare = await _second_draft(account)
    await cut(account)
    await account.flush()

    assert spare not in [each["id"] for each in await account.invoices()]
    assert await account.lines() == {"egress-gb": ("30", 60)}


async def test_a_second_draft_with_a_persons_line_is_theirs_to_settle(account: Account) -> None:
    """We delete nothing that we did not write."""
    await use(account, "30")
    await account.flush()
    spare = await _second_draft(account)
    await account.world.sandbox.dashboard("add_line", spare, amount=100, description="Mine")
    await cut(account)
    result = await account.flush()

    assert result.failure is not None
    assert (result.outcome, result.failure.code) == (FlushOutcome.PARKED, "two_drafts")
    assert len(await account.invoices()) == 2


async def test_months_are_cut_once_late_usage_had_its_time(account: Account) -> None:
    """And not before; a sweep more or less does no harm."""
    ledger, shards = account.world.services.ledger, range(64)
    end_ms = round(account.period.end.timestamp() * 1000)

    early = await close_ended(ledger, shards, now_ms=end_ms + HOUR_MS - 1, settle_ms=HOUR_MS)
    late = [
        await close_ended(ledger, shards, now_ms=end_ms + HOUR_MS, settle_ms=HOUR_MS)
        for _ in range(2)
    ]

    assert (early, late) == (0, [1, 0])
    assert (await account.peek()).state is PeriodState.CLOSING


async def _second_draft(account: Account) -> str:
    params = {"customer": account.customer, "metadata": {"gw_period": str(account.period)}}
    answer = await account.world.services.stripe.write(
        "/v1/invoices", params, key="spare", lane=Lane.SUPPORT
    )
    draft: str = answer.body["id"]
    return draft
