"""Lines: rounded one by one, changed whole or not at all, on drafts only."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import httpx
import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st
from stripe import StripeClient

from sandbox.lines import line_amount

ADD = "/v1/invoices/{}/add_lines"
decimals = st.decimals(min_value=0, max_value=10**9, places=12, allow_nan=False)


@given(quantity=decimals, unit=decimals)
def test_line_amount_rounds_half_away_from_zero(quantity: Decimal, unit: Decimal) -> None:
    """Exact arithmetic, one rounding at the end, twelve places on both sides."""
    exact = Fraction(quantity) * Fraction(unit)
    rounded = line_amount(f"{quantity:f}", f"{unit:f}")

    assert abs(rounded - exact) <= Fraction(1, 2)
    assert rounded - exact != Fraction(-1, 2)


@pytest.mark.parametrize(
    ("quantity", "unit", "amount"), [("0.5", "1", 1), ("1", "-2.5", -3), ("3", "0.1", 0)]
)
def test_halves_round_away_from_zero(quantity: str, unit: str, amount: int) -> None:
    """The gateway's own rounding must equal it."""
    assert line_amount(quantity, unit) == amount


async def create_price(client: StripeClient, unit_amount: str = "0.5") -> str:
    """Return a new price."""
    data = {"currency": "usd", "product_data": {"name": "Machines"}}
    price = await client.v1.prices.create_async(
        {**data, "unit_amount_decimal": Decimal(unit_amount)}
    )
    return str(price.id)


async def test_lines_keep_ids_and_metadata_through_bulk_calls(
    client: StripeClient, draft: Any
) -> None:
    """The gateway's daily work: absolute quantities on stable lines, with a watermark."""
    price, invoices = await create_price(client), client.v1.invoices
    line = {"pricing": {"price": price}, "quantity_decimal": Decimal(3), "metadata": {"sku": "a"}}
    added = await invoices.add_lines_async(
        draft.id, {"lines": [line, {"amount": -5}], "invoice_metadata": {"seq": "1", "keep": "x"}}
    )
    first, second = added.lines.data
    edit = {"id": first.id, "quantity_decimal": Decimal("10.999999999999"), "metadata": {"n": "1"}}
    updated = await invoices.update_lines_async(
        draft.id, {"lines": [edit], "invoice_metadata": {"seq": "2"}}
    )

    assert [entry.amount for entry in added.lines.data] == [2, -5]
    assert first.description == "Machines"
    changed = updated.lines.data[0]
    assert (changed.id, changed.amount, changed.quantity) == (first.id, 5, 10)
    assert changed.metadata.to_dict() == {"sku": "a", "n": "1"}
    assert updated.metadata.to_dict() == {"seq": "2", "keep": "x"}
    left = await invoices.remove_lines_async(
        draft.id, {"lines": [{"id": second.id, "behavior": "delete"}]}
    )
    assert [entry.id for entry in left.lines.data] == [first.id]
    assert left.total == 5


async def test_empty_metadata_value_deletes_the_key(client: StripeClient, draft: Any) -> None:
    """An empty hash deletes all keys."""
    added = await client.v1.invoices.add_lines_async(
        draft.id, {"lines": [{"amount": 1, "metadata": {"a": "1", "b": "2"}}]}
    )
    line = added.lines.data[0].id
    for metadata, left in (({"a": ""}, {"b": "2"}), ("", {})):
        edit: Any = {"id": line, "metadata": metadata}
        updated = await client.v1.invoices.update_lines_async(draft.id, {"lines": [edit]})
        assert updated.lines.data[0].metadata.to_dict() == left


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        ({"lines[1][pricing][price]": "price_none"}, 400),
        ({"lines[1][quantity]": "1"}, 400),
        ({"lines[1][amount]": "1", "lines[1][quantity]": "2"}, 400),
        ({"lines[1][amount]": "1.5"}, 400),
        ({"lines[1][quantity_decimal]": "1E-7"}, 400),
        ({"lines[1][quantity_decimal]": "-1"}, 400),
        ({"lines[1][quantity_decimal]": "9" * 16}, 400),
        ({"lines[1][price]": "price_1"}, 400),
        ({"lines[1][amount]": "1", "lines[1][tax_rates][0]": "txr_1"}, 501),
    ],
)
async def test_bulk_call_with_one_bad_line_changes_nothing(
    http: httpx.AsyncClient, draft: Any, bad: dict[str, str], status: int
) -> None:
    """It is applied completely or not at all."""
    inline = {"currency": "usd", "unit_amount": "1", "product_data][name": "Inline"}
    good = {f"lines[0][price_data][{name}]": value for name, value in inline.items()}
    events = (await http.get("/v1/events")).json()
    answer = await http.post(ADD.format(draft.id), data=good | bad)

    assert answer.status_code == status
    assert (await http.get(f"/v1/invoices/{draft.id}")).json()["lines"]["data"] == []
    assert (await http.get("/v1/prices")).json()["data"] == []
    assert (await http.get("/v1/events")).json() == events


