"""Erasure of the person behind a customer: nothing personal is left, and no amount is lost."""

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from billing.audit import ActionIntent, ActionOutcome, AuditLog
from billing.audit.log import ERASED
from billing.cache import Cache, entries, open_cache
from billing.cache.entries import CacheEntry
from billing.erasure import erase_customer
from billing.errors import ErrorCode, Refused, Unavailable
from billing.ledger import Ledger, NewAdjustment
from billing.ledger.syncs import SyncFailure, SyncOutcome, SyncStatus, SyncTrigger
from tests.support.ledger import (
    CUSTOMER,
    NOVEMBER,
    PRICES,
    Clock,
    acquire_lease,
    commit_all,
    delta,
    open_ledger,
    outcomes,
)
from tests.support.ledger_command import run_command

SECRETS = ("Mary", "mary-blog", "mary-org", "lhr")
ADJUSTMENT = NewAdjustment(CUSTOMER, "cpu", Decimal(-1), "Mary called", "agent-7", "k1")


@pytest.fixture
async def cache(redis_url: str) -> AsyncIterator[Cache]:
    """The gateways' cache."""
    async with open_cache(redis_url) as opened:
        yield opened


@pytest.fixture
def audit(redis: Redis) -> AuditLog:
    """The audit log."""
    return AuditLog(redis)


@pytest.fixture
async def ledger(redis: Redis, audit: AuditLog) -> Ledger:
    """A ledger with usage of Mary's in November, a correction, a hold that was released, and a failed sync."""
    ledger = await open_ledger(redis, Clock())
    reported = delta("a", "1.5", app="mary-blog", region="lhr", organization="mary-org")
    await outcomes(ledger, reported)
    await ledger.adjustments.create(ADJUSTMENT, PRICES["cpu"])
    intent = ActionIntent(
        CUSTOMER, "agent-7", "holdBilling", "Mary disputes", {"hold": None, "total": "USD 31.00"}
    )
    started = await audit.begin(intent)
    hold = await ledger.holds.place(CUSTOMER, "Mary disputes", "agent-7")
    await audit.complete(started, {"hold": "Mary disputes (agent-7)", "total": "USD 30.00"})
    await audit.refuse(await audit.begin(intent), "ON_HOLD")
    await ledger.holds.release(CUSTOMER, hold)
    return ledger


async def bill_november(ledger: Ledger) -> None:
    """Let a flush fail, then bill the month for good."""
    await ledger.syncs.request(CUSTOMER, SyncTrigger.ON_DEMAND, by="agent-7")
    leased = await acquire_lease(ledger)
    failure = SyncFailure("STRIPE_REJECTED", "Mary <mary@example.com> cannot be billed", None)
    result = SyncOutcome(SyncStatus.FAILED, failure=failure)
    await ledger.leases.release(leased.lease, sync=result)
    assert await ledger.periods.close(CUSTOMER, NOVEMBER)
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    version = leased.snapshot.version
    assert await ledger.periods.seal(leased.lease, version=version, residuals={})


async def content(redis: Redis) -> str:
    """Everything that the server holds under a key of the customer's, as text."""
    texts = []
    async for key in redis.scan_iter(match=f"{{b*}}:{CUSTOMER}*"):
        kind = await redis.type(key)
        if kind == b"hash":
            texts.append(await redis.hgetall(key))
        elif kind == b"stream":
            texts.append(await redis.xrange(key))
        elif kind == b"list":
            texts.append(await redis.lrange(key, 0, -1))
    return str(texts)


async def test_texts_and_breakdowns_go_and_amounts_stay(
    ledger: Ledger, audit: AuditLog, cache: Cache, redis: Redis
) -> None:
    """Accounting needs what was billed and who decided what; nobody needs whose blog it was."""
    await bill_november(ledger)
    found = await content(redis)
    assert [secret for secret in SECRETS if secret not in found] == []
    before = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)

    await erase_customer(ledger, audit, cache, CUSTOMER, "request 17")

    found = await content(redis)
    assert [secret for secret in SECRETS if secret in found] == []
    after = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    assert (after.totals, after.lines, after.invoice) == (
        before.totals,
        before.lines,
        before.invoice,
    )
    [adjustment] = (await ledger.adjustments.page(CUSTOMER, 10)).items
    assert (adjustment.quantity, adjustment.reason, adjustment.by) == (-1, ERASED, "agent-7")
    erasure, refused, placed = (await audit.page(CUSTOMER, 10)).items
    assert (erasure.action, erasure.reason) == ("eraseCustomer", "request 17")
    assert erasure.outcome is ActionOutcome.DONE
    assert (refused.refusal, refused.reason) == ("ON_HOLD", ERASED)
    assert (placed.actor, placed.reason, placed.outcome) == ("agent-7", ERASED, ActionOutcome.DONE)
    assert placed.before == {"hold": None, "total": "USD 31.00"}
    assert placed.after == {"hold": ERASED, "total": "USD 30.00"}


