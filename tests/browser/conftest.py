"""A headless Chromium on a running gateway with somebody to bill."""

import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from billing.services import Services
from billing.settings import Settings
from tests.support.shop import Shop
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import System
from tests.support.usage_door import report

WEBHOOK_SECRET = "whsec_test_0123456789abcdef"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong
SHOTS = Path(__file__).parent.parent.parent / "docs" / "images"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Chromium these tests are skipped; where CI runs they fail instead."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(180))
            if CHROMIUM is None and not os.environ.get("CI"):
                item.add_marker(pytest.mark.skip(reason="no Chromium: apt-get install chromium"))


@dataclass
class Scene:
    """What a browser test looks at; *requests* are the hosts that the page asked for anything."""

    system: System
    sandbox: StripeSandbox
    services: Services
    customer: str
    page: Page
    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)

    async def shoot(self, name: str) -> None:
        """Take the screenshot that the docs show, when asked to (``SHOTS=1 make test``)."""
        if os.environ.get("SHOTS"):
            SHOTS.mkdir(parents=True, exist_ok=True)
            await self.page.screenshot(path=SHOTS / f"{name}.png")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium, asked not to phone anybody."""
    assert CHROMIUM, "CI installs Chromium; .ci/run does"
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-sync",
    ]
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        await started.close()


@pytest.fixture
async def scene(
    browser: Browser,
    settings: Settings,
    services: Services,
    sandbox: StripeSandbox,
    tmp_path: Path,
) -> AsyncIterator[Scene]:
    """A customer with usage of three apps in two regions, a gateway, a worker, an empty page."""
    shop = Shop(services)
    await shop.open()
    customer = await shop.customer("acme")
    system = System(settings, tmp_path)
    await sandbox.hear(f"{system.url}/webhooks/stripe", WEBHOOK_SECRET)
    try:
        await system.start_gateway()
        system.start_worker()
        for app, region, quantity in (
            ("web", "fra", "1200"),
            ("web", "iad", "800"),
            ("jobs", "fra", "450"),
        ):
            await report(system, customer, {"egress-gb": quantity}, app=app, region=region)
        await report(
            system,
            customer,
            {"machine-seconds": "864000", "volume-hours": "720000"},
            app="db",
            region="fra",
        )
        page = await browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(20_000)
        found = Scene(system, sandbox, services, customer, page)
        page.on("request", lambda request: found.hosts.add(urlsplit(request.url).netloc))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        yield found
    finally:
        system.stop()
