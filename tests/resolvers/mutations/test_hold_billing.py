"""`holdBilling`: holds on a customer's billing."""

from redis.asyncio import Redis

from billing.job_queue import QUEUE_NAME
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import HOLD, RELEASE, audit_entries, available_actions, draft_of


async def test_reason_accepts_every_script(api: ApiHarness) -> None:
    """Persian, Hebrew and composed emoji need invisible characters."""
    customer = await api.shop.customer()
    why = "\u0645\u06cc\u200c\u062e \u200f\u05e9\u05dc\u200e \U0001f468\u200d\U0001f467"

    placed = (await api.query(SUPPORT, HOLD, id=customer, why=why))["holdBilling"]

    assert (placed["hold"]["reason"], placed["errors"]) == (why, [])


async def test_hold_is_active_until_release(api: ApiHarness) -> None:
    """Placing and releasing are idempotent, and every call is in the audit log."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "2000000")

    placed = (await api.query(SUPPORT, HOLD, id=customer, why="disputed"))["holdBilling"]
    again = (await api.query(SUPPORT, HOLD, id=customer, why="disputed"))["holdBilling"]
    other = (await api.query(SUPPORT, HOLD, id=customer, why="another reason"))["holdBilling"]
    released = (await api.query(SUPPORT, RELEASE, id=customer, why="settled"))["releaseBilling"]
    nothing = (await api.query(SUPPORT, RELEASE, id=customer, why="twice"))["releaseBilling"]

    assert placed["hold"] == again["hold"]
    assert (placed["hold"]["reason"], placed["hold"]["by"]) == ("disputed", SUPPORT.subject)
    assert other["errors"][0]["code"] == "ON_HOLD"
    assert released["customer"] == nothing["customer"]
    assert released["customer"]["hold"] is None
    assert released["customer"]["currentPeriod"] == {"state": "OPEN"}
    log = await audit_entries(api, customer)
    assert [(entry["action"], entry["reason"], entry["outcome"]) for entry in log] == [
        ("releaseBilling", "twice", "DONE"),
        ("releaseBilling", "settled", "DONE"),
        ("holdBilling", "another reason", "REFUSED"),
        ("holdBilling", "disputed", "DONE"),
        ("holdBilling", "disputed", "DONE"),
    ]
    active = {"hold": f"disputed ({SUPPORT.subject})"}
    assert [(entry["detail"]["before"], entry["detail"]["after"]) for entry in log] == [
        ({"hold": None}, {"hold": None}),
        (active, {"hold": None}),
        (active, {}),
        (active, active),
        ({"hold": None}, active),
    ]
    assert log[2]["detail"]["refusal"] == "ON_HOLD"


async def test_hold_is_visible_in_period_sync_state_and_actions(api: ApiHarness) -> None:
    """The customer sees that billing is on hold; Support also sees the reason."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "2000000")
    await api.flush(customer)
    await api.query(SUPPORT, HOLD, id=customer, why="disputed")

    query = "query ($id: ID!) { customer(id: $id) { hold { reason } currentPeriod { state } syncState { status } } }"
    shown = (await api.query(SUPPORT, query, id=customer))["customer"]

    assert shown == {
        "hold": {"reason": "disputed"},
        "currentPeriod": {"state": "HELD"},
        "syncState": {"status": "HELD"},
    }
    assert await available_actions(api, await draft_of(api, customer)) == {
        "SYNC": ["ON_HOLD"],
        "ADJUST": [],
        "HOLD": ["ON_HOLD"],
        "RELEASE": [],
        "FINALIZE": ["PERIOD_OPEN", "ON_HOLD"],
    }


async def test_hold_enqueues_a_flush_of_every_unsealed_month(api: ApiHarness, redis: Redis) -> None:
    """Stripe's timer could finalize a draft, so each call has a worker switch it off."""
    customer = await api.shop.customer()
    await api.record_usage(customer)

    for _ in range(2):
        await api.query(SUPPORT, HOLD, id=customer, why="disputed")

    assert await redis.zcard(QUEUE_NAME) == 2
