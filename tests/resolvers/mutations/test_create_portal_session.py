"""`createPortalSession`: links to Stripe's Customer Portal."""

from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from billing.settings import Environment
from tests.resolvers.conftest import ApiHarness, panel_viewer
from tests.support.mutations import PORTAL
from tests.support.stripe_sandbox import StripeSandbox

ALLOWED_URLS = ["http://localhost:3000/billing", "http://127.0.0.1/", "http://[::1]:8000/"]

FORBIDDEN_URLS = [
    "http://fly.example/",
    "javascript:alert(1)",
    "//fly.example",
    "https://",
    "https:///x",
    "",
    "https://user:word@fly.example/",
    "http://localhost.evil.example/",
    "https://fly.example/ x",
    "https://fly.example/\nx",
    "https://fly.example:99999/",
    "https://@fly.example/",
    "https://[",
    "data:text/html,x",
    "https://flÿ.example/",
]

RETURN_URL = "https://fly.example/billing"


async def test_portal_session_waits_for_the_sync(api: ApiHarness) -> None:
    """The portal shows the same usage as the panel."""
    customer = await api.shop.customer()
    await api.record_usage(customer)

    async with api.running_worker():
        created = (await api.query(panel_viewer(customer), PORTAL, id=customer, url=RETURN_URL))[
            "createPortalSession"
        ]

    assert (created["sync"]["status"], created["sync"]["trigger"], created["errors"]) == (
        "SUCCEEDED",
        "PORTAL",
        [],
    )
    assert urlsplit(created["url"]).scheme in {"http", "https"}


async def test_portal_session_without_pending_usage_needs_no_sync(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """The call does not wait for a worker, and each call creates a session."""
    customer = await api.shop.customer()

    sessions = [
        (await api.query(panel_viewer(customer), PORTAL, id=customer, url=RETURN_URL, flow=flow))[
            "createPortalSession"
        ]
        for flow in (None, "PAYMENT_METHOD_UPDATE")
    ]

    assert len({session["url"] for session in sessions}) == 2
    assert [session["sync"] for session in sessions] == [None, None]
    assert await sandbox.calls("POST /v1/billing_portal/sessions") == 2


async def test_portal_session_is_created_when_the_sync_is_late(
    api: ApiHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The customer does not wait; `sync` shows that usage is still pending."""
    monkeypatch.setattr("resolvers.mutations.create_portal_session.MAX_WAIT_SECONDS", 0.3)
    customer = await api.shop.customer()
    await api.record_usage(customer)

    created = (await api.query(panel_viewer(customer), PORTAL, id=customer, url=RETURN_URL))[
        "createPortalSession"
    ]

    assert (created["sync"]["status"], bool(created["url"])) == ("QUEUED", True)


async def test_return_url_must_be_https_or_localhost(api: ApiHarness) -> None:
    """Stripe's portal links to this URL, so other schemes, hosts and credentials are refused."""
    customer = await api.shop.customer()

    async def refusals(url: str) -> list[tuple[str, list[str]]]:
        created = await api.query(panel_viewer(customer), PORTAL, id=customer, url=url)
        return [
            (error["code"], error["path"]) for error in created["createPortalSession"]["errors"]
        ]

    for url in FORBIDDEN_URLS:
        assert await refusals(url) == [("INVALID_INPUT", ["input", "returnUrl"])], url
    for url in ALLOWED_URLS:
        assert await refusals(url) == [], url


async def test_production_returns_only_to_allowed_origins(api: ApiHarness) -> None:
    """A portal that returns to somebody else's page is a gift to whoever imitates ours."""
    customer = await api.shop.customer()
    production = {
        "environment": Environment.PRODUCTION,
        "allowed_origins": "https://fly.io, https://a.example:8443",
    }
    settings = api.services.settings.model_copy(update=production)
    api.services = replace(api.services, settings=settings)

    async def refused(url: str) -> bool:
        created = await api.query(panel_viewer(customer), PORTAL, id=customer, url=url)
        return bool(created["createPortalSession"]["errors"])

    for url in ("https://fly.io/billing?x=1", "https://FLY.io:443", "https://a.example:8443/"):
        assert not await refused(url), url
    for url in (
        "https://fly.io.evil.example/", "https://evil.example/https://fly.io", "http://fly.io/", "http://localhost/",
        "https://a.example/", "https://fly.io@evil.example/", "https://fly.io:8443/", "https://fly.io:x/", *FORBIDDEN_URLS,
    ):  # fmt: skip
        assert await refused(url), url


async def test_unavailable_stripe_is_a_user_error(api: ApiHarness, sandbox: StripeSandbox) -> None:
    """The panel can show the message and offer a retry."""
    customer = await api.shop.customer()
    await sandbox.fault("error_500_before", "POST /v1/billing_portal/sessions", times=50)

    refused = (await api.query(panel_viewer(customer), PORTAL, id=customer, url=RETURN_URL))[
        "createPortalSession"
    ]

    assert refused["url"] is None
    assert refused["errors"][0]["code"] == "STRIPE_UNAVAILABLE"
