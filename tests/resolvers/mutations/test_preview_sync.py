"""`previewSync`: the plan of a sync, with and without a correction."""

import json

from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import AUDIT, PREVIEW
from tests.support.stripe_sandbox import StripeSandbox


async def test_preview_lists_writes_without_writing(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """The plan names the lines and calls of the next sync, and Stripe receives none of them."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    first = (await api.query(SUPPORT, PREVIEW, id=customer))["previewSync"]["plan"]
    await api.flush(customer)
    await api.record_usage(customer, "1000000")
    await api.record_usage(customer, "4", sku="egress-gb")
    await sandbox.reset_counters()

    second = (await api.query(SUPPORT, PREVIEW, id=customer))["previewSync"]["plan"]

    assert (first["createsInvoice"], second["createsInvoice"]) == (True, False)
    assert second["linesUpdated"] == [
        {
            "sku": "machine-seconds",
            "quantity": "2000000",
            "wasQuantity": "1000000",
            "amount": {"amount": "62"},
        }
    ]
    assert second["linesAdded"] == [
        {"sku": "egress-gb", "quantity": "4", "wasQuantity": None, "amount": {"amount": "0.08"}}
    ]
    assert (second["stripeCalls"], (await sandbox.counters())["writes"]) == (2, 0)


async def test_preview_with_correction_shows_new_total(api: ApiHarness) -> None:
    """The plan contains the correction; the ledger does not."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "2000000")
    await api.flush(customer)
    query = """mutation ($id: ID!, $sku: String!, $q: Decimal = "-1000000") { previewSync(input: {customerId: $id}, correction: {sku: $sku, quantity: $q}) {
      plan { total { formatted } stripeCalls linesAdded { sku quantity amount { amount } } } errors { code path } } }"""

    shown = (await api.query(SUPPORT, query, id=customer, sku="machine-seconds"))["previewSync"]
    unknown = (await api.query(SUPPORT, query, id=customer, sku="unheard-of"))["previewSync"]
    vague = (await api.query(SUPPORT, query, id=customer, sku="machine-seconds", q="a few"))[
        "previewSync"
    ]

    assert shown["plan"] == {
        "total": {"formatted": "USD 31.00"},
        "stripeCalls": 1,
        "linesAdded": [
            {"sku": "machine-seconds", "quantity": "-1000000", "amount": {"amount": "-31"}}
        ],
    }
    assert unknown["errors"] == [{"code": "UNKNOWN_SKU", "path": ["correction", "sku"]}]
    assert vague["errors"] == [{"code": "INVALID_INPUT", "path": ["correction", "quantity"]}]
    assert (await api.query(SUPPORT, AUDIT, id=customer))["customer"]["adjustments"]["nodes"] == []


async def test_preview_warns_of_a_doubtful_correction(api: ApiHarness) -> None:
    """More than the month has, an item that it does not have, and money mistaken for a quantity."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "2000000")
    query = """mutation ($id: ID!, $sku: String!, $q: Decimal!) { previewSync(input: {customerId: $id},
      correction: {sku: $sku, quantity: $q}) { plan { warnings } } }"""

    async def warnings(sku: str, quantity: str) -> list[str]:
        shown = await api.query(SUPPORT, query, id=customer, sku=sku, q=quantity)
        found: list[str] = shown["previewSync"]["plan"]["warnings"]
        return found

    assert await warnings("machine-seconds", "-2000000") == []
    assert await warnings("machine-seconds", "0") == []
    log = "query ($id: ID!) { customer(id: $id) { auditLog(first: 1) { nodes { detail } } } }"
    [entry] = (await api.query(SUPPORT, log, id=customer))["customer"]["auditLog"]["nodes"]
    assert json.loads(entry["detail"])["after"]["correction"] is None
    assert await warnings("machine-seconds", "-2500000") == [
        "This takes off 2500000 of machine-seconds, and the month has 2000000.",
        "The month's total becomes negative.",
    ]
    assert await warnings("egress-gb", "-5") == ["The month has no usage of egress-gb."]
    assert await warnings("machine-seconds", "-20") == [
        "This comes to nothing: a quantity is in the unit of the price, USD 0.000031 each, and not in money."
    ]
