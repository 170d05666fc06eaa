"""The panel of a customer whose prices were archived, renamed, or deleted at Stripe."""

from datetime import UTC, datetime
from typing import Any

import pytest

from billing.stripe.price_catalog import PriceMissing
from billing.usage import CustomerId, Period
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import ADJUST, DRIFT, PREVIEW, last_month_draft
from tests.support.stripe_sandbox import StripeSandbox

SKU = "machine-seconds"
PANEL = """query ($id: ID!, $month: String!) { customer(id: $id) {
  currentPeriod { total { formatted } usage { key description unit amount { formatted } } }
  period(month: $month) { state total { formatted } usage(by: APP) { amount { formatted } } }
  adjustments { nodes { id sku amount { formatted } } } } }"""
NODE = """query ($id: ID!) { node(id: $id) { ... on Adjustment { sku amount { formatted } } } }"""


@pytest.fixture
async def billed(api: ApiHarness) -> tuple[str, Period]:
    """A customer with a sealed last month, a correction and usage of this month, all of one SKU."""
    customer, last_month, _ = await last_month_draft(api)
    await api.services.ledger.periods.close(customer, last_month)
    await api.flush(customer, last_month)
    await api.record_usage(customer, "2000000", sku=SKU)
    await api.query(SUPPORT, ADJUST, id=customer, sku=SKU, q="-1000000", why="w", key="k")
    await api.flush(customer)
    return customer, last_month


async def panel(api: ApiHarness, customer: str, month: Period) -> dict[str, Any]:
    """Return everything that a panel shows of prices."""
    shown = await api.query(SUPPORT, PANEL, id=customer, month=str(month))
    return dict(shown["customer"])


async def test_archiving_a_price_does_not_change_the_panel(
    api: ApiHarness, billed: tuple[str, Period]
) -> None:
    """This month, the sealed one, and the corrections for ever."""
    before = await panel(api, *billed)
    assert before["currentPeriod"]["total"] == {"formatted": "USD 31.00"}
    assert before["period"] == {
        "state": "CLOSED",
        "total": {"formatted": "USD 31.00"},
        "usage": [{"amount": {"formatted": "USD 31.00"}}],
    }
    await api.shop.archive(SKU)

    assert await panel(api, *billed) == before
    adjustment = before["adjustments"]["nodes"][0]
    found = (await api.query(SUPPORT, NODE, id=adjustment["id"]))["node"]
    assert found == {"sku": SKU, "amount": {"formatted": "USD -31.00"}}
    assert (await api.query(SUPPORT, DRIFT, id=billed[0]))["customer"]["drift"]["lines"] == []
    planned = (await api.query(SUPPORT, PREVIEW, id=billed[0]))["previewSync"]
    assert (planned["errors"], planned["plan"]["stripeCalls"]) == ([], 0)


async def test_panel_reads_an_archived_price_once(
    api: ApiHarness, billed: tuple[str, Period], sandbox: StripeSandbox
) -> None:
    """Stripe rations reads; a thousand panels of a day need the same price."""
    await api.shop.archive(SKU)
    await sandbox.reset_counters()
    for _ in range(3):
        await panel(api, *billed)

    assert await sandbox.calls("GET /v1/prices/{price}") == 1
    assert await sandbox.calls("GET /v1/prices") == 1


async def test_price_unknown_to_stripe_is_a_typed_error(
    api: ApiHarness, billed: tuple[str, Period], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A price that was deleted there: the error names it, in every field that needs it."""
    customer, month = billed
    [price] = {
        price
        for period in (month, Period.containing(datetime.now(UTC)))
        for price in (
            await api.services.ledger.periods.snapshot(CustomerId(customer), period)
        ).prices.values()
    }

    async def none(ids: object) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(api.services.price_catalog, "by_id", none)
    result = await api.execute(SUPPORT, PANEL, id=customer, month=str(month))

    assert result.errors
    for error in result.errors:
        assert isinstance(error.original_error, PriceMissing)
        assert price in error.original_error.message
