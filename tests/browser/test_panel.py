"""The example panel, as a customer sees it."""

import asyncio
import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import Dialog, Locator, Route, expect

from billing.budget import Lane
from billing.usage import Period
from tests.browser.conftest import Scene
from tests.support.queries import synced
from tests.support.usage_endpoint import report
from tests.support.wait import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")


ADJUST = (
    "mutation ($input: AdjustUsageInput!) { adjustUsage(input: $input) { errors { message } } }"
)
HOLD = "mutation ($input: HoldBillingInput!) { holdBilling(input: $input) { errors { message } } }"

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


async def open_inside(scene: Scene) -> None:
    """Open the part of the page that is about the gateway."""
    await scene.page.get_by_text("How usage reaches the invoice").click()


def rows(scene: Scene) -> Locator:
    """The rows of the breakdown, without those that sum it up."""
    return scene.page.locator("#bars tr:not(.sum)")


async def synced_draft(scene: Scene) -> str:
    """Sync the customer; return the id of the draft."""
    async with scene.system.caller("support") as support:
        await synced(support, scene.customer)
    query = {"customer": scene.customer, "status": "draft"}
    [draft] = await scene.services.stripe.list_all("/v1/invoices", query, lane=Lane.CUSTOMER)
    return str(draft["id"])


async def test_panel_shows_total_and_breakdown(scene: Scene) -> None:
    """Month to date, its parts, and the bars by app: 49.00 of egress, 26.78 of machines, 147.95 of volumes."""
    await open_panel(scene)

    await expect(scene.page.locator("#name")).to_have_text(scene.slug.title())
    await expect(rows(scene)).to_have_count(3)
    await expect(rows(scene).first).to_contain_text("db")
    await expect(scene.page.locator(".total-row")).to_have_text("TotalUSD 223.73")
    await expect(scene.page.locator("#dates")).to_contain_text("00:00 UTC")
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
    await open_inside(scene)

    await scene.page.get_by_role("button", name="Sync now").click()

    await expect(scene.page.locator("#sync-state")).to_have_text("Up to date")
    await expect(scene.page.locator("#parts")).to_contain_text(
        "In Stripe's draft invoiceUSD 223.73"
    )
    await expect(scene.page.locator("#bills")).to_contain_text("not issued yet")
    await expect(scene.page.locator("#sync-progress")).to_have_text(
        "Done: 3 lines in 3 Stripe calls."
    )
    await scene.page.get_by_role("button", name="Sync now").click()
    await expect(scene.page.locator("#sync-progress")).to_have_text(
        "Stripe was up to date already."
    )


async def test_finalized_invoice_can_be_paid(scene: Scene) -> None:
    """What is owed stands on top; from there to Stripe's hosted page and back, it is paid and stays explained."""
    await open_panel(scene)
    await expect(scene.page.locator("#how")).to_contain_text("Nothing to pay now")
    await scene.sandbox.dashboard("finalize", await synced_draft(scene))
    owed = scene.page.locator("#owed li")
    await expect(owed).to_contain_text("USD 223.73")
    await expect(scene.page.locator("#month")).to_have_value(
        str(Period.containing(datetime.now(UTC)))
    )
    await expect(rows(scene)).to_have_count(
        3
    )  # the month has ended, and what it was made of is still there
    async with scene.page.expect_popup() as opened:
        await owed.get_by_role("link", name="Pay").click()
    hosted = await opened.value

    await hosted.get_by_role("button", name="Pay").click()

    await expect(scene.page.locator("#bills")).to_contain_text("paid")
    await expect(owed).to_have_count(0)


async def test_failed_payment_is_said_first(scene: Scene) -> None:
    """A customer whose card was declined reads it above everything else, with the reason and the way to pay."""
    card = {"customer": scene.customer}
    attach = "/v1/payment_methods/pm_card_chargeCustomerFail/attach"
    write = scene.services.stripe.write
    method = (await write(attach, card, key=f"{scene.slug} card", lane=Lane.CUSTOMER)).body["id"]
    default = {"invoice_settings": {"default_payment_method": method}}
    path = f"/v1/customers/{scene.customer}"
    await write(path, default, key=f"{scene.slug} default", lane=Lane.CUSTOMER)
    await scene.sandbox.dashboard("finalize", await synced_draft(scene), auto_advance=True)
    await scene.sandbox.put_object("customers", id=scene.customer, delinquent=True)
    token = scene.system.token("customer", [scene.customer])
    await scene.page.goto(f"{scene.system.url}/#token={token}")

    await expect(scene.page.locator("#failed")).to_contain_text("A payment has failed")
    await expect(scene.page.locator("#owed .problem")).to_contain_text("another card")
    await expect(scene.page.locator("#owed").get_by_role("link", name="Pay")).to_be_visible()


