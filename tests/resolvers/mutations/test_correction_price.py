"""The price of a correction: that of the usage it corrects, in `adjustUsage` and `previewSync` alike."""

from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from billing.services import Services
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import ADJUST, HOLD, closing_draft, draft_of, last_month_draft

PREVIEW = """mutation ($id: ID!, $sku: String!, $q: Decimal!, $month: String) {
  previewSync(input: {customerId: $id}, correction: {sku: $sku, quantity: $q, month: $month}) {
    plan { total { formatted } } errors { code message path } } }"""
PERIOD = """query ($id: ID!, $sku: String) { customer(id: $id) { currentPeriod {
  total { formatted } usage(sku: $sku) { key quantity amount { formatted } } } } }"""
SKU = "egress-gb"
KEYS = count(1)


async def preview(api: ApiHarness, customer: str, quantity: str, **changed: str) -> dict[str, Any]:
    """Return the payload of a preview with a correction of egress."""
    variables = {"id": customer, "sku": SKU, "q": quantity, **changed}
    payload: dict[str, Any] = (await api.query(SUPPORT, PREVIEW, **variables))["previewSync"]
    return payload


async def adjust(api: ApiHarness, customer: str, quantity: str, **changed: str) -> dict[str, Any]:
    """Return the payload of a correction of egress."""
    variables = {"id": customer, "sku": SKU, "q": quantity, "why": "w", "key": f"k{next(KEYS)}"}
    payload: dict[str, Any] = (await api.query(SUPPORT, ADJUST, **{**variables, **changed}))[
        "adjustUsage"
    ]
    return payload


async def correct(api: ApiHarness, customer: str, quantity: str, **changed: str) -> tuple[str, str]:
    """Preview and make a correction; return its amount and the month's total, which both agree on."""
    planned = await preview(api, customer, quantity, **changed)
    made = await adjust(api, customer, quantity, **changed)
    assert planned["errors"] == made["errors"] == []
    total = planned["plan"]["total"]["formatted"]
    if "month" not in changed:
        assert await total_of(api, customer) == total
    return made["adjustment"]["amount"]["formatted"], total


async def total_of(api: ApiHarness, customer: str) -> str:
    """Return the total of the customer's current month."""
    shown = await api.query(SUPPORT, PERIOD, id=customer)
    total: str = shown["customer"]["currentPeriod"]["total"]["formatted"]
    return total


async def bill_total(api: ApiHarness, customer: str) -> int:
    """Flush, and return the total of the draft in cents."""
    await api.flush(customer)
    path = f"/v1/invoices/{await draft_of(api, customer)}"
    return int((await api.services.stripe.read(path, lane=api.lane))["total"])


