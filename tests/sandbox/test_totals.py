"""Discounts, taxes and prices in several currencies: what a whole bill adds up to."""

from typing import Any

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from stripe import StripeClient

from sandbox.totals import _split
from tests.support.stripe_sandbox import StripeSandbox


async def bill(
    client: StripeClient,
    *amounts: int,
    customer: dict[str, Any] | None = None,
    **invoice: Any,
) -> Any:
    """A draft with one line for each of *amounts*."""
    owner = await client.v1.customers.create_async(customer or {})  # type: ignore[arg-type]
    draft = await client.v1.invoices.create_async({"customer": owner.id, **invoice})
    return await client.v1.invoices.add_lines_async(
        draft.id, {"lines": [{"amount": amount} for amount in amounts]}
    )


def rows(shown: Any) -> dict[str, int]:
    """The amounts from the subtotal to what is due."""
    return {
        "subtotal": shown.subtotal,
        "discount": sum(entry.amount for entry in shown.total_discount_amounts),
        "tax": sum(entry.amount for entry in shown.total_taxes),
        "untaxed": shown.total_excluding_tax,
        "total": shown.total,
        "due": shown.amount_due,
    }


async def test_percentage_is_taken_off_each_positive_line(client: StripeClient) -> None:
    """Negative lines are not discountable: Stripe's default for them."""
    coupon = await client.v1.coupons.create_async({"percent_off": 50})
    shown = await bill(client, 1001, -200, discounts=[{"coupon": coupon.id}])

    assert rows(shown) == {
        "subtotal": 801,
        "discount": 501,
        "tax": 0,
        "untaxed": 300,
        "total": 300,
        "due": 300,
    }
    assert [len(line.discount_amounts) for line in shown.lines.data] == [1, 0]


async def test_amount_off_is_split_by_size_and_never_exceeds_the_lines(
    client: StripeClient,
) -> None:
    """A coupon of more than the bill makes it zero, not negative."""
    coupon = await client.v1.coupons.create_async({"amount_off": 100, "currency": "usd"})
    partly = await bill(client, 300, 100, discounts=[{"coupon": coupon.id}])
    wholly = await bill(client, 60, discounts=[{"coupon": coupon.id}])

    amounts = [line.discount_amounts[0].amount for line in partly.lines.data]
    assert (amounts, partly.total) == ([75, 25], 300)
    assert (wholly.total, wholly.total_discount_amounts[0].amount) == (0, 60)


async def test_coupon_of_a_product_covers_its_lines_only(client: StripeClient) -> None:
    """`applies_to` names products; other lines are billed in full."""
    product = await client.v1.products.create_async({"name": "Machine"})
    price = await client.v1.prices.create_async(
        {"product": product.id, "currency": "usd", "unit_amount": 100}
    )
    coupon = await client.v1.coupons.create_async(
        {"percent_off": 10, "applies_to": {"products": [product.id]}}
    )
    shown = await bill(client, 1000, discounts=[{"coupon": coupon.id}])
    shown = await client.v1.invoices.add_lines_async(
        shown.id, {"lines": [{"pricing": {"price": price.id}, "quantity": 10}]}
    )
    assert (shown.subtotal, shown.total) == (2000, 1900)


async def test_new_invoice_inherits_the_customers_coupon(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """An empty list says: no discount."""
    coupon = await client.v1.coupons.create_async({"percent_off": 25})
    owner = await client.v1.customers.create_async()
    discount = {"id": "di_1", "source": {"type": "coupon", "coupon": coupon.id}}
    await sandbox.put_object("customers", id=owner.id, discount=discount)

    inherited = await client.v1.invoices.create_async({"customer": owner.id})
    without = await client.v1.invoices.create_async({"customer": owner.id, "discounts": ""})
    assert (inherited.discounts, without.discounts) == (["di_1"], [])


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        ("exclusive", {"tax": 190, "untaxed": 1000, "total": 1190}),
        ("inclusive", {"tax": 160, "untaxed": 840, "total": 1000}),
    ],
)
async def test_automatic_tax_by_country_and_behavior(
    client: StripeClient, behavior: Any, expected: dict[str, int]
) -> None:
    """The price says if its amount contains the tax."""
    price = await client.v1.prices.create_async(
        {
            "product_data": {"name": "Unit"},
            "currency": "eur",
            "unit_amount": 1000,
            "tax_behavior": behavior,
        }
    )
    owner = await client.v1.customers.create_async({"address": {"country": "DE"}})
    draft = await client.v1.invoices.create_async(
        {"customer": owner.id, "currency": "eur", "automatic_tax": {"enabled": True}}
    )
    shown = await client.v1.invoices.add_lines_async(
        draft.id, {"lines": [{"pricing": {"price": price.id}}]}
    )
    assert {name: rows(shown)[name] for name in expected} == expected
    assert shown.automatic_tax.status == "complete"
    done = await client.v1.invoices.finalize_invoice_async(draft.id)
    assert (done.total, done.amount_due) == (expected["total"], expected["total"])


@pytest.mark.parametrize(
    ("exemption", "reason"), [("exempt", "customer_exempt"), ("reverse", "reverse_charge")]
)
async def test_exempt_customer_pays_no_tax(
    client: StripeClient, exemption: Any, reason: str
) -> None:
    """The reason is on the invoice."""
    customer = {"address": {"country": "DE"}, "tax_exempt": exemption}
    shown = await bill(client, 1000, customer=customer, automatic_tax={"enabled": True})

    assert (shown.total, shown.total_taxes[0].taxability_reason) == (1000, reason)


