"""Cases of invoice lines: rounding, bulk calls, updates, prices of other kinds."""

from collections import Counter
from collections.abc import Mapping

from sandbox.conformance.account import TestAccount
from sandbox.conformance.probe import Case, Probe
from sandbox.sdk import Json

# Quantity, unit amount, and the amount that half away from zero gives.
ROUNDINGS = (("1", "0.5", 1), ("1", "1.5", 2), ("1", "2.5", 3), ("1", "0.499999999999", 0))


async def _line(account: TestAccount, price: str, quantity: str) -> Json:
    sent = {"pricing": {"price": price}, "quantity_decimal": quantity}
    found: Json = (await account.draft(sent))["lines"]["data"][0]
    return found


async def line_rounding(account: TestAccount, probe: Probe) -> None:
    """Halves, and a fraction just below one."""
    for quantity, unit, expected in ROUNDINGS:
        price = await account.price(unit_amount_decimal=unit)
        line = await _line(account, price["id"], quantity)
        probe.expect(f"amount of {quantity} at {unit}", expected, line["amount"])


async def decimals(account: TestAccount, probe: Probe) -> None:
    """Twelve places are taken, thirteen and exponents are not."""
    price = (await account.price())["id"]
    draft = (await account.draft())["id"]
    for quantity, taken in (("0.000000000001", True), ("0.0000000000001", False), ("1e3", False)):
        line = {"pricing": {"price": price}, "quantity_decimal": quantity}
        answer = await account.call("POST", f"invoices/{draft}/add_lines", {"lines": [line]})
        probe.expect(f"quantity {quantity} is taken", taken, not answer.error)
    line = {"pricing": {"price": price}, "quantity_decimal": "9" * 16}
    answer = await account.call("POST", f"invoices/{draft}/add_lines", {"lines": [line]})
    probe.expect_refusal("a quantity of sixteen digits", answer)


async def bulk_calls(account: TestAccount, probe: Probe) -> None:
    """250 lines at once, not 251; one bad line undoes the others."""
    draft = (await account.draft())["id"]
    path = f"invoices/{draft}/add_lines"
    refused = await account.call("POST", path, {"lines": [{"amount": 1}] * 251})
    probe.expect_refusal("251 lines", refused)
    bad = await account.call("POST", path, {"lines": [{"amount": 1}, {"description": "no amount"}]})
    probe.expect_refusal("a line without amount and price", bad)
    lines = (await account.get(f"invoices/{draft}/lines"))["data"]
    probe.expect("lines after refused calls", 0, len(lines))
    await account.post(path, {"lines": [{"amount": 1}] * 250})
    page = await account.get(f"invoices/{draft}/lines", {"limit": 100})
    probe.expect("more than 100 lines", True, page["has_more"])


async def line_events(account: TestAccount, probe: Probe) -> None:
    """One event an invoice, one an item added."""
    made = await account.draft({"amount": 1}, {"amount": 2})
    line = made["lines"]["data"][0]
    before = Counter(await account.events(made["id"]))
    probe.expect("invoice.updated after add_lines", 1, before["invoice.updated"])
    item = line["parent"]["invoice_item_details"]["invoice_item"]
    probe.expect("events of an added item", ["invoiceitem.created"], await account.events(item))
    edit = {"lines": [{"id": line["id"], "amount": 5}]}
    await account.post(f"invoices/{made['id']}/update_lines", edit)
    after = Counter(await account.events(made["id"]))
    probe.expect("invoice.updated after update_lines", 2, after["invoice.updated"])
    probe.expect("events of an updated item", ["invoiceitem.created"], await account.events(item))


