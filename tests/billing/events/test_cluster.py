"""The inbox on a cluster: all of its keys are in one slot."""

from redis.asyncio import RedisCluster

from billing.events import Inbox
from billing.events.effects import EventRef
from billing.events.records import EventStatus
from tests.billing.ledger.test_cluster import cluster  # noqa: F401 the fixture


async def test_inbox_works_on_a_cluster(cluster: RedisCluster) -> None:  # noqa: F811 the fixture
    """An event's whole life, a page and a trim: no script uses a key of another slot."""
    inbox = Inbox(cluster)
    refs = [EventRef(f"evt_{n}", "invoice.paid", f"in_{n}") for n in range(3)]
    assert await inbox.receive(refs) == [True, True, True]
    one, two, three = await inbox.claim(10)
    await inbox.complete(one, EventStatus.PROCESSED)
    await inbox.record_failure(two, "broken")
    await inbox.retry_later(three, "away", 1)
    await inbox.requeue(one.ids[0])
    await inbox.move_cursor("evt_1")

    assert await inbox.trim() == 0
    assert await inbox.cursor() == "evt_1"
    assert len((await inbox.page(10)).items) == 3
    assert [group.ids for group in await inbox.claim(10)] == [one.ids]
