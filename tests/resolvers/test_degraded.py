"""Behavior while Stripe or the cache server is unavailable: last known data is shown with its age."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from billing.cache import CachePolicy, open_cache
from billing.errors import Unavailable
from gateway.billing_extension import to_graphql_error
from tests.resolvers.conftest import SUPPORT, ApiHarness, panel_viewer
from tests.support.stripe_sandbox import StripeSandbox

PAGE = """query ($id: ID!) { customer(id: $id) { name freshness { source fetchedAt }
  invoices { nodes { id total { amount } hostedInvoiceUrl invoicePdf freshness { source fetchedAt } } }
  currentPeriod { total { amount } } } }"""
NEVER_SHOWN = """query ($id: ID!, $other: ID!) {
  customer(id: $id) { name currentPeriod { total { amount } invoice { id } } }
  other: customer(id: $other) { name } }"""


@pytest.fixture
async def impatient_api(api: ApiHarness) -> AsyncIterator[ApiHarness]:
    """A harness that does not wait for Stripe when the cache has a value."""
    async with open_cache(api.services.settings.cache, CachePolicy(load_timeout=0.05)) as cache:
        yield replace(api, services=replace(api.services, cache=cache))


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("error_500_before", {}),
        ("answer_lost_before", {}),
        ("rate_limited", {"reason": "global-rate"}),
        ("slow", {"seconds": 1}),
    ],
)
async def test_stale_page_reports_its_age(
    impatient_api: ApiHarness, sandbox: StripeSandbox, fault: str, how: dict[str, Any]
) -> None:
    """For errors, lost answers, rate limits and delays: expiring URLs are null, usage is current."""
    customer = await impatient_api.shop.customer()
    invoice = await impatient_api.create_invoice(customer, 1250)
    await impatient_api.finalize_invoice(invoice)
    known = (await impatient_api.query(panel_viewer(customer), PAGE, id=customer))["customer"]
    await impatient_api.record_usage(customer, "1000000")
    await impatient_api.services.cache.invalidate(customer, invoice)
    await sandbox.fault(fault, "*", times=1_000, **how)

    shown = (await impatient_api.query(panel_viewer(customer), PAGE, id=customer))["customer"]

    [was], [now] = known["invoices"]["nodes"], shown["invoices"]["nodes"]
    assert was["hostedInvoiceUrl"]
    assert now == was | {
        "hostedInvoiceUrl": None,
        "invoicePdf": None,
        "freshness": was["freshness"] | {"source": "STALE"},
    }
    assert shown["freshness"] == known["freshness"] | {"source": "STALE"}
    assert shown["currentPeriod"] == {"total": {"amount": "31"}}


async def test_uncached_field_is_an_error_at_its_path(
    impatient_api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """The error of each failed field names Stripe; the rest of the page is complete."""
    customer, other = [await impatient_api.shop.customer(slug) for slug in ("acme", "other")]
    await impatient_api.record_usage(customer, "1000000")
    await impatient_api.flush(customer)
    await impatient_api.query(
        panel_viewer(customer), "query ($id: ID!) { customer(id: $id) { name } }", id=customer
    )
    await sandbox.fault("error_500_before", "*", times=1_000)

    result = await impatient_api.execute(
        panel_viewer(customer, other), NEVER_SHOWN, id=customer, other=other
    )

    assert result.data == {
        "customer": {
            "name": "Acme",
            "currentPeriod": {"total": {"amount": "31"}, "invoice": None},
        },
        "other": None,
    }
    assert result.errors is not None
    assert sorted(map(str, [error.path for error in result.errors])) == [
        "['customer', 'currentPeriod', 'invoice']",
        "['other']",
    ]
    for error in result.errors:
        assert isinstance(error.original_error, Unavailable)
        explained = to_graphql_error(error.original_error)
        assert explained is not None
        assert "Stripe" in explained.message
        assert explained.extensions["code"] == "STRIPE_UNAVAILABLE"


@pytest.mark.parametrize("propagation_disabled", [True, False])
async def test_directive_disables_null_propagation_of_failed_fields(
    impatient_api: ApiHarness, sandbox: StripeSandbox, *, propagation_disabled: bool
) -> None:
    """A failed non-null list makes its customer null, unless the directive is given."""
    customer = await impatient_api.shop.customer()
    name = "query ($id: ID!) { customer(id: $id) { name } }"
    await impatient_api.query(panel_viewer(customer), name, id=customer)
    await sandbox.fault("error_500_before", "GET /v1/invoices", times=1_000)
    directive = "@experimental_disableErrorPropagation" if propagation_disabled else ""
    query = f"""query ($id: ID!) {directive} {{ customer(id: $id) {{
      name invoices {{ nodes {{ id }} }} spendHistory {{ month }} syncState {{ status }} }} }}"""

    result = await impatient_api.execute(panel_viewer(customer), query, id=customer)

    assert result.errors is not None
    missing = {error.path[-1] for error in result.errors if error.path}
    assert missing == {"invoices", "spendHistory"} or not propagation_disabled
    partial = {
        "name": "Acme",
        "invoices": None,
        "spendHistory": None,
        "syncState": {"status": "UP_TO_DATE"},
    }
    assert result.data == {"customer": partial if propagation_disabled else None}


async def test_without_cache_server_every_read_goes_to_stripe(api: ApiHarness) -> None:
    """Reads are slower but never stale: a change shows without an invalidation."""
    customer = await api.shop.customer()
    async with open_cache("redis://127.0.0.1:1") as unavailable:
        uncached = replace(api, services=replace(api.services, cache=unavailable))
        before = (await uncached.query(panel_viewer(customer), PAGE, id=customer))["customer"]
        await api.write_stripe(f"/v1/customers/{customer}", {"name": "Renamed"}, 1)
        after = (await uncached.query(panel_viewer(customer), PAGE, id=customer))["customer"]

    assert (before["freshness"]["source"], after["freshness"]["source"]) == ("STRIPE", "STRIPE")
    assert (before["name"], after["name"]) == ("Acme", "Renamed")


async def test_month_of_the_ledger_needs_no_read_from_stripe(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """A customer who was never shown sees this month while Stripe is away, and only their own."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000", app="web")
    await sandbox.fault("error_500_before", "*", times=1_000)
    query = """query ($id: ID!, $month: String) { viewer { customerIds }
      period(customerId: $id, month: $month) { state total { rounded } usage(by: APP) { key unitPrice { formatted } } } }"""
    viewer = panel_viewer(customer)

    shown = await api.query(viewer, query, id=customer)
    elsewhere = await api.query(panel_viewer("cus_other"), query, id=customer)

    assert shown["viewer"] == {"customerIds": [customer]}
    assert shown["period"]["total"] == {"rounded": "USD 31.00"}
    assert shown["period"]["usage"] == [{"key": "web", "unitPrice": {"formatted": "USD 0.000031"}}]
    assert elsewhere["period"] is None
    assert (await api.query(viewer, query, id=customer, month="2020-01"))["period"] is None
    assert await api.error_codes(viewer, query, id=customer, month="October") == ["BAD_USER_INPUT"]
    assert (await api.query(SUPPORT, query, id="not an id"))["period"] is None
