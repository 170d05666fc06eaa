"""`releaseBilling`: releases, retries and waiting holds."""

from billing.audit import ActionIntent
from billing.usage import CustomerId
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import HOLD, RELEASE, audit_entries


async def test_waiting_hold_becomes_active_on_release(api: ApiHarness) -> None:
    """The payload and the audit log show the hold that is active after the release."""
    customer = await api.shop.customer()
    await api.record_usage(customer)
    await api.query(SUPPORT, HOLD, id=customer, why="disputed")
    ledger = api.services.ledger
    await ledger.holds.place_once(
        CustomerId(customer), "Invoice in_1 was voided.", "gateway", "in_1"
    )

    released = (await api.query(SUPPORT, RELEASE, id=customer, why="settled"))["releaseBilling"]

    assert released["customer"]["hold"] == {"reason": "Invoice in_1 was voided."}
    [entry, _] = await audit_entries(api, customer)
    assert entry["detail"]["after"] == {"hold": "Invoice in_1 was voided. (gateway)"}


async def test_late_retry_does_not_override_a_later_hold(api: ApiHarness) -> None:
    """A release retried after a colleague placed a new hold leaves that hold active."""
    customer = await api.shop.customer()
    hold = HOLD.replace("reason: $why", 'reason: $why, idempotencyKey: "h1"')
    release = RELEASE.replace("reason: $why", 'reason: $why, idempotencyKey: "r1"')
    await api.query(SUPPORT, hold, id=customer, why="disputed")
    await api.query(SUPPORT, release, id=customer, why="settled")
    late_hold = (await api.query(SUPPORT, hold, id=customer, why="disputed"))["holdBilling"]
    await api.query(SUPPORT, HOLD, id=customer, why="disputed again")

    retried = (await api.query(SUPPORT, release, id=customer, why="settled"))["releaseBilling"]

    assert late_hold == {"hold": None, "errors": []}
    assert retried["customer"]["hold"] == {"reason": "disputed again"}
    assert len(await audit_entries(api, customer)) == 3


async def test_retry_of_an_interrupted_release_keeps_the_next_hold(api: ApiHarness) -> None:
    """The process died between the release and the end of its audit entry; the retry finds the waiting hold."""
    customer = CustomerId(await api.shop.customer())
    release = RELEASE.replace("reason: $why", 'reason: $why, idempotencyKey: "r1"')
    ledger, by = api.services.ledger, SUPPORT.subject
    await api.query(SUPPORT, HOLD, id=customer, why="disputed")
    await ledger.holds.place_once(customer, "Invoice in_1 was voided.", "gateway", "void of in_1")
    before = {"hold": f"disputed ({by})"}
    intent = ActionIntent(customer, by, "releaseBilling", "settled", before, idempotency_key="r1")
    await api.services.audit.begin(intent)
    await ledger.holds.release(customer, await ledger.holds.get(customer))

    retried = (await api.query(SUPPORT, release, id=customer, why="settled"))["releaseBilling"]

    waiting = {"hold": "Invoice in_1 was voided. (gateway)"}
    [released, _] = await audit_entries(api, customer)
    assert retried["customer"]["hold"] == {"reason": "Invoice in_1 was voided."}
    assert (released["detail"]["before"], released["detail"]["after"]) == (before, waiting)