async def test_credits_prices_and_rounding_are_in_sight(scene: Scene) -> None:
    """A correction is named and near the top; items show quantity and unit price; rows add up to the total."""
    await report(scene.system, scene.customer, {"egress-gb": "0.2"}, app="tiny")
    await report(scene.system, scene.customer, {"egress-gb": "0.2"}, app="small")
    async with scene.system.caller("support") as support:
        given = {"customerId": scene.customer, "sku": "egress-gb", "quantity": "-4500"}
        given |= {"reason": "outage", "idempotencyKey": "k"}
        await support.execute(ADJUST, input=given)
    token = scene.system.token("customer", [scene.customer])
    await scene.page.goto(f"{scene.system.url}/#token={token}")

    await expect(rows(scene).filter(has_text="Corrections by Support")).to_contain_text(
        "USD -90.00"
    )
    await expect(scene.page.locator("#bars .sum")).to_have_text(
        ["Rounding: the invoice rounds each itemUSD 0.01", "TotalUSD 133.74"]
    )
    await scene.page.get_by_role("button", name="Item").click()
    credit = rows(scene).filter(has_text="(correction)")
    await expect(credit).to_contain_text("-4,500")
    await expect(credit).to_contain_text("USD 0.02")
    assert await rows(scene).nth(1).inner_text() == await credit.inner_text()


async def test_credit_is_taken_off_what_will_be_paid(scene: Scene) -> None:
    """The bill goes from the usage to what Stripe will ask for, in rows that add up."""
    path, credit = f"/v1/customers/{scene.customer}", {"balance": -2373}
    write = scene.services.stripe.write
    await write(path, credit, key=f"{scene.slug} credit", lane=Lane.CUSTOMER)
    await synced_draft(scene)
    await open_panel(scene)

    await expect(scene.page.locator("#estimate div")).to_have_text(
        [
            "UsageUSD 223.73",
            "Credit or debt from beforeUSD -23.73",
            "To pay if the month ended nowUSD 200.00",
        ]
    )


async def test_hold_is_explained_to_the_customer(scene: Scene) -> None:
    """In words for the one who is on hold."""
    async with scene.system.caller("support") as support:
        await support.execute(HOLD, input={"customerId": scene.customer, "reason": "a talk"})
    await open_panel(scene)

    await expect(scene.page.locator("#held")).to_contain_text("Support has paused your billing")


async def test_older_invoices_can_be_reached(scene: Scene) -> None:
    """The list shows twelve, and as many more as there are."""
    for number in range(14):
        params = {"customer": scene.customer, "description": f"number {number}"}
        key = f"{scene.slug} {number}"
        await scene.services.stripe.write("/v1/invoices", params, key=key, lane=Lane.CUSTOMER)
    await open_panel(scene)
    bills = scene.page.locator("#bills tr")
    await expect(bills).to_have_count(12)

    await scene.page.get_by_role("button", name="Older invoices").click()

    await expect(bills).to_have_count(14)
    await expect(scene.page.get_by_role("button", name="Older invoices")).to_be_hidden()


async def test_panel_shows_age_of_data_while_stripe_is_down(scene: Scene) -> None:
    """Usage stays live; Stripe's data are the last known ones."""
    await open_panel(scene)
    await open_inside(scene)
    await scene.page.get_by_role("button", name="Sync now").click()
    await expect(scene.page.locator("#sync-state")).to_have_text("Up to date")
    await scene.sandbox.fault("error_500_before", "*", times=100_000)

    await report(scene.system, scene.customer, {"egress-gb": "5000"}, app="web")

    await expect(scene.page.locator("#total")).to_have_text("USD 323.73")
    await scene.page.get_by_role("button", name="Sync now").click()
    await expect(scene.page.locator("#sync-state")).to_have_text("Stripe is slow; retrying")
    await expect(scene.page.locator("#steps [aria-current]")).to_have_text("Sending to Stripe")
    await expect(scene.page.locator("#notice")).to_contain_text("payments are as of")
    await expect(scene.page.locator("#bills-fresh")).to_contain_text("Last known")
    await scene.page.get_by_role("button", name="Payment method").click()
    await expect(scene.page.locator("#notice")).to_contain_text("Nothing was charged")


async def test_panel_opened_while_stripe_is_down_recovers(scene: Scene) -> None:
    """Nothing of the customer is cached; the ledger's month is shown, and the rest follows by itself."""
    await scene.sandbox.fault("error_500_before", "*", times=100_000)
    token = scene.system.token("customer", [scene.customer])
    await scene.page.goto(f"{scene.system.url}/#token={token}")
    await expect(scene.page.locator("#total")).to_have_text("USD 223.73")
    await expect(rows(scene)).to_have_count(3)
    await expect(scene.page.locator("#notice")).to_contain_text("Nothing was charged")
    await expect(scene.page.locator("#enter")).to_be_hidden()
    assert "executed" not in await scene.page.locator("body").inner_text()

    await scene.sandbox.clear_faults()

    await expect(scene.page.locator("#name")).to_have_text(scene.slug.title())
    await expect(scene.page.locator("#notice")).to_be_hidden()


