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
def test_a_line_is_rounded_half_away_from_zero(quantity: Decimal, unit: Decimal) -> None:
    """Exact arithmetic, one rounding at the end, twelve places on both sides."""
    exact = Fraction(quantity) * Fraction(unit)
    rounded = line_amount(f"{quantity:f}", f"{unit:f}")

    assert abs(rounded - exact) <= Fraction(1, 2)
    assert rounded - exact != Fraction(-1, 2)


@pytest.mark.parametrize(
    ("quantity", "unit", "amount"), [("0.5", "1", 1), ("1", "-2.5", -3), ("3", "0.1", 0)]
)
def test_halves_go_away_from_zero(quantity: str, unit: str, amount: int) -> None:
    """The rule that the gateway's own rounding must equal."""
    assert line_amount(quantity, unit) == amount


async def metered(client: StripeClient, unit_amount: str = "0.5") -> str:
    """Return a new price."""
    data = {"currency": "usd", "product_data": {"name": "Machines"}}
    price = await client.v1.prices.create_async(
        {**data, "unit_amount_decimal": Decimal(unit_amount)}
    )
    return str(price.id)


async def test_lines_are_added_updated_and_removed_with_their_ids_and_metadata(
    client: StripeClient, draft: Any
) -> None:
    """What the gateway does all day: absolute quantities on stable lines, a watermark beside them."""
    price, invoices = await metered(client), client.v1.invoices
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


async def test_an_empty_value_deletes_a_metadata_key_and_an_empty_hash_all(
    client: StripeClient, draft: Any
) -> None:
    """Stripe's way to unset things."""
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
async def test_one_bad_line_spoils_the_whole_call(
    http: httpx.AsyncClient, draft: Any, bad: dict[str, str], status: int
) -> None:
    """A bulk call never leaves half of itself behind."""
    inline = {"currency": "usd", "unit_amount": "1", "product_data][name": "Inline"}
    good = {f"lines[0][price_data][{name}]": value for name, value in inline.items()}
    events = (await http.get("/v1/events")).json()
    answer = await http.post(ADD.format(draft.id), data=good | bad)

    assert answer.status_code == status
    assert (await http.get(f"/v1/invoices/{draft.id}")).json()["lines"]["data"] == []
    assert (await http.get("/v1/prices")).json()["data"] == []
    assert (await http.get("/v1/events")).json() == events


async def test_an_invoice_holds_250_lines_and_shows_the_first_ten(
    client: StripeClient, draft: Any
) -> None:
    """The cap is hard, and a retrieved invoice is not the whole story."""
    lines: Any = [{"amount": n} for n in range(250)]
    full = await client.v1.invoices.add_lines_async(draft.id, {"lines": lines})
    with pytest.raises(stripe.InvalidRequestError, match="250"):
        await client.v1.invoices.add_lines_async(draft.id, {"lines": [{"amount": 1}]})

    assert (len(full.lines.data), full.lines.has_more) == (10, True)
    listed = await client.v1.invoices.line_items.list_async(draft.id, {"limit": 100})
    amounts = [line.amount async for line in listed.auto_paging_iter()]
    assert amounts == list(range(250))


async def test_nothing_changes_once_finalized(client: StripeClient, draft: Any) -> None:
    """The end of a draft is the end of its lines."""
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


async def test_a_price_must_be_active_and_in_the_invoices_currency(
    client: StripeClient, draft: Any
) -> None:
    """Two mistakes in a catalogue that only Stripe can see."""
    price = await metered(client)
    await client.v1.prices.update_async(price, {"active": False})
    euro: Any = {"currency": "eur", "product_data": {"name": "E"}, "unit_amount": 1}
    foreign = await client.v1.prices.create_async(euro)
    for bad in (price, foreign.id):
        line: Any = {"pricing": {"price": bad}, "quantity": 1}
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.invoices.add_lines_async(draft.id, {"lines": [line]})


async def test_a_line_given_back_waits_for_the_next_invoice(
    client: StripeClient, draft: Any
) -> None:
    """Unassign keeps the money, delete does not."""
    lines: Any = [{"amount": 1, "description": "a"}, {"amount": 2, "description": "b"}]
    first, second = (
        await client.v1.invoices.add_lines_async(draft.id, {"lines": lines})
    ).lines.data
    gone: Any = [{"id": first.id, "behavior": "unassign"}, {"id": second.id, "behavior": "delete"}]
    await client.v1.invoices.remove_lines_async(draft.id, {"lines": gone})
    items = await client.v1.invoice_items.list_async({"customer": draft.customer, "pending": True})
    item = first.parent.invoice_item_details.invoice_item

    assert [entry.id for entry in items.data] == [item]
    behavior: Any = {"customer": draft.customer, "pending_invoice_items_behavior": "include"}
    back = await client.v1.invoices.create_async(behavior)
    assert [(line.amount, line.description) for line in back.lines.data] == [(1, "a")]
    assert back.lines.data[0].id != first.id


async def test_a_lines_item_is_the_same_thing_seen_from_the_other_side(
    client: StripeClient, draft: Any
) -> None:
    """Changing or deleting the item changes or deletes the line."""
    items = client.v1.invoice_items
    made = await items.create_async({"customer": draft.customer, "invoice": draft.id, "amount": 5})
    await items.update_async(made.id, {"amount": 7})

    assert (await client.v1.invoices.retrieve_async(draft.id)).total == 7
    await items.delete_async(made.id)
    assert (await client.v1.invoices.retrieve_async(draft.id)).total == 0
    with pytest.raises(stripe.InvalidRequestError, match="No such invoiceitem"):
        await items.retrieve_async(made.id)
