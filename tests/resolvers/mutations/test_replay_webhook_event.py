"""`replayWebhookEvent`: events are processed again."""

from billing.events.effects import EventRef
from billing.events.records import EventStatus
from billing.usage import CustomerId
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import REPLAY, audit_entries


async def test_replay_queues_a_failed_event(api: ApiHarness) -> None:
    """A failed event is pending again; an unknown one is NOT_FOUND."""
    customer = await api.shop.customer()
    notice = EventRef("evt_1", "invoice.voided", "in_1", CustomerId(customer), invoice="in_1")
    await api.services.inbox.receive([notice])
    [bundle] = await api.services.inbox.claim(1)
    await api.services.inbox.complete(bundle, EventStatus.FAILED, "broken")

    replayed = (await api.query(SUPPORT, REPLAY, id="evt_1"))["replayWebhookEvent"]
    absent = (await api.query(SUPPORT, REPLAY, id="evt_absent"))["replayWebhookEvent"]

    assert replayed == {"event": {"id": "evt_1", "status": "PENDING"}, "errors": []}
    assert absent["errors"] == [{"code": "NOT_FOUND", "path": ["input", "eventId"]}]
    [entry] = await audit_entries(api, customer)
    assert entry["detail"]["before"] == {"event": "evt_1", "status": "FAILED", "failure": "broken"}


async def test_replay_without_customer_is_in_the_global_audit_log(api: ApiHarness) -> None:
    """An event about a price concerns no single customer."""
    await api.services.inbox.receive([EventRef("evt_1", "price.updated", "price_1")])
    query = "query { auditLog { nodes { by action reason outcome changes { what after } } } }"
    replay = REPLAY.replace("eventId: $id", 'eventId: $id, reason: "prices look old"')

    await api.query(SUPPORT, replay, id="evt_1")

    [entry] = (await api.query(SUPPORT, query))["auditLog"]["nodes"]
    assert (entry["by"], entry["action"], entry["reason"], entry["outcome"]) == (
        SUPPORT.subject,
        "replayWebhookEvent",
        "prices look old",
        "DONE",
    )
    assert {"what": "status", "after": "PENDING"} in entry["changes"]
