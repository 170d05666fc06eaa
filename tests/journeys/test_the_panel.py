"""A read right after a change shows the new state, without a pause or a reload."""

from decimal import Decimal

import pytest

from billing.services import Services
from tests.support.queries import PERIOD, SYNC, current_period, synced
from tests.support.stripe_catalog import Shop, delta
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import System
from tests.support.wait import wait_until

RECORD = """mutation Record($deltas: [UsageDeltaInput!]!) { recordUsage(input: {deltas: $deltas}) {
  accepted duplicates durability ledgerEpoch errors { code } rejected { id error { code message path } } } }"""
PORTAL = """mutation Portal($id: ID!) { createPortalSession(input: {customerId: $id, returnUrl: "https://fly.io/billing"}) {
  url sync { status } errors { code message } } }"""
INVOICE = """query Invoice($id: ID!) { invoice(id: $id) { status total { amount } hostedInvoiceUrl lines { nodes { sku amount { amount } } } } }"""


@pytest.fixture
async def shop(services: Services) -> Shop:
    """Three prices in Stripe."""
    opened = Shop(services)
    await opened.open()
    return opened


async def record(system: System, customer: str, quantity: str, sku: str = "egress-gb") -> None:
    """Report usage as a metering service does."""
    raw = delta(customer, quantity, sku)
    given = {
        "id": raw.id,
        "customerId": raw.customer_id,
        "sku": raw.sku,
        "quantity": raw.quantity,
        "occurredAt": raw.occurred_at,
    }
    async with system.caller("metering") as metering:
        report = (await metering.execute(RECORD, deltas=[given]))["recordUsage"]
        assert report["accepted"] == 1, report


@pytest.mark.usefixtures("both_executors")
async def test_panel_shows_new_amounts_after_sync(system: System, shop: Shop) -> None:
    """A finished sync must never be followed by the old amounts."""
    customer = await shop.customer()
    async with system.caller("customer", customer) as panel:
        for expected in (100, 200, 300):
            await record(system, customer, "5000")
            await synced(panel, customer)
            after = await current_period(panel, customer)
            invoices = (await panel.execute(PERIOD, id=customer))["customer"]["invoices"]["nodes"]

            assert after["total"] == after["inStripe"] == expected
            assert [Decimal(invoice["total"]["amount"]) for invoice in invoices] == [expected]


async def test_panel_shows_change_announced_by_webhook(
    system: System,
    shop: Shop,
    sandbox: StripeSandbox,
) -> None:
    """A person finalizes in the Dashboard; the next read shows a payable invoice."""
    customer = await shop.customer()
    await record(system, customer, "5000")
    async with system.caller("customer", customer) as panel:
        await synced(panel, customer)
        invoice = (await panel.execute(PERIOD, id=customer))["customer"]["currentPeriod"][
            "invoice"
        ]["id"]
        assert (await panel.execute(INVOICE, id=invoice))["invoice"]["status"] == "DRAFT"

        await sandbox.dashboard("finalize", invoice)
        await sandbox.drain_webhooks()
        found = (await panel.execute(INVOICE, id=invoice))["invoice"]

    assert found["status"] == "OPEN"
    assert found["hostedInvoiceUrl"].startswith(sandbox.url)


async def test_usage_after_manual_finalization_is_billed_next(
    system: System,
    shop: Shop,
    sandbox: StripeSandbox,
    services: Services,
) -> None:
    """Unbilled usage is carried forward: 100 dollars billed, 30 on the next draft."""
    customer = await shop.customer()
    await record(system, customer, "5000")
    async with system.caller("support") as support:
        await synced(support, customer)
        first = (await support.execute(PERIOD, id=customer))["customer"]["currentPeriod"][
            "invoice"
        ]["id"]
        await sandbox.dashboard("finalize", first)
        await record(system, customer, "1500")
        await support.execute(SYNC, id=customer)

        async def carried() -> bool:
            drafts = await services.stripe.list_all(
                "/v1/invoices", {"customer": customer}, lane="customer"
            )
            return sorted(draft["total"] for draft in drafts) == [3000, 10000]

        await wait_until(carried, "the rest stands on a draft of its own", seconds=60)


async def test_portal_link_follows_a_sync(
    system: System,
    shop: Shop,
    services: Services,
) -> None:
    """The portal shows Stripe's data, so usage is synced before the link is returned."""
    customer = await shop.customer()
    await record(system, customer, "5000")
    async with system.caller("customer", customer) as panel:
        answer = (await panel.execute(PORTAL, id=customer))["createPortalSession"]
    drafts = await services.stripe.list_all("/v1/invoices", {"customer": customer}, lane="customer")

    assert answer["errors"] == []
    assert answer["sync"]["status"] == "SUCCEEDED"
    assert answer["url"].startswith(services.settings.stripe_api_base)
    assert [draft["total"] for draft in drafts] == [10000]


async def test_foreign_customer_looks_like_an_unknown_one(system: System, shop: Shop) -> None:
    """Every field answers the same for both."""
    mine, other = await shop.customer("mine"), await shop.customer("other")
    await record(system, other, "5000")
    async with system.caller("support") as support:
        await synced(support, other)
        foreign = (await support.execute(PERIOD, id=other))["customer"]["currentPeriod"]["invoice"][
            "id"
        ]
    document = """query Spy($a: ID!, $b: ID!) { a: customer(id: $a) { id } b: customer(id: $b) { id } node(id: $a) { id } invoice(id: $b) { id } }"""
    async with system.caller("customer", mine) as panel:
        theirs = await panel.execute(document, a=other, b=foreign)
        nobodys = await panel.execute(document, a="cus_nobody", b="in_nobody")
        refused = (await panel.execute(SYNC, id=other))["syncBilling"]["errors"]
        unknown = (await panel.execute(SYNC, id="cus_nobody"))["syncBilling"]["errors"]

    assert theirs == nobodys == {"a": None, "b": None, "node": None, "invoice": None}
    assert (
        [error["code"] for error in refused]
        == [error["code"] for error in unknown]
        == ["NOT_FOUND"]
    )
