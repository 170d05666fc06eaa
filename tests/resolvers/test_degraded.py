"""While Stripe or the cache's server is away: what is known is shown, with its age; nothing is made up."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from billing.cache import CachePolicy, open_cache
from billing.errors import Unavailable
from gateway.auth.authenticate import explain
from tests.resolvers.conftest import Desk, panel_of
from tests.support.stripe_sandbox import StripeSandbox

PAGE = """query ($id: ID!) { customer(id: $id) { name freshness { source fetchedAt }
  invoices { nodes { id total { amount } hostedInvoiceUrl invoicePdf freshness { source fetchedAt } } }
  currentPeriod { total { amount } } } }"""
NEVER_SHOWN = """query ($id: ID!, $other: ID!) {
  customer(id: $id) { name currentPeriod { total { amount } invoice { id } } }
  other: customer(id: $other) { name } }"""


@pytest.fixture
async def hasty(desk: Desk) -> AsyncIterator[Desk]:
    """A desk that does not wait for Stripe while it knows something."""
    async with open_cache(desk.services.settings.cache, CachePolicy(patience=0.05)) as cache:
        yield replace(desk, services=replace(desk.services, cache=cache))


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("error_500_before", {}),
        ("answer_lost_before", {}),
        ("rate_limited", {"reason": "global-rate"}),
        ("slow", {"seconds": 1}),
    ],
)
async def test_the_last_known_page_says_how_old_it_is(
    hasty: Desk, sandbox: StripeSandbox, fault: str, how: dict[str, Any]
) -> None:
    """Down, unreachable, limiting or slow; links that expire are left out, usage is as of now."""
    customer = await hasty.shop.customer()
    invoice = await hasty.invoice(customer, 1250)
    await hasty.finalize(invoice)
    known = (await hasty.ask(panel_of(customer), PAGE, id=customer))["customer"]
    await hasty.use(customer, "1000000")
    await hasty.services.cache.forget(customer, invoice)
    await sandbox.fault(fault, "*", times=1_000, **how)

    shown = (await hasty.ask(panel_of(customer), PAGE, id=customer))["customer"]

    [was], [now] = known["invoices"]["nodes"], shown["invoices"]["nodes"]
    assert was["hostedInvoiceUrl"]
    assert now == was | {
        "hostedInvoiceUrl": None,
        "invoicePdf": None,
        "freshness": was["freshness"] | {"source": "STALE"},
    }
    assert shown["freshness"] == known["freshness"] | {"source": "STALE"}
    assert shown["currentPeriod"] == {"total": {"amount": "31"}}


async def test_what_was_never_known_is_an_error_where_it_stands(
    hasty: Desk, sandbox: StripeSandbox
) -> None:
    """It names Stripe, field by field; the rest of the page is there."""
    customer, other = [await hasty.shop.customer(slug) for slug in ("acme", "other")]
    await hasty.use(customer, "1000000")
    await hasty.flush(customer)
    await hasty.ask(
        panel_of(customer), "query ($id: ID!) { customer(id: $id) { name } }", id=customer
    )
    await sandbox.fault("error_500_before", "*", times=1_000)

    result = await hasty.run(panel_of(customer, other), NEVER_SHOWN, id=customer, other=other)

    assert result.data == {
        "customer": {
            "name": "Acme",
            "currentPeriod": {"total": {"amount": "31"}, "invoice": None},
        },
        "other": None,
    }
    assert result.errors is not None
    assert sorted(map(str, [each.path for each in result.errors])) == [
        "['customer', 'currentPeriod', 'invoice']",
        "['other']",
    ]
    for error in result.errors:
        assert isinstance(error.original_error, Unavailable)
        told = explain(error.original_error)
        assert told is not None
        assert "Stripe" in told.message
        assert told.extensions["code"] == "STRIPE_UNAVAILABLE"


@pytest.mark.parametrize("asked_to_stand", [True, False])
async def test_a_page_stands_without_what_stripe_cannot_tell_if_it_asks_to(
    hasty: Desk, sandbox: StripeSandbox, *, asked_to_stand: bool
) -> None:
    """An invoice list may not be null, so its failure takes the customer along unless told not to."""
    customer = await hasty.shop.customer()
    name = "query ($id: ID!) { customer(id: $id) { name } }"
    await hasty.ask(panel_of(customer), name, id=customer)
    await sandbox.fault("error_500_before", "GET /v1/invoices", times=1_000)
    stands = "@experimental_disableErrorPropagation" if asked_to_stand else ""
    query = f"""query ($id: ID!) {stands} {{ customer(id: $id) {{
      name invoices {{ nodes {{ id }} }} spendHistory {{ month }} syncState {{ status }} }} }}"""

    result = await hasty.run(panel_of(customer), query, id=customer)

    assert result.errors is not None
    missing = {each.path[-1] for each in result.errors if each.path}
    assert missing == {"invoices", "spendHistory"} or not asked_to_stand
    standing = {
        "name": "Acme",
        "invoices": None,
        "spendHistory": None,
        "syncState": {"status": "UP_TO_DATE"},
    }
    assert result.data == {"customer": standing if asked_to_stand else None}


async def test_without_the_cache_server_nothing_old_is_shown(desk: Desk) -> None:
    """Slower, never wrong: a change shows without anybody having announced it."""
    customer = await desk.shop.customer()
    async with open_cache("redis://127.0.0.1:1") as gone:
        blind = replace(desk, services=replace(desk.services, cache=gone))
        before = (await blind.ask(panel_of(customer), PAGE, id=customer))["customer"]
        await desk.write(f"/v1/customers/{customer}", {"name": "Renamed"}, 1)
        after = (await blind.ask(panel_of(customer), PAGE, id=customer))["customer"]

    assert (before["freshness"]["source"], after["freshness"]["source"]) == ("STRIPE", "STRIPE")
    assert (before["name"], after["name"]) == ("Acme", "Renamed")
