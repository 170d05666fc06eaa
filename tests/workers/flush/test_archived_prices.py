"""Usage counted at a price that was archived since: it is billed, exactly, and stops nothing else."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.budget import Lane
from billing.invoicing.amounts import compute_amounts, find_drift
from billing.invoicing.remote_invoice import RemoteInvoice
from billing.invoicing.snapshot import PeriodState
from billing.usage import CustomerId, Period, Price, UsageDelta
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import WebhookWorld
from workers.flush.flush import flush
from workers.flush.outcome import FlushOutcome

SKU = "egress-gb"


@pytest.fixture
async def account(world_without_webhooks: WebhookWorld) -> Account:
    """A customer whose last month can still be reported and billed."""
    services = world_without_webhooks.services
    customer = CustomerId(await world_without_webhooks.shop.customer())
    month = Period.containing(datetime.now(UTC)).previous()
    await record_usage(services, [delta(customer, "0", occurred_at=late(month))])
    return Account(world_without_webhooks, customer, month)


def late(month: Period) -> str:
    """The last minute of *month*."""
    return (month.end - timedelta(minutes=1)).isoformat()


async def use(account: Account, quantity: str, sku: str = SKU) -> None:
    """Record usage of the account's month."""
    await account.use(quantity, sku, occurred_at=late(account.period))


async def flushed(account: Account) -> dict[str, tuple[str, str, int]]:
    """Flush, and return each line at Stripe: words, quantity told, amount; the ledger agrees with them."""
    assert (await account.flush()).outcome is FlushOutcome.SYNCED
    body, lines = await stripe_invoice(account)
    snapshot = await account.snapshot()
    assert snapshot.up_to_date
    remote = RemoteInvoice.from_stripe(body, lines)
    prices = await account.world.services.price_catalog.by_id(snapshot.prices.values())
    assert find_drift(snapshot, remote, prices) == []
    amounts = compute_amounts(snapshot, prices)
    assert amounts.in_stripe == amounts.total
    assert sum(line["amount"] for line in lines) == body["total"]
    return {
        line["metadata"]["gw_line"]: (
            line["description"],
            line["metadata"]["gw_quantity"],
            line["amount"],
        )
        for line in lines
    }


async def stripe_invoice(account: Account) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the only invoice and its lines."""
    (body,) = await account.invoices()
    path = f"/v1/invoices/{body['id']}/lines"
    return body, await account.world.services.stripe.list_all(path, lane=Lane.SUPPORT)


async def seal(account: Account) -> None:
    """Close and bill the account's month to its end."""
    assert await account.world.services.ledger.periods.close(account.customer, account.period)
    for _ in range(3):
        await account.flush()
    assert (await account.snapshot()).state is PeriodState.SEALED


async def next_totals(account: Account) -> dict[str, Decimal]:
    """Return what the following month has to bill."""
    periods = account.world.services.ledger.periods
    return dict((await periods.snapshot(account.customer, account.period.next())).totals)


async def test_line_at_an_archived_price_goes_on_counting(account: Account) -> None:
    """An update that names no price changes the quantity alone; other SKUs are billed too."""
    await use(account, "5")
    await flushed(account)
    price = await account.world.shop.archive(SKU)
    await account.world.shop.sell(SKU, unit_amount_decimal="9")
    await use(account, "7")
    await use(account, "1000000", "machine-seconds")

    assert await flushed(account) == {
        SKU: ("egress gb", "12", 24),
        "machine-seconds": ("machine seconds", "1000000", 3100),
    }
    _, lines = await stripe_invoice(account)
    by_price = [line for line in lines if line["metadata"]["gw_line"] == SKU]
    assert [line["pricing"]["price_details"]["price"] for line in by_price] == [price]


async def test_usage_that_waited_while_its_price_was_archived_is_billed(account: Account) -> None:
    """Stripe takes no new line at such a price, so it is billed as an amount that says what it is for."""
    await use(account, "5")
    await account.world.shop.archive(SKU)

    assert await flushed(account) == {SKU: ("egress gb: 5", "5", 10)}
    await account.world.shop.sell(SKU, unit_amount_decimal="9")
    await use(account, "2.5")
    assert await flushed(account) == {SKU: ("egress gb: 7.5", "7.5", 15)}
    await seal(account)
    assert await next_totals(account) == {}


async def test_price_whose_archival_is_not_known_yet_stops_nothing(account: Account) -> None:
    """Stripe refuses it once, for a line or a new one; then prices are read again, whatever became of the event."""
    await use(account, "2")
    await flushed(account)
    services = account.world.services
    await use(account, "5")
    await use(account, "1000", "volume-hours")
    await use(account, "1000000", "machine-seconds")
    for sku, price in (await services.price_catalog.by_sku([SKU, "volume-hours"])).items():
        archived = {"active": False}
        path = f"/v1/prices/{price.id}"
        await services.stripe.write(path, archived, key=f"archive {sku}", lane=Lane.SUPPORT)
    await asyncio.sleep(1.1)  # prices are read again at most once a second

    assert await flushed(account) == {
        SKU: ("egress gb", "7", 14),
        "volume-hours": ("volume hours: 1000", "1000", 21),
        "machine-seconds": ("machine seconds", "1000000", 3100),
    }