async def line_updates(account: TestAccount, probe: Probe) -> None:
    """An update leaves what it does not name."""
    price = (await account.price(unit_amount=7))["id"]
    sent = {
        "pricing": {"price": price},
        "quantity": 2,
        "description": "Kept",
        "metadata": {"a": "1"},
    }
    made = await account.draft(sent, metadata={"x": "1"})
    path, line = f"invoices/{made['id']}/update_lines", made["lines"]["data"][0]
    edit = {"lines": [{"id": line["id"], "quantity": 3}], "invoice_metadata": {"y": "2"}}
    after = await account.post(path, edit)
    new = after["lines"]["data"][0]
    probe.expect("id of an updated line", line["id"], new["id"])
    probe.expect("amount after a new quantity alone", 21, new["amount"])
    probe.expect("description that was not named", "Kept", new["description"])
    probe.expect("metadata that was not named", {"a": "1"}, new["metadata"])
    probe.expect("metadata of the invoice", {"x": "1", "y": "2"}, after["metadata"])
    plain = await account.post(path, {"lines": [{"id": line["id"], "amount": 5}]})
    new = plain["lines"]["data"][0]
    probe.expect("amount in place of price and quantity", (5, 1), (new["amount"], new["quantity"]))


async def amount_lines(account: TestAccount, probe: Probe) -> None:
    """A line without a price."""
    line = (await account.draft({"amount": -5}))["lines"]["data"][0]
    probe.expect("pricing", None, line["pricing"])
    probe.expect("quantity", 1, line["quantity"])
    probe.expect("discountable if negative", False, line["discountable"])


async def inline_prices(account: TestAccount, probe: Probe) -> None:
    """`price_data` with `product_data`."""
    data = {"currency": "usd", "unit_amount": 9, "product_data": {"name": "Conformance inline"}}
    line = (await account.draft({"price_data": data}))["lines"]["data"][0]
    price = await account.get(f"prices/{line['pricing']['price_details']['price']}")
    account.remember("products", price["product"])
    probe.expect("the price is active", False, price["active"])
    listed = await account.get("prices", {"product": price["product"], "active": False})
    probe.expect("prices in the list of inactive ones", 0, len(listed["data"]))
    probe.expect("events of the price", ["price.created"], await account.events(price["id"]))


async def package_prices(account: TestAccount, probe: Probe) -> None:
    """Packages, archived prices and products, recurring and custom amounts."""
    package = await account.price(
        unit_amount=500, transform_quantity={"divide_by": 1000, "round": "up"}
    )
    line = await _line(account, package["id"], "2500")
    probe.expect("2,500 units in packages of 1,000 at 5.00", 1500, line["amount"])
    price = (await account.price(unit_amount=3))["id"]
    made = await account.draft({"pricing": {"price": price}, "quantity": 2})
    line, path = made["lines"]["data"][0]["id"], f"invoices/{made['id']}"
    await account.post(f"prices/{price}", {"active": False})
    new = {"lines": [{"pricing": {"price": price}, "quantity": 1}]}
    probe.expect_refusal(
        "a new line at an archived price", await account.call("POST", f"{path}/add_lines", new)
    )
    naming = {"lines": [{"id": line, "pricing": {"price": price}, "quantity": 3}]}
    answer = await account.call("POST", f"{path}/update_lines", naming)
    probe.expect_refusal("an update that names an archived price", answer)
    alone = {"lines": [{"id": line, "quantity": 4}]}
    answer = await account.call("POST", f"{path}/update_lines", alone)
    probe.expect("a new quantity alone at an archived price", 200, answer.status)
    plan = await account.price(recurring={"interval": "month"})
    new = {"lines": [{"pricing": {"price": plan["id"]}}]}
    answer = await account.call("POST", f"{path}/add_lines", new)
    probe.expect_refusal("a line at a recurring price", answer)


CASES: Mapping[str, Case] = {
    "line-rounding": line_rounding,
    "decimals": decimals,
    "bulk-calls": bulk_calls,
    "line-events": line_events,
    "line-updates": line_updates,
    "amount-lines": amount_lines,
    "inline-prices": inline_prices,
    "package-prices": package_prices,
}
