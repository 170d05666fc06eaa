"""The inbox on a cluster: all of its keys are in one slot."""

from redis.asyncio import RedisCluster

from billing.events import Inbox
from billing.events.effects import Notice
from billing.events.events import EventStatus
from tests.billing.ledger.test_cluster import cluster  # noqa: F401 the fixture


async def test_the_inbox_works_on_a_cluster(cluster: RedisCluster) -> None:  # noqa: F811 the fixture
    """An event's whole life, a page and a trim: no script leaves its slot."""
    inbox = Inbox(cluster)
    notices = [Notice(f"evt_{n}", "invoice.paid", f"in_{n}") for n in range(3)]
    assert await inbox.receive(notices) == [True, True, True]
    one, two, three = await inbox.claim(10)
    await inbox.settle(one, EventStatus.PROCESSED)
    await inbox.strike(two, "broken")
    await inbox.postpone(three, "away", 1)
    await inbox.requeue(one.ids[0])
    await inbox.move_cursor("evt_1")

    assert await inbox.trim() == 0
    assert await inbox.cursor() == "evt_1"
    assert len((await inbox.page(10)).items) == 3
    assert [each.ids for each in await inbox.claim(10)] == [one.ids]