async def test_reactivated_price_leaves_the_line_as_it_is(account: Account) -> None:
    """Its words and amount stay true, and the next month is billed by the price again."""
    await use(account, "5")
    price = await account.world.shop.archive(SKU)
    await flushed(account)
    await account.world.shop.update(f"prices/{price}", active=True)
    await use(account, "1")

    assert await flushed(account) == {SKU: ("egress gb: 6", "6", 12)}


async def test_credit_and_charge_alternate_at_an_archived_price(account: Account) -> None:
    """Each is an amount of its own; none is doubled."""
    await use(account, "5")
    await account.world.shop.archive(SKU)
    await flushed(account)
    await account.world.shop.sell(SKU)
    await use(account, "-8")
    assert await flushed(account) == {SKU: ("egress gb: credit for 3", "-3", -6)}
    await use(account, "4")
    assert await flushed(account) == {SKU: ("egress gb: 1", "1", 2)}


@pytest.mark.parametrize("edit", [{"amount": 1}, {"amount": 10, "description": "x"}])
async def test_amount_that_a_person_changed_is_restored(
    account: Account, edit: dict[str, Any]
) -> None:
    """A line by an amount is ours as long as it has the amount that we wrote."""
    await use(account, "5")
    await account.world.shop.archive(SKU)
    await flushed(account)
    body, [line] = await stripe_invoice(account)
    await account.world.sandbox.dashboard("edit_line", body["id"], line=line["id"], **edit)
    await account.world.services.ledger.periods.request_verify(account.customer, account.period)

    _, _, amount = (await flushed(account))[SKU]
    assert amount == 10


async def test_price_that_a_person_changed_is_replaced_by_an_amount(account: Account) -> None:
    """The line's own price is archived, so it is put there anew."""
    await use(account, "5")
    await flushed(account)
    await account.world.shop.archive(SKU)
    other = await account.world.shop.sell("other", unit_amount_decimal="7")
    body, [line] = await stripe_invoice(account)
    await account.world.sandbox.dashboard(
        "edit_line", body["id"], line=line["id"], pricing={"price": other}
    )
    await account.world.services.ledger.periods.request_verify(account.customer, account.period)

    assert await flushed(account) == {SKU: ("egress gb: 5", "5", 10)}
    _, [replaced] = await stripe_invoice(account)
    assert replaced["id"] != line["id"]


async def test_amount_changed_before_finalization_is_carried(account: Account) -> None:
    """The finalized invoice decides: what it billed too little is billed with the next month."""
    await use(account, "5")
    await account.world.shop.archive(SKU)
    await flushed(account)
    body, [line] = await stripe_invoice(account)
    sandbox = account.world.sandbox
    await sandbox.dashboard("edit_line", body["id"], line=line["id"], amount=4)
    await sandbox.dashboard("finalize", body["id"])
    await seal(account)

    assert await next_totals(account) == {f"{SKU}~{account.period}": Decimal(3)}


async def test_finalized_bill_is_sealed_after_its_price_was_archived(account: Account) -> None:
    """Nothing is owed, and nothing is given back."""
    await use(account, "5")
    await flushed(account)
    body, _ = await stripe_invoice(account)
    await account.world.sandbox.dashboard("finalize", body["id"])
    await account.world.shop.archive(SKU)
    await seal(account)

    assert await next_totals(account) == {}


async def test_late_usage_of_an_archived_price_is_billed_with_the_next_month(
    account: Account,
) -> None:
    """At the price that its SKU had in its own month, although that is sold no more."""
    await use(account, "5")
    await flushed(account)
    await seal(account)
    await account.world.shop.archive(SKU)
    await account.world.shop.sell(SKU, unit_amount_decimal="9")
    await account.use("3", SKU, occurred_at=late(account.period))
    await account.use("1", SKU)
    services, current = account.world.services, account.period.next()
    result = await flush(account.customer, current, account.context, lane=Lane.CUSTOMER)

    assert result.outcome is FlushOutcome.SYNCED
    snapshot = await services.ledger.periods.snapshot(account.customer, current)
    path = f"/v1/invoices/{snapshot.invoice}/lines"
    lines = await services.stripe.list_all(path, lane=Lane.SUPPORT)
    month = f"{account.period.start:%B %Y}"
    assert sorted((line["description"], line["amount"]) for line in lines) == [
        ("egress gb", 9),
        (f"egress gb (usage of {month}): 3", 6),
    ]


async def test_usage_at_a_price_of_an_archived_product_is_billed(account: Account) -> None:
    """Stripe takes no new line of such a product either."""
    await use(account, "5")
    price = (await account.world.services.price_catalog.by_sku([SKU]))[SKU].id
    body = await account.world.services.stripe.read(f"/v1/prices/{price}", lane=Lane.SUPPORT)
    await account.world.shop.update(f"products/{body['product']}", active=False)

    assert await flushed(account) == {SKU: ("egress gb: 5", "5", 10)}


async def test_usage_counted_at_a_plan_before_it_was_refused_is_billed(account: Account) -> None:
    """A ledger from before has it; it parks the month no longer."""
    plan = await account.world.shop.sell("plan", recurring={"interval": "month"})
    price = Price(plan, "plan", "usd", Decimal(2))
    moment = datetime.fromisoformat(late(account.period))
    counted = UsageDelta("old", account.customer, "plan", Decimal(4), moment)
    await account.world.services.ledger.usage.record([counted], {"plan": price})

    assert await flushed(account) == {"plan": ("plan: 4", "4", 8)}