async def test_erasure_can_be_repeated(
    ledger: Ledger, audit: AuditLog, cache: Cache, redis: Redis
) -> None:
    """Each has its own entry, and a correction sent again under its key is no new one."""
    await bill_november(ledger)
    for number in (1, 2):
        await erase_customer(ledger, audit, cache, CUSTOMER, f"request {number}")

    second, first, *_ = (await audit.page(CUSTOMER, 10)).items
    assert (second.reason, first.reason) == ("request 2", ERASED)
    with pytest.raises(Refused) as refused:
        await ledger.adjustments.create(ADJUSTMENT, PRICES["cpu"])
    assert refused.value.code is ErrorCode.IDEMPOTENCY_CONFLICT


async def test_cached_names_are_not_shown_again(
    ledger: Ledger, audit: AuditLog, cache: Cache
) -> None:
    """Stripe is read again, in every process."""
    await bill_november(ledger)
    entry, reads = CacheEntry(f"customer:{CUSTOMER}", (CUSTOMER,)), 0

    async def load() -> str:
        nonlocal reads
        reads += 1
        return f"Mary {reads}"

    for _ in range(2):
        assert (await cache.fetch(entry, load, type_=str)).value == "Mary 1"
    await erase_customer(ledger, audit, cache, CUSTOMER, "request 17")

    assert (await cache.fetch(entry, load, type_=str)).value == "Mary 2"


async def test_erased_name_is_not_shown_while_stripe_is_down(
    ledger: Ledger, audit: AuditLog, cache: Cache
) -> None:
    """Neither the customer nor a list of customers has a last known value from before."""
    await bill_november(ledger)
    cached = [
        CacheEntry(f"customer:{CUSTOMER}", (CUSTOMER, entries.ANY_CUSTOMER)),
        CacheEntry("customers:1", (entries.CUSTOMERS,)),
    ]

    async def load() -> str:
        return "Mary"

    async def fail() -> str:
        raise Unavailable("Stripe is down.")

    for entry in cached:
        await cache.fetch(entry, load, type_=str)
    await erase_customer(ledger, audit, cache, CUSTOMER, "request 17")

    for entry in cached:
        with pytest.raises(Unavailable):
            await cache.fetch(entry, fail, type_=str)


async def test_erasure_waits_for_the_bill(
    ledger: Ledger, audit: AuditLog, cache: Cache, redis: Redis
) -> None:
    """Usage that is not billed can still be disputed, and a hold says that somebody is looking at it."""
    with pytest.raises(Refused, match="2026-11 is not billed"):
        await erase_customer(ledger, audit, cache, CUSTOMER, "request 17")
    await ledger.holds.place(CUSTOMER, "Mary disputes", "agent-7")
    with pytest.raises(Refused, match="release it first"):
        await erase_customer(ledger, audit, cache, CUSTOMER, "request 17")

    found = await content(redis)
    assert [secret for secret in SECRETS if secret not in found] == []
    attempts = (await audit.page(CUSTOMER, 2)).items
    assert [entry.outcome for entry in attempts] == [ActionOutcome.REFUSED] * 2


async def test_command_erases_or_says_why_not(redis_url: str, ledger: Ledger) -> None:
    """It needs a reason for the audit log."""
    reason = ("--reason", "request 17")
    status, output = await run_command(redis_url, "erase", CUSTOMER, *reason)
    assert (status, "Nothing was erased. Usage of 2026-11 is not billed" in output) == (1, True)

    await bill_november(ledger)
    status, output = await run_command(redis_url, "erase", CUSTOMER, *reason)
    assert (status, f"behind {CUSTOMER} is erased" in output) == (0, True)
    assert (await run_command(redis_url, "erase", CUSTOMER))[0] == 2


async def test_command_does_not_claim_to_have_erased_a_mistyped_customer(
    redis: Redis, redis_url: str, ledger: Ledger
) -> None:
    """An operator who mistypes an id must not believe that the person is erased; nothing is written for it."""
    before = await redis.dbsize()
    for _ in range(2):
        status, output = await run_command(redis_url, "erase", "cus_Nobody", "--reason", "17")
        assert (status, "knows no customer cus_Nobody" in output) == (1, True)
    for mistyped in ("in_1", "cus_", "cus_a b"):
        assert (await run_command(redis_url, "erase", mistyped, "--reason", "17"))[0] == 2
    assert await redis.dbsize() == before
