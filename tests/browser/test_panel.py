"""The example panel, as a customer sees it."""

import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import expect

from billing.budget import Lane
from tests.browser.conftest import Scene
from tests.support.usage_endpoint import report
from tests.support.wait import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")


PALE = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (node) => {
    const colour = parts(getComputedStyle(node).backgroundColor);
    return colour[3] === 0 ? ground(node.parentElement) : colour;
  };
  const written = [...document.querySelectorAll("body *")].filter((node) =>
    node.checkVisibility() && !node.disabled && [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim()));
  return written.filter((node) => {
    const [ink, paper] = [parts(getComputedStyle(node).color), ground(node)].map(light);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05) < 4.5;
  }).map((node) => node.outerHTML);
}"""
"""The texts with too little contrast to their background, by WCAG's formula."""


BAR = """() => {
  const bar = document.querySelector("#split");
  return [...bar.children].reduce((sum, part) => sum + part.getBoundingClientRect().width, 0)
    / bar.getBoundingClientRect().width;
}"""
"""The share of the bar that its parts fill."""


async def open_panel(scene: Scene) -> None:
    """Open the panel with a link that carries the token."""
    token = scene.system.token("customer", [scene.customer])
    await scene.page.goto(f"{scene.system.url}/#token={token}")
    await expect(scene.page.locator("#total")).to_have_text("USD 223.73")
    await scene.followed()


async def test_panel_shows_total_and_breakdown(scene: Scene) -> None:
    """Month to date, its parts, and the bars by app: 49.00 of egress, 26.78 of machines, 147.95 of volumes."""
    await open_panel(scene)

    await expect(scene.page.locator("#name")).to_have_text(scene.slug.title())
    await expect(scene.page.locator("#bars tr")).to_have_count(3)
    await expect(scene.page.locator("#bars tr").first).to_contain_text("db")
    await expect(scene.page.locator("#as-of")).to_contain_text("Live, as of")
    assert "token" not in scene.page.url
    assert scene.hosts == {f"127.0.0.1:{scene.system.port}"}
    assert scene.complaints == []


async def test_new_usage_appears_without_reload(scene: Scene) -> None:
    """The subscription announces the change."""
    await open_panel(scene)

    await report(scene.system, scene.customer, {"egress-gb": "5000"}, app="web")

    await expect(scene.page.locator("#total")).to_have_text("USD 323.73")


async def test_sync_button_syncs_and_reports_success(scene: Scene) -> None:
    """One click is followed to its end: all usage is on Stripe's draft."""
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


async def test_finalized_invoice_can_be_paid(scene: Scene) -> None:
    """From the panel to Stripe's hosted page and back: the panel shows the invoice as paid."""
    await open_panel(scene)
    await scene.page.get_by_role("button", name="Sync now").click()
    await expect(scene.page.locator("#sync-state")).to_have_text("Up to date")
    drafts = await scene.services.stripe.list_all(
        "/v1/invoices", {"customer": scene.customer}, lane="customer"
    )
    await scene.sandbox.dashboard("finalize", drafts[0]["id"])
    async with scene.page.expect_popup() as opened:
        await scene.page.get_by_role("link", name="Pay").click()
    hosted = await opened.value

    await hosted.get_by_role("button", name="Pay").click()

    await expect(scene.page.locator("#bills")).to_contain_text("paid")


async def test_panel_shows_age_of_data_while_stripe_is_down(scene: Scene) -> None:
    """Usage stays live; Stripe's data are the last known ones."""
    await open_panel(scene)
    await scene.page.get_by_role("button", name="Sync now").click()
    await expect(scene.page.locator("#sync-state")).to_have_text("Up to date")
    await scene.sandbox.fault("error_500_before", "*", times=100_000)

    await report(scene.system, scene.customer, {"egress-gb": "5000"}, app="web")

    await expect(scene.page.locator("#total")).to_have_text("USD 323.73")
    await scene.page.get_by_role("button", name="Sync now").click()
    await expect(scene.page.locator("#sync-state")).to_have_text("Stripe is slow; retrying")
    await expect(scene.page.locator("#steps [aria-current]")).to_have_text("Telling Stripe")
    await expect(scene.page.locator("#notice")).to_contain_text("what Stripe knows is as of")
    await expect(scene.page.locator("#bills-fresh")).to_contain_text("Last known")


async def test_panel_opened_while_stripe_is_down_recovers(scene: Scene) -> None:
    """Nothing is cached yet; the token is valid, so the panel does not ask for a new one."""
    await scene.sandbox.fault("error_500_before", "*", times=100_000)
    token = scene.system.token("customer", [scene.customer])
    await scene.page.goto(f"{scene.system.url}/#token={token}")
    await expect(scene.page.locator("#notice")).to_contain_text("asks again by itself")
    await expect(scene.page.locator("#enter")).to_be_hidden()

    await scene.sandbox.clear_faults()

    await expect(scene.page.locator("#total")).to_have_text("USD 223.73")
    await expect(scene.page.locator("#notice")).to_be_hidden()


