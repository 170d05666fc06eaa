"""The audit log: an entry is written before its action and completed after it, through any crash."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from billing.audit import ActionIntent, ActionOutcome, AuditLog
from billing.errors import ErrorCode, Refused
from billing.usage import CustomerId

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
