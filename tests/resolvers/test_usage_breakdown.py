"""Usage breakdowns: as many groups as a customer makes, as much work as others can wait for."""

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from billing.usage import CustomerId
from billing.usage_ingestion import record_usage
from gateway.billing_extension import ROWS_PER_POINT, measure_billing
from resolvers.context import Context
from resolvers.loop_slots import ROWS_PER_SLOT, LoopSlots
from tests.resolvers.conftest import ApiHarness, panel_viewer
from tests.support.stripe_catalog import delta

APPS = 1_200
USAGE = """query ($id: ID!, $first: Int) { customer(id: $id) { currentPeriod { sku: usage { amount { amount } }
  usage(by: APP, first: $first) { key quantity amount { amount } } } } }"""


@pytest.fixture
async def customer(api: ApiHarness) -> str:
    """A customer with many apps, of which the last ones cost the most."""
    made = await api.shop.customer()
    deltas = [
        delta(made, str(1_000_000 + number), app=f"app-{number:05}") for number in range(APPS)
    ]
    assert (await record_usage(api.services, deltas)).accepted == APPS
    return made


async def breakdown(api: ApiHarness, customer: str, **variables: Any) -> dict[str, Any]:
    """The current period of *customer*, by app."""
    data = await api.query(panel_viewer(customer), USAGE, id=customer, **variables)
    period: dict[str, Any] = data["customer"]["currentPeriod"]
    return period


@pytest.mark.parametrize(("variables", "shown"), [({}, 100), ({"first": None}, 100), ({"first": 3}, 3), ({"first": 0}, 0)])  # fmt: skip
async def test_rows_beyond_the_first_are_one_and_all_add_up(
    api: ApiHarness, customer: str, variables: dict[str, Any], shown: int
) -> None:
    """The highest amounts by themselves, the rest in one entry whose key names their number."""
    period = await breakdown(api, customer, **variables)
    rows = period["usage"]

    assert [row["key"] for row in rows[:-1]] == [f"app-{APPS - n - 1:05}" for n in range(shown)]
    assert rows[-1]["key"] == f"rest:{APPS - shown}"
    [whole] = period["sku"]
    assert sum(Decimal(row["amount"]["amount"]) for row in rows) == Decimal(
        whole["amount"]["amount"]
    )
    assert sum(Decimal(row["quantity"]) for row in rows) == APPS * 1_000_000 + sum(range(APPS))


async def test_a_single_row_more_is_shown_by_itself(api: ApiHarness) -> None:
    """To combine one row would only hide its name."""
    customer = await api.shop.customer()
    for app in ("a", "b", "c"):
        await api.record_usage(customer, app=app)

    keys = [
        [row["key"] for row in (await breakdown(api, customer, first=first))["usage"]]
        for first in (1, 2)
    ]

    assert keys == [["a", "rest:2"], ["a", "b", "c"]]


@pytest.mark.parametrize("first", [-1, 101])
async def test_size_of_a_breakdown_is_validated(api: ApiHarness, first: int) -> None:
    """As that of a page."""
    customer = await api.shop.customer()

    codes = await api.error_codes(panel_viewer(customer), USAGE, id=customer, first=first)

    assert codes == ["BAD_USER_INPUT"]


async def test_fifty_aliases_compute_a_breakdown_once_and_in_parts(
    api: ApiHarness, customer: str
) -> None:
    """The work does not grow with the aliases, is charged, and lets others have the event loop."""
    aliases = " ".join(f"a{n}: usage(by: APP) {{ key }}" for n in range(25))
    again = " ".join(f"b{n}: currentPeriod {{ usage(by: APP) {{ key }} }}" for n in range(25))
    query = f"query ($id: ID!) {{ customer(id: $id) {{ currentPeriod {{ {aliases} }} {again} }} }}"
    context = Context.for_viewer(panel_viewer(customer), api.services)
    iterations = 0

    async def count() -> None:
        nonlocal iterations
        while True:
            await asyncio.sleep(0)
            iterations += 1

    counting = asyncio.create_task(count())
    with measure_billing(context) as meter:
        result = await api.schema.execute(query, {"id": customer}, context_value=context)
        computed = context.rows_computed
        cost = meter.take_cost()
    counting.cancel()

    assert result.errors is None
    assert computed == 2 * APPS  # to rank them, and to combine the rest
    assert cost >= computed // ROWS_PER_POINT
    assert iterations >= computed // ROWS_PER_SLOT + 50 * 101 // ROWS_PER_SLOT


async def test_an_iteration_of_the_loop_makes_few_rows() -> None:
    """All operations together: lists that are ready at the same time are made one after the other."""
    slots, rows, iteration = LoopSlots(), Counter[int](), 0

    async def count() -> None:
        nonlocal iteration
        while True:
            await asyncio.sleep(0)
            iteration += 1

    async def make(number: int) -> None:
        await slots.take(number)
        rows[iteration] += number

    counting = asyncio.create_task(count())
    await asyncio.gather(*(make(50) for _ in range(40)), make(ROWS_PER_SLOT + 1))
    counting.cancel()

    assert rows.total() == 40 * 50 + ROWS_PER_SLOT + 1
    assert max(rows.values()) <= ROWS_PER_SLOT + 1


async def test_reading_many_values_lets_others_have_the_loop(
    api: ApiHarness, customer: str
) -> None:
    """The ledger's answer has one field for each app and line."""
    ledger, iterations = api.services.ledger, 0
    period = await ledger.periods.current(CustomerId(customer))

    async def count() -> None:
        nonlocal iterations
        while True:
            await asyncio.sleep(0)
            iterations += 1

    await asyncio.sleep(0)
    reading = asyncio.create_task(ledger.usage.breakdown(CustomerId(customer), period, "app"))
    counting = asyncio.create_task(count())
    found = await reading
    counting.cancel()

    assert len(found) == APPS
    assert iterations >= 2