async def test_invoice_is_limited_to_250_lines_and_shows_ten(
    client: StripeClient, draft: Any
) -> None:
    """Retrieving an invoice does not return all of its lines."""
    lines: Any = [{"amount": n} for n in range(250)]
    full = await client.v1.invoices.add_lines_async(draft.id, {"lines": lines})
    with pytest.raises(stripe.InvalidRequestError, match="250"):
        await client.v1.invoices.add_lines_async(draft.id, {"lines": [{"amount": 1}]})

    assert (len(full.lines.data), full.lines.has_more) == (10, True)
    listed = await client.v1.invoices.line_items.list_async(draft.id, {"limit": 100})
    amounts = [line.amount async for line in listed.auto_paging_iter()]
    assert amounts == list(range(250))


async def test_finalized_invoice_is_not_editable(client: StripeClient, draft: Any) -> None:
    """Its lines are frozen with it."""
    added = await client.v1.invoices.add_lines_async(draft.id, {"lines": [{"amount": 100}]})
    await client.v1.invoices.finalize_invoice_async(draft.id)
    line = added.lines.data[0].id
    invoices = client.v1.invoices
    for call in (
        invoices.add_lines_async(draft.id, {"lines": [{"amount": 1}]}),
        invoices.update_lines_async(draft.id, {"lines": [{"id": line, "amount": 1}]}),
        invoices.remove_lines_async(draft.id, {"lines": [{"id": line, "behavior": "delete"}]}),
        invoices.update_async(draft.id, {"description": "too late"}),
    ):
        with pytest.raises(stripe.InvalidRequestError) as raised:
            await call
        assert raised.value.code == "invoice_not_editable"


async def test_price_must_be_active_and_in_the_invoice_currency(
    client: StripeClient, draft: Any
) -> None:
    """Two mistakes in a catalog that only Stripe notices."""
    price = await create_price(client)
    await client.v1.prices.update_async(price, {"active": False})
    euro: Any = {"currency": "eur", "product_data": {"name": "E"}, "unit_amount": 1}
    foreign = await client.v1.prices.create_async(euro)
    for bad in (price, foreign.id):
        line: Any = {"pricing": {"price": bad}, "quantity": 1}
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.invoices.add_lines_async(draft.id, {"lines": [line]})


async def test_unassigned_line_becomes_pending(client: StripeClient, draft: Any) -> None:
    """The next invoice includes it; a deleted line is removed."""
    lines: Any = [{"amount": 1, "description": "a"}, {"amount": 2, "description": "b"}]
    first, second = (
        await client.v1.invoices.add_lines_async(draft.id, {"lines": lines})
    ).lines.data
    removed: Any = [
        {"id": first.id, "behavior": "unassign"},
        {"id": second.id, "behavior": "delete"},
    ]
    await client.v1.invoices.remove_lines_async(draft.id, {"lines": removed})
    items = await client.v1.invoice_items.list_async({"customer": draft.customer, "pending": True})
    item = first.parent.invoice_item_details.invoice_item

    assert [entry.id for entry in items.data] == [item]
    behavior: Any = {"customer": draft.customer, "pending_invoice_items_behavior": "include"}
    next_invoice = await client.v1.invoices.create_async(behavior)
    assert [(line.amount, line.description) for line in next_invoice.lines.data] == [(1, "a")]
    assert next_invoice.lines.data[0].id != first.id


async def test_line_and_invoice_item_are_the_same_record(client: StripeClient, draft: Any) -> None:
    """Changing or deleting the item changes or deletes the line."""
    items = client.v1.invoice_items
    made = await items.create_async({"customer": draft.customer, "invoice": draft.id, "amount": 5})
    await items.update_async(made.id, {"amount": 7})

    assert (await client.v1.invoices.retrieve_async(draft.id)).total == 7
    await items.delete_async(made.id)
    assert (await client.v1.invoices.retrieve_async(draft.id)).total == 0
    with pytest.raises(stripe.InvalidRequestError, match="No such invoiceitem"):
        await items.retrieve_async(made.id)