async def test_tax_is_on_what_the_discount_left(client: StripeClient) -> None:
    """Discounts come first, and the balance of the customer last."""
    coupon = await client.v1.coupons.create_async({"percent_off": 10})
    customer = {"address": {"country": "DE"}, "balance": -100}
    shown = await bill(
        client,
        1000,
        customer=customer,
        discounts=[{"coupon": coupon.id}],
        automatic_tax={"enabled": True},
    )
    assert rows(shown) == {
        "subtotal": 1000,
        "discount": 100,
        "tax": 171,
        "untaxed": 900,
        "total": 1071,
        "due": 971,
    }


async def test_incompatible_lines_are_refused_under_automatic_tax(client: StripeClient) -> None:
    """Negative amounts and prices without a behavior, whichever comes second: the tax or the line."""
    price = await client.v1.prices.create_async(
        {"product_data": {"name": "Unit"}, "currency": "usd", "unit_amount": 1000}
    )
    owner = await client.v1.customers.create_async({"address": {"country": "US"}})
    taxed = await client.v1.invoices.create_async(
        {"customer": owner.id, "automatic_tax": {"enabled": True}}
    )
    plain = await bill(client, -5)
    lines: list[Any] = [{"amount": -1}, {"pricing": {"price": price.id}}]
    for line in lines:
        with pytest.raises(stripe.InvalidRequestError, match="automatic tax"):
            await client.v1.invoices.add_lines_async(taxed.id, {"lines": [line]})
    with pytest.raises(stripe.InvalidRequestError, match="automatic tax"):
        await client.v1.invoices.update_async(plain.id, {"automatic_tax": {"enabled": True}})


async def test_account_default_switches_tax_on_for_drafts_that_do_not_mention_it(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """So an integration that never heard of taxes has them."""
    await sandbox.settings(automatic_tax=True)
    owner = await client.v1.customers.create_async()
    silent = await client.v1.invoices.create_async({"customer": owner.id})
    against = await client.v1.invoices.create_async(
        {"customer": owner.id, "automatic_tax": {"enabled": False}}
    )
    assert (silent.automatic_tax.enabled, against.automatic_tax.enabled) == (True, False)
    assert silent.automatic_tax.status == "requires_location_inputs"


async def test_missing_location_fails_finalization(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """By a call it is an error, by the clock an event and an error on the draft."""
    shown = await bill(client, 1000, automatic_tax={"enabled": True}, auto_advance=True)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.invoices.finalize_invoice_async(shown.id)
    assert caught.value.code == "customer_tax_location_invalid"

    await sandbox.advance(3600)
    draft = await client.v1.invoices.retrieve_async(shown.id)
    assert draft.status == "draft"
    assert draft.last_finalization_error is not None
    assert draft.last_finalization_error.code == "customer_tax_location_invalid"


async def test_tax_rates_made_by_hand(client: StripeClient) -> None:
    """An account without Stripe Tax names its rates on the invoice."""
    rate = await client.v1.tax_rates.create_async(
        {"display_name": "VAT", "percentage": 20, "inclusive": False}
    )
    shown = await bill(client, 1000, -100, default_tax_rates=[rate.id])

    assert (shown.subtotal, shown.total) == (900, 1080)
    assert [entry.id for entry in shown.default_tax_rates] == [rate.id]


async def test_finalized_bill_keeps_its_discount_and_tax(client: StripeClient) -> None:
    """A coupon that is deleted and a customer who moves change no bill of before."""
    coupon = await client.v1.coupons.create_async({"percent_off": 10})
    customer = {"address": {"country": "DE"}}
    shown = await bill(
        client,
        1000,
        customer=customer,
        discounts=[{"coupon": coupon.id}],
        automatic_tax={"enabled": True},
    )
    done = await client.v1.invoices.finalize_invoice_async(shown.id)
    await client.v1.coupons.delete_async(coupon.id)
    await client.v1.customers.update_async(str(done.customer), {"address": {"country": "JP"}})

    again = await client.v1.invoices.retrieve_async(done.id)
    assert rows(again) == rows(done)


async def test_one_price_in_two_currencies(client: StripeClient) -> None:
    """The invoice's currency chooses the amount; a currency that the price lacks is refused."""
    price = await client.v1.prices.create_async(
        {
            "product_data": {"name": "Unit"},
            "currency": "usd",
            "unit_amount": 100,
            "currency_options": {"eur": {"unit_amount": 90}},
        }
    )
    totals = {}
    for currency in ("usd", "eur"):
        owner = await client.v1.customers.create_async()
        draft = await client.v1.invoices.create_async({"customer": owner.id, "currency": currency})
        line = {"pricing": {"price": price.id}, "quantity": 2}
        shown = await client.v1.invoices.add_lines_async(draft.id, {"lines": [line]})  # type: ignore[list-item]
        totals[currency] = shown.total
    assert totals == {"usd": 200, "eur": 180}
    plain = await client.v1.prices.retrieve_async(price.id)
    expanded = await client.v1.prices.retrieve_async(price.id, {"expand": ["currency_options"]})
    assert "currency_options" not in plain
    assert expanded.currency_options is not None
    assert expanded.currency_options["eur"].unit_amount == 90


@given(
    st.dictionaries(st.integers(0, 20), st.integers(1, 10**12), min_size=1),
    st.fractions(min_value=0, max_value=1),
)
def test_split_loses_no_cent(weights: dict[int, int], share: Any) -> None:
    """The parts add up, and none is above its weight."""
    amount = int(sum(weights.values()) * share)
    parts = _split(amount, weights)

    assert sum(parts.values()) == amount
    assert all(0 <= parts[name] <= weights[name] for name in weights)
