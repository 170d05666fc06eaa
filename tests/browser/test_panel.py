"""The example panel, as a customer sees it."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Scene
from tests.support.usage_door import report

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def open_panel(scene: Scene) -> None:
    """Open the panel with the link that `make up` prints."""
    token = scene.system.token("customer", [scene.customer])
    await scene.page.goto(f"{scene.system.url}/#token={token}")
    await expect(scene.page.locator("#total")).to_have_text("USD 223.73")


async def test_the_panel_shows_what_is_owed_and_made_of_what(scene: Scene) -> None:
    """Month to date, its parts, and the bars by app: 49.00 of egress, 26.78 of machines, 147.95 of volumes."""
    await open_panel(scene)

    await expect(scene.page.locator("#name")).to_have_text(scene.slug.title())
    await expect(scene.page.locator("#bars tr")).to_have_count(3)
    await expect(scene.page.locator("#bars tr").first).to_contain_text("db")
    await expect(scene.page.locator("#as-of")).to_contain_text("Live, as of")
    assert "token" not in scene.page.url
    assert scene.hosts == {f"127.0.0.1:{scene.system.port}"}
    assert scene.complaints == []


async def test_new_usage_appears_by_itself(scene: Scene) -> None:
    """Nobody presses reload: the subscription says that something changed."""
    await open_panel(scene)

    await report(scene.system, scene.customer, {"egress-gb": "5000"}, app="web")

    await expect(scene.page.locator("#total")).to_have_text("USD 323.73")


async def test_the_sync_button_tells_stripe_and_says_so(scene: Scene) -> None:
    """Pressed once, followed to its end: everything stands in Stripe's draft."""
    await open_panel(scene)

    await scene.page.get_by_role("button", name="Sync now").click()

    await expect(scene.page.locator("#sync-state")).to_have_text("Up to date")
    await expect(scene.page.locator("#parts")).to_contain_text(
        "In Stripe's draft invoiceUSD 223.73"
    )
    await expect(scene.page.locator("#bills")).to_contain_text("draft")
    await expect(scene.page.locator("#sync-progress")).to_have_text(
        "Done: 3 lines in 3 Stripe calls."
    )
    await scene.shoot("panel")
    await scene.page.emulate_media(color_scheme="dark")
    await scene.shoot("panel-dark")


async def test_a_finalized_invoice_can_be_paid_to_its_end(scene: Scene) -> None:
    """From the panel to Stripe's hosted page and back: the invoice is paid, the panel knows."""
    await open_panel(scene)
    await scene.page.get_by_role("button", name="Sync now").click()
    await expect(scene.page.locator("#sync-state")).to_have_text("Up to date")
    drafts = await scene.services.stripe.pages(
        "/v1/invoices", {"customer": scene.customer}, lane="customer"
    )
    await scene.sandbox.dashboard("finalize", drafts[0]["id"])
    async with scene.page.expect_popup() as opened:
        await scene.page.get_by_role("link", name="Pay").click()
    hosted = await opened.value

    await hosted.get_by_role("button", name="Pay").click()

    await expect(scene.page.locator("#bills")).to_contain_text("paid")


async def test_while_stripe_is_down_the_panel_says_how_old_its_numbers_are(scene: Scene) -> None:
    """Usage stays live; what only Stripe knows is the last that it said."""
    await open_panel(scene)
    await scene.page.get_by_role("button", name="Sync now").click()
    await expect(scene.page.locator("#sync-state")).to_have_text("Up to date")
    await scene.sandbox.fault("error_500_before", "*", times=100_000)

    await report(scene.system, scene.customer, {"egress-gb": "5000"}, app="web")

    await expect(scene.page.locator("#total")).to_have_text("USD 323.73")


async def test_a_wrong_token_is_refused_in_words(scene: Scene) -> None:
    """Somebody pastes half a token."""
    await scene.page.goto(f"{scene.system.url}/")
    await scene.page.fill("#token", "not-a-token")
    await scene.page.get_by_role("button", name="Open").click()

    await expect(scene.page.locator("#enter-problem")).not_to_be_empty()
    await expect(scene.page.locator("#panel")).to_be_hidden()