@pytest.mark.parametrize("cents", ["5", "1"], ids=["dearer", "cheaper"])
async def test_usage_is_taken_off_at_the_price_it_was_counted_at(
    api: ApiHarness, cents: str
) -> None:
    """Whatever the SKU costs since: the customer pays nothing, and gets nothing, for what is taken off."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "100", sku=SKU)
    await api.flush(customer)
    await api.shop.sell(SKU, unit_amount_decimal=cents)

    assert await correct(api, customer, "-100") == ("USD -2.00", "USD 0.00")
    assert await bill_total(api, customer) == 0


async def test_ended_month_is_corrected_at_its_own_price(api: ApiHarness) -> None:
    """Its bill was counted before the price changed."""
    customer, last_month, _ = await closing_draft(api)
    sku = "machine-seconds"
    await api.shop.sell(sku, unit_amount_decimal="1")

    corrected = await correct(api, customer, "-500000", sku=sku, month=str(last_month))

    assert corrected == ("USD -15.50", "USD 15.50")


async def test_month_without_usage_of_the_sku_is_corrected_at_the_current_price(
    api: ApiHarness,
) -> None:
    """There is nothing else to go by."""
    customer = await api.shop.customer()
    await api.record_usage(customer)
    await api.shop.sell(SKU, unit_amount_decimal="5")

    assert await correct(api, customer, "3") == ("USD 0.15", "USD 0.15")


@pytest.mark.parametrize("how", ["archived", "moved", "recurring"])
async def test_sku_that_is_no_longer_sold_can_be_corrected(api: ApiHarness, how: str) -> None:
    """Its usage stands on the bill; a customer without such usage is told why not."""
    customer, other = await api.shop.customer(), await api.shop.customer("other")
    await api.record_usage(customer, "100", sku=SKU)
    await api.flush(customer)
    price = (await api.services.price_catalog.by_sku([SKU]))[SKU].id
    if how == "archived":
        await api.shop.archive(SKU)
    elif how == "moved":
        await api.shop.update(f"prices/{price}", lookup_key="egress-old")
    else:
        await api.shop.sell(SKU, recurring={"interval": "month"})
    code = "UNUSABLE_PRICE" if how == "recurring" else "UNKNOWN_SKU"

    assert await correct(api, customer, "-40") == ("USD -0.80", "USD 1.20")
    assert await correct(api, customer, "10") == ("USD 0.20", "USD 1.40")
    assert await bill_total(api, customer) == 140
    refused = [await preview(api, other, "-1"), await adjust(api, other, "-1")]
    assert [[(e["code"], e["path"]) for e in payload["errors"]] for payload in refused] == [
        [(code, ["correction", "sku"])],
        [(code, ["input", "sku"])],
    ]


async def test_correction_is_taken_back_at_its_own_price(api: ApiHarness) -> None:
    """A correction alone stands on the bill too."""
    customer = await api.shop.customer()
    await adjust(api, customer, "100")
    await api.shop.sell(SKU, unit_amount_decimal="5")

    assert await correct(api, customer, "-100") == ("USD -2.00", "USD 0.00")


async def test_late_usage_is_taken_off_at_the_price_of_its_month(api: ApiHarness) -> None:
    """It is billed with this month on a line of its own, at the price that its SKU had."""
    customer, last_month, _ = await last_month_draft(api)
    sku = "machine-seconds"
    await api.services.ledger.periods.close(customer, last_month)
    await api.shop.sell(sku, unit_amount_decimal="1")
    late = (last_month.end - timedelta(minutes=1)).isoformat()
    await api.record_usage(customer, "100000", sku=sku, occurred_at=late)

    assert await correct(api, customer, "-100000", sku=sku) == ("USD -3.10", "USD 0.00")


async def test_repeated_correction_has_the_amount_of_the_first(api: ApiHarness) -> None:
    """A retry after a timeout, when the price has changed or the SKU is sold no more."""
    customer = await api.shop.customer()
    first = await adjust(api, customer, "100", key="same")
    await api.shop.sell(SKU, unit_amount_decimal="5")
    second = await adjust(api, customer, "100", key="same")
    await api.shop.archive(SKU)
    third = await adjust(api, customer, "100", key="same")

    assert first["adjustment"] == second["adjustment"] == third["adjustment"]
    assert first["adjustment"]["amount"] == {"formatted": "USD 2.00"}


async def test_correction_of_a_renamed_sku_is_listed_with_its_usage(api: ApiHarness) -> None:
    """The bill names a SKU as its usage was reported, wherever the lookup key went since."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "100", sku=SKU)
    await api.shop.sell(SKU)
    made = await adjust(api, customer, "-40")

    shown = await api.query(SUPPORT, PERIOD, id=customer, sku=SKU)
    rows = shown["customer"]["currentPeriod"]["usage"]

    assert [(row["key"], row["amount"]["formatted"]) for row in rows] == [
        (SKU, "USD 2.00"),
        (f"adj:{made['adjustment']['id']}", "USD -0.80"),
    ]


async def test_customer_is_corrected_in_its_own_currency(
    api: ApiHarness, services: Services
) -> None:
    """The first delta's price had another; it was taken off, and Stripe names the customer's own."""
    await api.shop.sell("euro-gb", currency="eur")
    customer = await api.shop.customer()
    await api.record_usage(customer, "1", sku="euro-gb")
    await api.record_usage(customer, "-1", sku="euro-gb")
    path = f"/v1/customers/{customer}/balance_transactions"
    credit = {"amount": -5, "currency": "usd"}
    await services.stripe.write(path, credit, key="credit", lane=api.lane)
    await services.cache.invalidate(customer)

    assert await correct(api, customer, "3") == ("USD 0.06", "USD 0.06")


async def test_correction_in_another_currency_is_refused_before_it_is_made(
    api: ApiHarness,
) -> None:
    """A preview never adds euros to dollars."""
    await api.shop.sell("euro-gb", currency="eur")
    customer = await api.shop.customer()
    await api.record_usage(customer, "100", sku=SKU)
    for payload in (
        await preview(api, customer, "1", sku="euro-gb"),
        await adjust(api, customer, "1", sku="euro-gb"),
    ):
        [error] = payload["errors"]
        assert (error["code"], error["path"][1:]) == ("INVALID_INPUT", ["sku"])
        assert "euro-gb" in error["message"]


async def test_correction_under_a_hold_keeps_the_price(api: ApiHarness) -> None:
    """Nothing is sent, and the preview still agrees with the act."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "100", sku=SKU)
    await api.query(SUPPORT, HOLD, id=customer, why="disputed")
    await api.shop.sell(SKU, unit_amount_decimal="5")

    assert await correct(api, customer, "-50") == ("USD -1.00", "USD 1.00")