async def test_page_says_that_it_loads_and_that_the_gateway_is_away(scene: Scene) -> None:
    """Neither an empty page nor the browser's own words."""
    release = asyncio.Event()

    async def late(route: Route) -> None:
        await release.wait()
        await route.continue_()

    await scene.page.route("**/graphql", late)
    token = scene.system.token("customer", [scene.customer])
    await scene.page.goto(f"{scene.system.url}/#token={token}")
    await expect(scene.page.locator("#loading")).to_be_visible()
    release.set()
    await expect(scene.page.locator("#total")).to_have_text("USD 223.73")
    await expect(scene.page.locator("#loading")).to_be_hidden()

    await scene.page.route("**/graphql", lambda route: route.abort())
    await open_inside(scene)
    await scene.page.get_by_role("button", name="Sync now").click()
    progress = scene.page.locator("#sync-progress")
    await expect(progress).to_contain_text("The billing gateway does not answer.")
    await scene.page.get_by_role("button", name="Region").click()
    await expect(scene.page.locator("#notice")).to_contain_text("gateway does not answer")
    await scene.page.unroute("**/graphql")
    await expect(scene.page.locator("#notice")).to_be_hidden()


async def test_panel_is_accessible(scene: Scene) -> None:
    """By keyboard during updates, on a phone, in light and dark mode, with WCAG AA contrast."""
    await open_panel(scene)
    page, region = scene.page, scene.page.get_by_role("button", name="Region")
    await region.focus()
    await page.keyboard.press("Enter")
    await expect(rows(scene)).to_have_count(2)

    await report(scene.system, scene.customer, {"egress-gb": "5000"}, app="web", region="syd")

    await expect(page.get_by_role("rowheader", name="syd")).to_be_visible()
    await expect(region).to_be_focused()
    await expect(region).to_have_attribute("aria-pressed", "true")
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    await open_inside(scene)
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


@pytest.mark.parametrize("agrees", [True, False])
async def test_link_does_not_replace_who_is_signed_in_unasked(scene: Scene, agrees: bool) -> None:
    """A link of somebody else's would make a person act in their name."""
    other = await scene.stage.shop.customer(f"{scene.slug}-other")
    questions: list[str] = []

    async def answer(dialog: Dialog) -> None:
        questions.append(dialog.message)
        await (dialog.accept() if agrees else dialog.dismiss())

    scene.page.on("dialog", answer)
    await open_panel(scene)
    assert questions == []
    token = scene.system.token("customer", [other])
    await scene.page.goto("about:blank")
    await scene.page.goto(f"{scene.system.url}/#token={token}")

    shown = f"{scene.slug}-other" if agrees else scene.slug
    await expect(scene.page.locator("#name")).to_have_text(re.compile(f"^{shown}$", re.IGNORECASE))
    assert [question[:27] for question in questions] == ["Open the bill of this link?"]
    assert "token" not in scene.page.url


async def test_link_on_another_host_is_asked_about(scene: Scene) -> None:
    """Nothing is sent until the person agrees."""
    questions: list[str] = []

    async def refuse(dialog: Dialog) -> None:
        questions.append(dialog.message)
        await dialog.dismiss()

    scene.page.on("dialog", refuse)
    token = scene.system.token("customer", [scene.customer])
    port = scene.system.port
    host = f"panel.localhost:{port}"  # Chromium resolves it to this machine
    await scene.page.goto(f"http://{host}/#token={token}")

    await expect(scene.page.locator("#enter")).to_be_visible()
    assert len(questions) == 1
    assert await scene.page.evaluate("sessionStorage.getItem('token')") is None


async def test_long_name_and_small_bill_fit_a_phone(scene: Scene) -> None:
    """No name makes the page wider than the screen, and a bill of 2 cents fills the bar."""
    await scene.page.set_viewport_size({"width": 360, "height": 800})
    customer = await scene.stage.shop.customer("w" * 200)
    await report(scene.system, customer, {"egress-gb": "1"}, app="web")

    token = scene.system.token("customer", [customer])
    await scene.page.goto(f"{scene.system.url}/#token={token}")

    await expect(scene.page.locator("#total")).to_have_text("USD 0.02")
    await open_inside(scene)
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
    await expect(rows(scene).locator(".number")).to_have_text("JPY 1,200")


async def test_data_of_another_day_show_their_date(scene: Scene) -> None:
    """A time without a date would make old data look like today's."""
    # Playwright's clock belongs to the context, and the others share one.
    async with await scene.stage.browser.new_context() as context:
        later = replace(scene, page=await context.new_page())
        await later.page.clock.set_fixed_time(datetime.now(UTC) + timedelta(days=3))
        await open_panel(later)

        await expect(later.page.locator("#as-of")).to_have_text(
            re.compile(r"as of \w{3} \d+, \d\d:\d\d:\d\d \w+")
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
    await expect(scene.page.locator("#token")).to_be_focused()
