"""`repairDrift`: drift is listed and repaired."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing.usage import CustomerId, Period, Price, UsageDelta
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import (
    DRIFT,
    FINALIZE,
    REPAIR,
    audit_entries,
    available_actions,
    draft_of,
)
from tests.support.stripe_sandbox import StripeSandbox


async def test_repair_restores_an_edited_line(api: ApiHarness, sandbox: StripeSandbox) -> None:
    """A line edited in the Dashboard is listed as drift, and repaired; a line added by hand stays."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    await api.flush(customer)
    invoice = await draft_of(api, customer)
    body = await api.services.stripe.read(f"/v1/invoices/{invoice}", lane=api.lane)
    line = body["lines"]["data"][0]["id"]
    await sandbox.dashboard("edit_line", invoice, line=line, quantity_decimal="5")
    await sandbox.dashboard("add_line", invoice, amount=700, description="a favour")

    drift = (await api.query(SUPPORT, DRIFT, id=customer))["customer"]["drift"]["lines"]
    blocked = await available_actions(api, invoice)
    repaired = (await api.query(SUPPORT, REPAIR, id=customer, why="edited by mistake"))[
        "repairDrift"
    ]
    await api.flush(customer)
    after = (await api.query(SUPPORT, DRIFT, id=customer))["customer"]["drift"]["lines"]

    quantity = {
        "sku": "machine-seconds",
        "lineId": line,
        "kind": "QUANTITY",
        "expected": "1000000",
        "found": "5",
    }
    assert {key: drift[0][key] for key in quantity} == quantity
    assert blocked["FINALIZE"] == ["PERIOD_OPEN", "DRIFT"]
    assert repaired["errors"] == []
    assert [(line["sku"], line["kind"]) for line in after] == [(None, "EXTRA")]
    # A person's line is no drift of ours.
    assert (await available_actions(api, invoice))["FINALIZE"] == ["PERIOD_OPEN"]
    [entry] = await audit_entries(api, customer)
    assert entry["detail"]["before"]["machine-seconds"] == "QUANTITY"


async def test_amount_that_stripe_computes_otherwise_is_drift(api: ApiHarness) -> None:
    """Usage that an older version counted at a price of packages: the panel is wrong, and somebody must know."""
    customer = CustomerId(await api.shop.customer())
    await api.record_usage(customer)
    packages = {"divide_by": 1000, "round": "up"}
    await api.shop.sell("by-package", unit_amount_decimal="500", transform_quantity=packages)
    [listed] = await api.services.stripe.list_all(
        "/v1/prices", {"lookup_keys": ["by-package"]}, lane=api.lane
    )
    taken = Price(listed["id"], "by-package", "usd", Decimal(500))
    usage = UsageDelta("old", customer, "by-package", Decimal(2500), datetime.now(UTC))
    await api.services.ledger.usage.record([usage], {"by-package": taken})
    await api.flush(customer)

    [line] = (await api.query(SUPPORT, DRIFT, id=customer))["customer"]["drift"]["lines"]

    assert (line["sku"], line["kind"]) == ("by-package", "PRICE")
    assert line["expected"] == line["found"] == "2500"
    assert line["amount"]["amount"] == "-12485"


async def test_repair_covers_a_month_being_closed(api: ApiHarness, sandbox: StripeSandbox) -> None:
    """The draft of the month that has ended is the next to be finalized, so its drift is repaired too."""
    customer = CustomerId(await api.shop.customer())
    last_month = Period.containing(datetime.now(UTC)).previous()
    late = (last_month.end - timedelta(minutes=1)).isoformat()
    await api.record_usage(customer, "1000000", occurred_at=late)
    await api.flush(customer, last_month)
    snapshot = await api.services.ledger.periods.snapshot(customer, last_month)
    assert snapshot.invoice is not None
    [line] = snapshot.lines.values()
    await sandbox.dashboard("delete_line", snapshot.invoice, line=line.id)

    drift = (await api.query(SUPPORT, DRIFT, id=customer))["customer"]["drift"]["lines"]
    finalized = (await api.query(SUPPORT, FINALIZE, id=snapshot.invoice, why="now"))[
        "finalizeInvoice"
    ]
    await api.query(SUPPORT, REPAIR, id=customer, why="deleted by mistake")
    await api.flush(customer, last_month)
    after = (await api.query(SUPPORT, DRIFT, id=customer))["customer"]["drift"]["lines"]

    assert [(line["kind"], line["expected"], line["found"]) for line in drift] == [
        ("MISSING", "1000000", None)
    ]
    assert finalized["errors"][0]["code"] == "DRIFT"
    assert after == []
