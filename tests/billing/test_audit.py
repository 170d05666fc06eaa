"""The audit log: written before the act and ended after, whatever dies in between."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from billing.audit import ActOutcome, AuditLog, Intent
from billing.errors import ErrorCode, Refused
from billing.usage import CustomerId

CUSTOMER = CustomerId("cus_Test1")
HOLD = Intent(CUSTOMER, "ann", "holdBilling", "Disputed", {"hold": None}, key="k1")


@pytest.fixture
def log(redis: Redis) -> AuditLog:
    """An empty log."""
    return AuditLog(redis)


async def test_an_act_shows_what_stood_before_and_after(log: AuditLog) -> None:
    """With who did it and why."""
    await log.finish(await log.begin(HOLD), {"hold": "Disputed (ann)"})

    [entry] = (await log.page(CUSTOMER, 10)).items
    assert (entry.by, entry.action, entry.reason) == ("ann", "holdBilling", "Disputed")
    assert (entry.before, entry.after) == ({"hold": None}, {"hold": "Disputed (ann)"})
    assert (entry.outcome, entry.refusal) == (ActOutcome.DONE, None)


async def test_an_act_that_was_interrupted_stands_in_the_log(log: AuditLog) -> None:
    """The process died, or Stripe never answered: that it was begun is known, and a retry ends it."""
    await log.begin(HOLD)

    [interrupted] = (await log.page(CUSTOMER, 10)).items
    assert interrupted.outcome is ActOutcome.UNKNOWN
    again = await log.begin(HOLD)
    assert (again.id, again.ended) == (interrupted.id, False)
    await log.finish(again, {"hold": "Disputed (ann)"})
    [ended] = (await log.page(CUSTOMER, 10)).items
    assert ended.outcome is ActOutcome.DONE


async def test_the_same_key_is_the_same_act(log: AuditLog) -> None:
    """Repeated it says that it is done; with other contents it is a mistake, and said."""
    first = await log.begin(HOLD)
    await log.finish(first, {"hold": "Disputed (ann)"})

    again = await log.begin(HOLD)
    await log.finish(again, {"hold": "changed"})
    for other in (replace(HOLD, reason="Fraud"), replace(HOLD, by="bob"), replace(HOLD, about="x")):
        with pytest.raises(Refused) as refused:
            await log.begin(other)
        assert refused.value.code is ErrorCode.IDEMPOTENCY_CONFLICT

    assert (again.id, again.ended) == (first.id, True)
    [entry] = (await log.page(CUSTOMER, 10)).items
    assert entry.after == {"hold": "Disputed (ann)"}


async def test_a_refused_act_is_written_down_and_leaves_its_key(log: AuditLog) -> None:
    """Whoever was refused corrects the request and sends it again."""
    await log.refuse(await log.begin(HOLD), "ON_HOLD")
    await log.finish(await log.begin(replace(HOLD, reason="Better")), {"hold": "Better (ann)"})

    newest, oldest = (await log.page(CUSTOMER, 10)).items
    assert (oldest.outcome, oldest.refusal, oldest.after) == (ActOutcome.REFUSED, "ON_HOLD", {})
    assert (newest.outcome, newest.reason) == (ActOutcome.DONE, "Better")


async def test_entries_come_newest_first_page_by_page(log: AuditLog) -> None:
    """And those of no customer stand by themselves."""
    for n in range(3):
        await log.begin(replace(HOLD, key=None, action=f"act{n}"))
    await log.begin(replace(HOLD, customer=None))

    first = await log.page(CUSTOMER, 2)
    second = await log.page(CUSTOMER, 2, first.items[-1].id)
    assert [each.action for each in (*first.items, *second.items)] == ["act2", "act1", "act0"]
    assert (first.has_more, second.has_more) == (True, False)
    assert (await log.page(CUSTOMER, 2, "nonsense")).items == ()
    assert [each.action for each in (await log.page(None, 10)).items] == ["holdBilling"]