async def test_panel_is_accessible(scene: Scene) -> None:
    """By keyboard during updates, on a phone, in light and dark mode, with WCAG AA contrast."""
    await open_panel(scene)
    page, region = scene.page, scene.page.get_by_role("button", name="Region")
    await region.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#bars tr")).to_have_count(2)

    await report(scene.system, scene.customer, {"egress-gb": "5000"}, app="web", region="syd")

    await expect(page.get_by_role("rowheader", name="syd")).to_be_visible()
    await expect(region).to_be_focused()
    await expect(region).to_have_attribute("aria-pressed", "true")
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert await page.evaluate(PALE) == []


@pytest.mark.parametrize("pasted", ["not-a-token", "eyJhbGciOiJIUzI1NiIsInR5cCI6…"])
async def test_invalid_token_is_explained(scene: Scene, pasted: str) -> None:
    """A pasted token may be incomplete, or shortened by a display."""
    await scene.page.goto(f"{scene.system.url}/")
    await scene.page.fill("#token", pasted)
    await scene.page.get_by_role("button", name="Open").click()

    await expect(scene.page.locator("#enter-problem")).not_to_be_empty()
    await expect(scene.page.locator("#panel")).to_be_hidden()


async def test_token_pasted_with_its_header_is_accepted(scene: Scene) -> None:
    """Copied out of a curl command, together with the word before it."""
    await scene.page.goto(f"{scene.system.url}/")
    await scene.page.fill("#token", f"Bearer {scene.system.token('customer', [scene.customer])}")
    await scene.page.get_by_role("button", name="Open").click()

    await expect(scene.page.locator("#total")).to_have_text("USD 223.73")


async def test_long_name_and_small_bill_fit_a_phone(scene: Scene) -> None:
    """No name makes the page wider than the screen, and a bill of 2 cents fills the bar."""
    await scene.page.set_viewport_size({"width": 360, "height": 800})
    customer = await scene.stage.shop.customer("w" * 200)
    await report(scene.system, customer, {"egress-gb": "1"}, app="web")

    token = scene.system.token("customer", [customer])
    await scene.page.goto(f"{scene.system.url}/#token={token}")

    await expect(scene.page.locator("#total")).to_have_text("USD 0.02")
    assert await scene.page.evaluate("document.documentElement.scrollWidth") == 360
    assert await scene.page.evaluate(BAR) == pytest.approx(1, abs=0.01)


async def test_yen_have_no_decimals(scene: Scene) -> None:
    """Each currency is written with the digits that it has, in the table too."""
    params = {
        "currency": "jpy",
        "unit_amount_decimal": "100",
        "lookup_key": "yen",
        "product_data": {"name": "yen"},
    }
    await scene.services.stripe.write("/v1/prices", params, key="yen", lane=Lane.CUSTOMER)
    customer = await scene.stage.shop.customer("edo")

    async def counted() -> bool:
        with suppress(AssertionError):  # new prices are looked for once a second
            await report(scene.system, customer, {"yen": "12"}, app="web")
            return True
        return False

    await wait_until(counted, "the price is known")

    token = scene.system.token("customer", [customer])
    await scene.page.goto(f"{scene.system.url}/#token={token}")

    await expect(scene.page.locator("#total")).to_have_text("JPY 1,200")
    await expect(scene.page.locator("#bars .number")).to_have_text("JPY 1,200")


async def test_data_of_another_day_show_their_date(scene: Scene) -> None:
    """A time without a date would make old data look like today's."""
    # Playwright's clock belongs to the context, and the others share one.
    async with await scene.stage.browser.new_context() as context:
        later = replace(scene, page=await context.new_page())
        await later.page.clock.set_fixed_time(datetime.now(UTC) + timedelta(days=3))
        await open_panel(later)

        await expect(later.page.locator("#as-of")).to_have_text(
            re.compile(r"as of \w{3} \d+, \d\d:\d\d:\d\d$")
        )


async def test_open_panel_asks_for_a_new_token_on_expiry(scene: Scene) -> None:
    """When the token expires, the bill disappears and the page says why."""
    token = scene.system.token("customer", [scene.customer], seconds=3)
    await scene.page.goto(f"{scene.system.url}/#token={token}")
    await expect(scene.page.locator("#panel")).to_be_visible()

    await expect(scene.page.locator("#enter-problem")).to_contain_text("The token has expired")
    await expect(scene.page.locator("#panel")).to_be_hidden()
    await expect(scene.page.locator("#about")).to_be_empty()
    await expect(scene.page).to_have_title("Billing")
