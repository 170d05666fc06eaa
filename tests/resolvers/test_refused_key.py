"""Stripe refuses our API key: our own mistake, which says nothing about any object and reaches nobody's bill."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette

from billing.errors import ErrorCode
from billing.services import Services, open_services
from billing.settings import Settings
from billing.usage_ingestion import record_usage
from gateway.billing_extension import to_graphql_error
from gateway.health import health_routes
from gateway.shared_metrics import SharedMetrics
from tests.resolvers.conftest import ApiHarness, panel_viewer
from tests.support.mutations import PORTAL
from tests.support.stripe_catalog import delta
from tests.support.stripe_sandbox import StripeSandbox
from workers.flush.outcome import FlushOutcome

KEY = "rk_test_0123456789abcdef"
RIGHTS = (
    "billing_portal",
    "customers",
    "invoice_payments",
    "invoices",
    "payment_methods",
    "prices",
    "products",
)
PAGE = """query ($id: ID!) { customer(id: $id) { name freshness { source }
  invoices { nodes { id total { amount } } } currentPeriod { total { amount } } } }"""
STRIPES_WORDS = re.compile("API Key|permission|acct_|rk_test")
Break = Callable[[StripeSandbox], Awaitable[None]]


async def grant(sandbox: StripeSandbox) -> None:
    """Give the key all the rights that it needs."""
    await sandbox.restrict_key(KEY, **dict.fromkeys(RIGHTS, "write"))


async def revoke(sandbox: StripeSandbox) -> None:
    """Stripe answers 401."""
    await sandbox.revoke_key(KEY)


async def forbid(sandbox: StripeSandbox) -> None:
    """Stripe answers 403."""
    await sandbox.restrict_key(KEY)


both = pytest.mark.parametrize("breaks", [revoke, forbid])


@pytest.fixture
async def services(
    settings: Settings, redis: object, sandbox: StripeSandbox
) -> AsyncIterator[Services]:
    """The gateway's own objects with a restricted key."""
    await grant(sandbox)
    changed = settings.model_copy(update={"stripe_api_key": SecretStr(KEY)})
    async with open_services(changed) as opened:
        yield opened


def shown(result: Any) -> str:
    """Everything that a viewer is told, masked as the gateway masks it."""
    errors = [to_graphql_error(error.original_error) for error in result.errors or ()]
    assert None not in errors
    return orjson.dumps([result.data, [error.message for error in errors if error]]).decode()


@both
async def test_last_known_page_stays(
    api: ApiHarness, sandbox: StripeSandbox, breaks: Break
) -> None:
    """The panel is as in an outage: stale, with the usage of now."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    viewer = panel_viewer(customer)
    known = (await api.query(viewer, PAGE, id=customer))["customer"]
    await api.services.cache.invalidate(customer)
    await api.shop.reload()
    await breaks(sandbox)

    stale = (await api.query(viewer, PAGE, id=customer))["customer"]

    assert stale == known | {"freshness": {"source": "STALE"}}


@both
async def test_nobody_reads_stripes_words(
    api: ApiHarness, sandbox: StripeSandbox, breaks: Break
) -> None:
    """A first look and a mutation fail with our words, and may be tried again."""
    customer = await api.shop.customer()
    viewer = panel_viewer(customer)
    await breaks(sandbox)

    page = await api.execute(viewer, PAGE, id=customer)
    portal = await api.execute(viewer, PORTAL, id=customer, url="https://fly.example/")

    assert page.errors
    assert portal.data
    assert portal.data["createPortalSession"]["errors"]
    assert not STRIPES_WORDS.search(shown(page) + shown(portal))
    assert "refuses this gateway's key" in shown(page)


@both
async def test_usage_of_known_customers_is_counted(
    api: ApiHarness, sandbox: StripeSandbox, breaks: Break
) -> None:
    """A new customer's usage is refused for now, and counted once the key works."""
    known, new = await api.shop.customer(), await api.shop.customer()
    await api.record_usage(known)
    await api.shop.reload()
    await breaks(sandbox)
    batch = [delta(known), delta(new), delta(known, sku="invented")]

    report = await record_usage(api.services, batch)

    assert report.accepted == 1
    assert [rejection.error.code for rejection in report.rejected] == [
        ErrorCode.STRIPE_UNAVAILABLE,
        ErrorCode.UNKNOWN_SKU,
    ]
    assert all(rejection.error.retry_after for rejection in report.rejected)
    assert not STRIPES_WORDS.search(str(report.rejected))
    await grant(sandbox)
    await asyncio.sleep(1.1)  # the cache retries Stripe one second after a failure
    assert (await record_usage(api.services, batch[1:2])).accepted == 1


@both
async def test_nobody_is_parked(api: ApiHarness, sandbox: StripeSandbox, breaks: Break) -> None:
    """A flush is tried again later, also one that has begun, and bills once the key works."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    await breaks(sandbox)
    outcomes = [(await api.flush(customer)).outcome for _ in range(2)]
    await grant(sandbox)
    outcomes.append((await api.flush(customer)).outcome)

    assert outcomes == [FlushOutcome.RETRYING, FlushOutcome.RETRYING, FlushOutcome.SYNCED]


@both
async def test_operators_are_told(api: ApiHarness, sandbox: StripeSandbox, breaks: Break) -> None:
    """`/readyz` warns with the cure, a metric is 1, and both end with the first call that succeeds."""
    services = api.services
    customer = await api.shop.customer()
    await api.record_usage(await api.shop.customer())

    async def operator_view() -> tuple[str, bool]:
        app = Starlette(routes=health_routes())
        app.state.services = services
        metrics = (await SharedMetrics().render(services)).decode()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://gateway"
        ) as http:
            ready = await http.get("/readyz")
        assert ready.json()["ready"]
        return str(ready.json()["warnings"]), "billing_stripe_key_refused 1.0" in metrics

    before = await operator_view()
    await breaks(sandbox)
    await record_usage(services, [delta(customer)])
    during = await operator_view()
    await grant(sandbox)
    await asyncio.sleep(1.1)  # the cache retries Stripe one second after a failure
    await record_usage(services, [delta(customer)])
    after = await operator_view()

    assert "BILLING_STRIPE_API_KEY" in during[0]
    assert (before[1], during[1], after[1]) == (False, True, False)
    assert "BILLING_STRIPE_API_KEY" not in before[0] + after[0]
