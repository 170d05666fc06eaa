"""A customer that was deleted at Stripe: usage that cannot be billed waits for a person, without noise."""

from datetime import UTC, datetime, timedelta

import pytest

from billing.budget import Lane
from billing.errors import ErrorCode, StripeRejected
from billing.invoicing.request_batch import RequestKind, StripeRequest
from billing.invoicing.snapshot import PeriodState
from billing.ledger.keys import shard_of
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import WebhookWorld
from workers.flush.deleted_customer import is_customer_deleted
from workers.flush.execution import FlushExecution
from workers.flush.outcome import FlushOutcome

CREATE = "POST /v1/invoices"


def late(month: Period) -> str:
    """A moment of *month* from which usage is still accepted."""
    return (month.end - timedelta(seconds=1)).isoformat()


async def account_with_usage(world: WebhookWorld, quantity: str = "500") -> Account:
    """Return a new customer with usage of last month that Stripe does not have yet."""
    customer = CustomerId(await world.shop.customer())
    account = Account(world, customer, Period.containing(datetime.now(UTC)).previous())
    await account.use(quantity, occurred_at=late(account.period))
    return account


async def delete_customer(account: Account) -> None:
    """Delete the customer as a person in the Dashboard does."""
    path = f"/v1/customers/{account.customer}"
    request = StripeRequest(RequestKind.DELETE, "DELETE", path, {}, f"delete {account.customer}")
    await account.world.services.stripe.send(request, lane=Lane.SUPPORT)
    await account.world.services.cache.invalidate(account.customer)


async def close(account: Account) -> None:
    """Close the period for usage."""
    assert await account.world.services.ledger.periods.close(account.customer, account.period)


async def due_at(account: Account) -> int | None:
    """Return the time (ms) of the next flush."""
    return await account.world.services.ledger.due.time_ms(account.customer, account.period)


async def test_unbillable_usage_is_parked_without_retries(
    world_without_webhooks: WebhookWorld,
) -> None:
    """The failure is typed and says what is unbilled; only a person's act makes the period due again."""
    account = await account_with_usage(world_without_webhooks)
    await delete_customer(account)
    await close(account)
    result = await account.flush()

    assert result.outcome is FlushOutcome.PARKED
    assert result.failure is not None
    assert result.failure.code == "customer_deleted"
    assert "USD 10.00" in result.failure.message
    assert "egress-gb 500" in result.failure.message
    assert await due_at(account) is None
    assert (await account.snapshot()).parked_reason == "customer_deleted"
    calls = await account.calls(CREATE)
    await account.world.services.ledger.due.wake(account.customer, account.period)
    assert (await account.flush()).outcome is FlushOutcome.PARKED
    assert await account.calls(CREATE) == calls  # known from the first time on


async def test_deleted_customer_hides_no_other_from_alerts(
    world_without_webhooks: WebhookWorld,
) -> None:
    """What a person has to write off is counted apart from what Stripe refuses and what is late."""
    account = await account_with_usage(world_without_webhooks)
    await delete_customer(account)
    due = account.world.services.ledger.due
    shard = shard_of(account.customer)
    await account.flush()
    backlog = (await due.backlogs())[shard]
    assert (backlog.parked, backlog.unsynced_ms, backlog.unbillable) == (0, None, 1)

    await due.wake_parked()
    assert await due_at(account) is None
    await due.wake(account.customer, account.period)
    assert (await due.backlogs())[shard].unbillable == 0


async def test_usage_that_was_written_off_ends_the_period(
    world_without_webhooks: WebhookWorld,
) -> None:
    """Nothing is owed: it is sealed, carries nothing on and makes no invoice."""
    account = await account_with_usage(world_without_webhooks)
    await delete_customer(account)
    await account.world.services.ledger.usage.record_deletion(account.customer)
    await close(account)
    assert (await account.flush()).outcome is FlushOutcome.PARKED
    await account.adjust("-500", "write off", account.period)
    assert (await account.flush()).outcome is FlushOutcome.SEALED

    ledger = account.world.services.ledger
    following = await ledger.periods.snapshot(account.customer, account.period.next())
    assert following.totals == {}
    assert await account.invoices() == []
    assert (await ledger.due.backlogs())[shard_of(account.customer)].unbillable == 0


async def test_zero_draft_of_a_deleted_customer_is_deleted(
    world_without_webhooks: WebhookWorld,
) -> None:
    """Lines that cancel each other out are no bill for somebody who has gone."""
    account = await account_with_usage(world_without_webhooks)
    await account.flush()
    await delete_customer(account)
    await account.world.services.ledger.usage.record_deletion(account.customer)
    await account.adjust("-500", "write off", account.period)
    await close(account)

    assert (await account.flush()).outcome is FlushOutcome.SEALED
    assert await account.invoices() == []


async def test_draft_of_a_deleted_customer_is_still_billed(
    world_without_webhooks: WebhookWorld,
) -> None:
    """Stripe lets us finalize it, so the period ends as any other."""
    account = await account_with_usage(world_without_webhooks)
    await account.flush()
    await delete_customer(account)
    await close(account)

    assert (await account.flush()).outcome is FlushOutcome.SEALED
    assert [invoice["total"] for invoice in await account.invoices()] == [1000]


@pytest.mark.parametrize(
    ("code", "param", "unbillable"),
    [
        ("resource_missing", "customer", True),
        ("resource_missing", "lines[0][pricing][price]", False),
        ("resource_missing", None, False),
        ("invoice_not_editable", None, False),
    ],
)
async def test_only_a_refusal_that_blames_the_customer_is_unbillable(
    world_without_webhooks: WebhookWorld, code: str, param: str | None, unbillable: bool
) -> None:
    """What else Stripe refuses of the draft of a deleted customer can be cured like anybody's."""
    account = await account_with_usage(world_without_webhooks)
    await account.world.services.ledger.usage.record_deletion(account.customer)
    leases = account.world.services.ledger.leases
    leased = await leases.acquire(account.customer, account.period)
    assert leased is not None
    execution = FlushExecution(account.context, leased.lease, leased.snapshot, Lane.SUPPORT, 0)
    error = StripeRejected("No.", status=400, stripe_code=code, param=param)

    assert await is_customer_deleted(execution, error) is unbillable


@pytest.mark.parametrize("source", ["event", "flush"])
async def test_deleted_customer_accepts_no_usage(world: WebhookWorld, source: str) -> None:
    """A typed rejection from then on; what was counted before is still recognised as a duplicate."""
    account = await account_with_usage(world)
    counted = delta(account.customer, "1", "egress-gb")
    assert (await record_usage(world.services, [counted])).accepted == 1
    await delete_customer(account)
    if source == "event":
        await world.wait_delivered()
    else:
        await account.flush()
    report = await record_usage(
        world.services, [counted, delta(account.customer, "1", "egress-gb")]
    )

    assert (report.accepted, report.duplicates) == (0, 1)
    (rejection,) = report.rejected
    assert rejection.error.code is ErrorCode.NOT_FOUND
    assert "deleted" in rejection.error.message
    assert (await account.snapshot()).state is PeriodState.OPEN


async def test_missing_customer_that_was_not_deleted_is_tried_again(
    world_without_webhooks: WebhookWorld,
) -> None:
    """Such as one of another account, under a wrong key: it is no reason to stop counting."""
    account = await account_with_usage(world_without_webhooks)
    await account.world.sandbox.reset()
    await account.world.shop.open()
    result = await account.flush()

    assert result.outcome is FlushOutcome.PARKED
    assert result.failure is not None
    assert result.failure.code != "customer_deleted"
    assert await due_at(account) is not None
