"""The audit log: an entry is written before its action and completed after it, through any crash."""

import time
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from billing.audit import ActionIntent, ActionOutcome, AuditLog
from billing.errors import ErrorCode, LedgerUnavailable, Refused
from billing.ledger import keys
from billing.usage import CustomerId
from tests.support.wait import wait_until

CUSTOMER = CustomerId("cus_Test1")
HOLD = ActionIntent(
    CUSTOMER, "ann", "holdBilling", "Disputed", {"hold": None}, idempotency_key="k1"
)


@pytest.fixture
def log(redis: Redis) -> AuditLog:
    """An empty log."""
    return AuditLog(redis)


async def test_entry_shows_values_before_and_after(log: AuditLog) -> None:
    """With the actor and the reason."""
    await log.complete(await log.begin(HOLD), {"hold": "Disputed (ann)"})

    [entry] = (await log.page(CUSTOMER, 10)).items
    assert (entry.actor, entry.action, entry.reason) == ("ann", "holdBilling", "Disputed")
    assert (entry.before, entry.after) == ({"hold": None}, {"hold": "Disputed (ann)"})
    assert (entry.outcome, entry.refusal) == (ActionOutcome.DONE, None)


async def test_interrupted_action_has_an_entry(log: AuditLog) -> None:
    """The process died, or Stripe never answered: the start is recorded, and a retry completes it."""
    await log.begin(HOLD)

    [interrupted] = (await log.page(CUSTOMER, 10)).items
    assert interrupted.outcome is ActionOutcome.UNKNOWN
    repeated = await log.begin(HOLD)
    assert (repeated.id, repeated.completed) == (interrupted.id, False)
    await log.complete(repeated, {"hold": "Disputed (ann)"})
    [ended] = (await log.page(CUSTOMER, 10)).items
    assert ended.outcome is ActionOutcome.DONE


async def test_key_identifies_the_action(log: AuditLog) -> None:
    """A repetition is already completed; the same key with other contents is refused."""
    first = await log.begin(HOLD)
    await log.complete(first, {"hold": "Disputed (ann)"})

    repeated = await log.begin(HOLD)
    await log.complete(repeated, {"hold": "changed"})
    for other in (
        replace(HOLD, reason="Fraud"),
        replace(HOLD, actor="bob"),
        replace(HOLD, parameters="x"),
    ):
        with pytest.raises(Refused) as refused:
            await log.begin(other)
        assert refused.value.code is ErrorCode.IDEMPOTENCY_CONFLICT

    assert (repeated.id, repeated.completed) == (first.id, True)
    [entry] = (await log.page(CUSTOMER, 10)).items
    assert entry.after == {"hold": "Disputed (ann)"}


async def test_refused_action_is_recorded_and_frees_its_key(log: AuditLog) -> None:
    """The caller may correct the request and send it repeated."""
    await log.refuse(await log.begin(HOLD), "ON_HOLD")
    await log.complete(await log.begin(replace(HOLD, reason="Better")), {"hold": "Better (ann)"})

    newest, oldest = (await log.page(CUSTOMER, 10)).items
    assert (oldest.outcome, oldest.refusal, oldest.after) == (ActionOutcome.REFUSED, "ON_HOLD", {})
    assert (newest.outcome, newest.reason) == (ActionOutcome.DONE, "Better")


async def test_entries_are_paged_newest_first(log: AuditLog) -> None:
    """Entries without a customer are separate."""
    for n in range(3):
        await log.begin(replace(HOLD, idempotency_key=None, action=f"act{n}"))
    await log.begin(replace(HOLD, customer=None))

    first = await log.page(CUSTOMER, 2)
    second = await log.page(CUSTOMER, 2, first.items[-1].id)
    assert [entry.action for entry in (*first.items, *second.items)] == ["act2", "act1", "act0"]
    assert (first.has_more, second.has_more) == (True, False)
    assert (await log.page(CUSTOMER, 2, "nonsense")).items == ()
    assert [entry.action for entry in (await log.page(None, 10)).items] == ["holdBilling"]


async def test_entries_older_than_the_retention_are_removed(log: AuditLog, redis: Redis) -> None:
    """With their outcomes and keys, of every customer and of none; an entry at the limit stays."""
    old = [
        await log.begin(replace(HOLD, customer=customer, idempotency_key="old"))
        for customer in (CUSTOMER, CustomerId("cus_Test2"), None)
    ]
    for entry in old:
        await log.complete(entry, {"hold": None})
    limit = max(int(entry.id.partition("-")[0]) for entry in old) + 1
    await wait_until(lambda: time.time() * 1000 > limit + 1, "a later millisecond")
    newer = await log.begin(replace(HOLD, idempotency_key="new"))
    await log.complete(newer, {"hold": "Disputed (ann)"})

    assert await log.trim(limit) == 3
    assert await log.trim(limit) == 0

    [entry] = (await log.page(CUSTOMER, 10)).items
    assert (entry.id, entry.outcome) == (newer.id, ActionOutcome.DONE)
    assert sorted(await redis.hkeys(keys.audit_keys(CUSTOMER))) == [b"new"]
    assert await redis.hkeys(keys.audit_ends(CUSTOMER)) == [newer.id.encode()]
    assert (await log.page(None, 10)).items == ()
    assert not (await log.begin(replace(HOLD, idempotency_key="old"))).completed


async def test_entry_of_the_very_millisecond_of_the_limit_keeps_its_outcome(log: AuditLog) -> None:
    """It is not old, and neither are its outcome and its key."""
    started = await log.begin(HOLD)
    await log.complete(started, {"hold": "Disputed (ann)"})

    assert await log.trim(int(started.id.partition("-")[0])) == 0

    [entry] = (await log.page(CUSTOMER, 10)).items
    assert entry.outcome is ActionOutcome.DONE
    assert (await log.begin(HOLD)).completed


async def test_erasure_that_cannot_read_a_value_removes_no_entry(
    log: AuditLog, redis: Redis
) -> None:
    """The log is written again only once all of it was read."""
    await log.complete(await log.begin(HOLD), {"hold": "Disputed (ann)"})
    last = await log.begin(replace(HOLD, idempotency_key="k2"))
    await redis.hset(keys.audit_ends(CUSTOMER), last.id, "no JSON")

    with pytest.raises(LedgerUnavailable):
        await log.erase(await log.begin(replace(HOLD, idempotency_key="k3")), CUSTOMER)

    assert await redis.xlen(keys.audit(CUSTOMER)) == 3
