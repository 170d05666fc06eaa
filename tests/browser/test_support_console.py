"""The support console, used as Support uses it: paste a token, select a tab, execute."""

import json
import re
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Page, Response, expect

from billing.budget import Lane
from billing.events.effects import EventRef
from billing.events.records import EventStatus
from billing.ledger import keys
from gateway.static_pages import support_operations
from tests.browser.conftest import VIEW, Scene
from tests.support.queries import current_period, synced
from tests.support.usage_endpoint import report
from tests.support.wait import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

SUPPORT = "ada@fly.io"
SHOWN = "document.querySelector('.result-window .CodeMirror')?.CodeMirror.getValue() ?? ''"
GIVEN = "document.querySelector('.graphiql-editor-tool .CodeMirror').CodeMirror.getValue()"
COUNT_CLICKS = "globalThis.clicks = 0; addEventListener('pointerdown', (e) => { clicks += e.isTrusted; }, true)"
CORRECTION = {"sku": "egress-gb", "quantity": "-450"}


@dataclass
class Console:
    """The page with mouse and keyboard; *texts* counts the typed texts."""

    scene: Scene
    page: Page
    texts: int = 0

    async def type(self, selector: str, text: str) -> None:
        """Click into a field and replace its content, as by pasting."""
        await self.page.locator(selector).first.click()
        await self.page.keyboard.press("Control+A")
        await self.page.keyboard.insert_text(text)
        self.texts += 1

    async def about(self, whom: str, name: str | re.Pattern[str]) -> None:
        """Enter a customer into the bar; the console shows the name found."""
        await self.type("#customer", whom)
        await self.page.keyboard.press("Tab")
        await expect(self.page.locator("#whom")).to_have_text(name)

    async def choose(self, tab: str) -> None:
        """Select *tab* and wait until the editor shows it."""
        named = re.compile(rf"^{tab}\b")  # the tab in front also has a button to close it
        await self.page.get_by_role("tab", name=named).first.click()
        operation = re.compile(rf"(query|mutation|subscription) {tab}\b")
        await expect(self.page.locator(".graphiql-query-editor")).to_contain_text(operation)

    async def run(self, tab: str, **variables: Any) -> Any:
        """Execute *tab* with *variables*; return the ``data`` that is shown."""
        await self.choose(tab)
        if variables:
            standing = json.loads(await self.page.evaluate(GIVEN))
            text = json.dumps(standing | variables, indent=2)
            await self.type(".graphiql-editor-tool .CodeMirror", text)
        answers = self.page.expect_response(lambda answer: _answers(answer, tab))
        async with answers as answering:
            await self.page.get_by_role("button", name="Execute query").click()
        answer = await (await answering.value).json()

        async def shown() -> bool:
            text = await self.page.evaluate(SHOWN)
            return text.endswith("}") and json.loads(text)["data"] == answer["data"]

        await wait_until(shown, f"the answer to {tab} is shown")
        assert "errors" not in answer, answer
        return answer["data"]

    async def clicks(self) -> int:
        """The number of mouse clicks since the page was opened."""
        return int(await self.page.evaluate("clicks"))


def _answers(answer: Response, tab: str) -> bool:
    posted = answer.request.post_data_json if answer.url.endswith("/graphql") else None
    return bool(posted) and posted.get("operationName") == tab


@pytest_asyncio.fixture(loop_scope="session")
async def console(scene: Scene) -> AsyncIterator[Console]:
    """The console with a Support token and no customer; it may send requests to this host only."""
    page = scene.page
    await page.add_init_script(COUNT_CLICKS)
    await page.goto(f"{scene.system.url}/graphiql")
    await expect(page.locator("#who")).to_have_text("Paste a token to begin")
    opened = Console(scene, page)
    await opened.type("#token", scene.system.token("support", subject=SUPPORT))
    await page.keyboard.press("Tab")
    await expect(page.locator("#who")).to_contain_text(f"{SUPPORT}, support")
    yield opened
    assert scene.hosts == {f"127.0.0.1:{scene.system.port}"}
    assert scene.complaints == []


async def at_acme(console: Console) -> Console:
    """The console with the scene's customer in the bar."""
    await console.about(console.scene.customer, console.scene.slug.title())
    return console


async def test_wrong_bill_is_corrected_on_the_draft(
    console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    """From "the bill is wrong" to the corrected draft: find, bill, why, preview, correct, bill."""
    scene, slug = console.scene, console.scene.slug
    before, typed, began = await console.clicks(), console.texts, time.monotonic()

    await console.about(f"billing@{slug}.example", slug.title())
    bill = (await console.run("Bill"))["customer"]["period"]
    await scene.shoot("console-bill", 640)
    why = (await console.run("Why"))["customer"]["period"]
    await scene.shoot("console-why", 640)
    plan = (await console.run("Preview", **CORRECTION))["previewSync"]["plan"]
    await scene.shoot("console-preview")
    corrected = (await console.run("Correct", **CORRECTION, reason="ticket 4711"))["adjustUsage"]
    await scene.shoot("console-correct")
    await settled(scene)
    on_draft = (await console.run("Bill"))["customer"]["period"]

    seconds = time.monotonic() - began
    clicks, texts = await console.clicks() - before, console.texts - typed
    with capsys.disabled():
        sys.stdout.write(f"[corrected: {clicks} clicks, {texts} texts, {seconds:.1f} s]")
    assert (clicks, texts) == (13, 3)
    assert bill["total"]["rounded"] == bill["pending"]["rounded"] == "USD 223.73"
    assert [row["key"] for row in why["byApp"]] == ["db", "web", "jobs"]
    assert plan["total"]["rounded"] == "USD 214.73"
    assert corrected["adjustment"]["amount"]["rounded"] == "USD -9.00"
    assert corrected["sync"]["customer"]["period"]["total"]["rounded"] == "USD 214.73"
    assert on_draft["invoice"]["total"]["rounded"] == "USD 214.73"
    query = {"customer": scene.customer}
    drafts = await scene.services.stripe.list_all("/v1/invoices", query, lane=Lane.SUPPORT)
    assert [draft["total"] for draft in drafts] == [21473]


async def settled(scene: Scene) -> None:
    """Wait until all recorded usage is on the draft."""
    async with scene.system.caller("support") as support:

        async def is_synced() -> bool:
            period = await current_period(support, scene.customer)
            return period["inStripe"] == period["total"] != Decimal(0)

        await wait_until(is_synced, "the draft shows everything")


async def test_customer_is_found_by_any_identifier(console: Console) -> None:
    """By e-mail, name or any id; all tabs then use the customer found."""
    slug, customer = console.scene.slug, console.scene.customer
    found = await console.run("Find", search=f"billing@{slug}.example")
    await console.scene.shoot("console-find", 560)

    assert [node["id"] for node in found["customers"]["nodes"]] == [customer]
    await expect(console.page.locator("#customer")).to_have_value(customer)
    async with console.scene.system.caller("support") as support:
        await synced(support, customer)
    invoice = (await console.run("Bill"))["customer"]["period"]["invoice"]["id"]
    for whom in (slug, f"billing@{slug}.example", invoice):
        await console.about(whom, slug.title())
        await expect(console.page.locator("#customer")).to_have_value(customer)
    await console.about("nobody@nowhere.example", re.compile("^Nobody has this"))


async def test_month_in_the_bar_applies_to_all_tabs(console: Console) -> None:
    """The wrong month is neither shown nor corrected, and the next customer starts with the current one."""
    await at_acme(console)
    await console.type("#month", "2020-01")
    await console.page.keyboard.press("Tab")
    long_ago = (await console.run("Bill"))["customer"]["period"]
    refused = (await console.run("Correct", **CORRECTION, reason="ticket 4711"))["adjustUsage"]
    await console.about(f"billing@{console.scene.slug}.example", console.scene.slug.title())
    emptied = await console.page.input_value("#month")
    current = (await console.run("Bill"))["customer"]["period"]

    await console.type("#month", "October")
    await console.page.keyboard.press("Tab")
    await expect(console.page.locator("#month-problem")).to_have_text("Write it as 2026-10")
    await console.page.get_by_role("button", name="Execute query").click()
    await expect(console.page.locator(".result-window")).to_contain_text("such as 2026-10")

    assert long_ago is None
    assert [error["code"] for error in refused["errors"]] == ["PERIOD_CLOSED"]
    assert (emptied, current["state"]) == ("", "OPEN")


async def test_executing_twice_corrects_once(console: Console) -> None:
    """The tab brings its own idempotency key."""
    await at_acme(console)

    first = await console.run("Correct", **CORRECTION, reason="ticket 4711")
    again = await console.run("Correct")

    assert first["adjustUsage"]["adjustment"] == again["adjustUsage"]["adjustment"]


async def test_hold_stops_sync_until_release(console: Console) -> None:
    """Nothing is sent to Stripe during a hold; the audit log has each action and its actor."""
    await at_acme(console)

    payload = (await console.run("Hold", reason="calls at three"))["holdBilling"]
    await console.scene.shoot("console-hold", 720)
    await expect(console.page.locator("#flags")).to_have_text("On hold: calls at three")
    standing = (await console.run("Holds"))["holds"]["nodes"]
    refused = (await console.run("SyncNow"))["syncBilling"]
    released = (await console.run("Release", reason="agreed, ticket 4712"))["releaseBilling"]
    allowed = (await console.run("SyncNow"))["syncBilling"]
    await console.run("Correct", **CORRECTION, reason="ticket 4711")
    log = (await console.run("Audit"))["customer"]["auditLog"]["nodes"]
    await console.scene.shoot("console-audit", 730)

    assert payload["hold"]["by"] == SUPPORT
    assert "calls at three" in [hold["reason"] for hold in standing]
    assert [error["code"] for error in refused["errors"]] == ["ON_HOLD"]
    assert released["customer"]["hold"] is None
    assert allowed["errors"] == []
    assert [(entry["action"], entry["outcome"]) for entry in log] == [
        ("adjustUsage", "DONE"),
        ("syncBilling", "DONE"),
        ("releaseBilling", "DONE"),
        ("syncBilling", "REFUSED"),
        ("holdBilling", "DONE"),
    ]
    assert {entry["by"] for entry in log} == {SUPPORT}
    assert log[0]["changes"][0] == {"what": "total", "before": "USD 223.73", "after": "USD 214.73"}


async def test_draft_is_followed_live(console: Console) -> None:
    """The subscription runs over a WebSocket of this host and shows each step, to the last."""
    await at_acme(console)
    await console.choose("Follow")
    await console.page.get_by_role("button", name="Execute query").click()
    await console.scene.followed()
    await report(console.scene.system, console.scene.customer, {"egress-gb": "1"})
    await expect(console.page.locator(".result-window")).to_contain_text('"reason": "USAGE"')
    async with console.scene.system.caller("support") as support:
        await synced(support, console.scene.customer)

    async def is_synced() -> bool:
        answer = json.loads(await console.page.evaluate(SHOWN))
        period = answer["data"]["billingChanged"]["customer"]["currentPeriod"]
        return bool(period["inStripe"] == period["total"])

    await wait_until(is_synced, "the followed draft has nothing left to be told")


async def test_invoices_health_and_webhook_tabs_are_answered(console: Console) -> None:
    """Earlier invoices, health, drift, failed events and their replay."""
    scene = (await at_acme(console)).scene
    event = await failed_event(scene)
    paid = await paid_invoice(scene)
    invoices = (await console.run("Invoices"))["customer"]["invoices"]["nodes"]
    await scene.shoot("console-invoices", 640)
    draft = await edited_draft(scene)

    health = (await console.run("Health"))["customer"]
    await scene.shoot("console-health", 640)
    repaired = (await console.run("Repair", reason="a line too many?"))["repairDrift"]
    await scene.shoot("console-drift", 700)
    failed = (await console.run("FailedWebhooks"))["webhookEvents"]["nodes"]
    await scene.shoot("console-webhooks", 560)
    replayed = (await console.run("Replay", event=event))["replayWebhookEvent"]

    assert [invoice["status"] for invoice in invoices if invoice["id"] == paid] == ["PAID"]
    assert [line["kind"] for line in health["drift"]["lines"]] == ["EXTRA"]
    [extra] = repaired["sync"]["customer"]["drift"]["lines"]
    assert extra["stripeDashboardUrl"].endswith(f"/test/invoices/{draft}")
    assert event in [event["id"] for event in failed]
    assert (replayed["errors"], replayed["event"]["id"]) == ([], event)


async def paid_invoice(scene: Scene) -> str:
    """Create a paid earlier invoice; return its id."""
    params = {"customer": scene.customer, "auto_advance": False}
    write = scene.services.stripe.write
    made = (await write("/v1/invoices", params, key=scene.slug, lane=Lane.SUPPORT)).body["id"]
    await scene.sandbox.dashboard("add_line", made, amount=18250, description="October")
    await scene.sandbox.dashboard("finalize", made)
    await scene.sandbox.dashboard("pay", made)
    return str(made)


async def edited_draft(scene: Scene) -> str:
    """Add a person's line to this month's draft; return the draft's id."""
    async with scene.system.caller("support") as support:
        sync = await synced(support, scene.customer)
    assert sync["status"] == "SUCCEEDED"
    query = {"customer": scene.customer, "status": "draft"}
    [draft] = await scene.services.stripe.list_all("/v1/invoices", query, lane=Lane.SUPPORT)
    await scene.sandbox.dashboard("add_line", draft["id"], amount=-700, description="A favour")
    return str(draft["id"])


async def failed_event(scene: Scene) -> str:
    """Create a failed event; return its id."""
    notice = EventRef(f"evt_{scene.slug}", "price.updated", f"price_{scene.slug}")
    await scene.services.inbox.receive([notice])

    async def done() -> bool:
        event = await scene.services.inbox.get(notice.id)
        return event is not None and event.status is EventStatus.PROCESSED

    await wait_until(done, "the worker has done with the event")
    redis = scene.services.inbox._redis  # as if it had broken our code five times
    given_up = {"status": EventStatus.FAILED.value, "failure": "KeyError", "attempts": 5}
    await redis.hset(keys.inbox_record(notice.id), mapping=given_up)
    await redis.zrem(keys.inbox_list(EventStatus.PROCESSED), notice.id)
    await redis.zadd(keys.inbox_list(EventStatus.FAILED), {notice.id: 10**6})
    return notice.id


async def test_every_tab_runs_with_its_default_variables(console: Console) -> None:
    """It is answered, or refused with a message that names the cure."""
    await at_acme(console)
    names = [
        re.search(r"(query|mutation) (\w+)", operation["query"])
        for operation in support_operations()
    ]
    tabs = [found[2] for found in names if found]
    refusals = {}

    for tab in tabs:
        for payload in (await console.run(tab)).values():
            for error in payload.get("errors") or ():
                refusals[tab] = (error["code"], error["path"])

    assert len(tabs) == 16  # and Follow, which never ends
    assert refusals == {
        "Correct": ("INVALID_INPUT", ["input", "quantity"]),
        "Hold": ("INVALID_INPUT", ["input", "reason"]),
        "Release": ("INVALID_INPUT", ["input", "reason"]),
        "Repair": ("INVALID_INPUT", ["input", "reason"]),
        "Replay": ("NOT_FOUND", ["input", "eventId"]),
    }


async def test_missing_customer_is_reported_before_sending(console: Console) -> None:
    """A request without a customer cannot succeed."""
    await console.choose("Bill")
    await console.page.get_by_role("button", name="Execute query").click()

    await expect(console.page.locator(".result-window")).to_contain_text("Say whom it is about")
    await expect(console.page.locator("#customer")).to_be_focused()


async def test_docs_and_explorer_are_available(console: Console) -> None:
    """A person without GraphQL knowledge selects fields by mouse, offline."""
    await console.page.get_by_role("button", name="Show Documentation Explorer").click()
    await expect(console.page.locator(".graphiql-doc-explorer")).to_contain_text("Root Types")
    await console.page.get_by_role("button", name="Show GraphiQL Explorer").click()
    await expect(console.page.locator(".docExplorerWrap")).to_contain_text("currentPeriod")


async def test_token_stays_in_its_tab(console: Console) -> None:
    """It is not stored beyond the tab, and no foreign script or page can run here."""
    stored = await console.page.evaluate("[JSON.stringify(localStorage), document.cookie]")
    other = await console.page.context.new_page()
    answer = await other.goto(console.page.url)

    assert stored == ["{}", ""]
    await expect(other.locator("#token")).to_have_value("")
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_link_contains_the_operation_but_no_token(console: Console) -> None:
    """Colleagues share operations, not credentials."""
    scene = (await at_acme(console)).scene
    await console.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await console.run("Preview", **CORRECTION)
    await console.page.get_by_role("button", name="Copy link").click()
    link = await console.page.evaluate("navigator.clipboard.readText()")

    context = await scene.stage.browser.new_context()
    colleague = await context.new_page()
    await colleague.goto(link)

    await expect(colleague.locator("#customer")).to_have_value(scene.customer)
    await expect(colleague.locator(".graphiql-query-editor")).to_contain_text("mutation Preview")
    variables = await wait_until(lambda: colleague.evaluate(GIVEN), "the variables are shown")
    await expect(colleague.locator("#linked")).to_contain_text("contains a change")
    assert json.loads(variables) == CORRECTION
    await expect(colleague.locator("#token")).to_have_value("")
    assert scene.system.token("support", subject=SUPPORT).split(".")[0] not in link
    await context.close()


@pytest.mark.parametrize("run", [True, False])
async def test_linked_change_is_marked_until_it_is_run_or_edited(
    console: Console, run: bool
) -> None:
    """Play must not be pressed before somebody has read what a link brought; a question is no danger."""
    page, root = console.page, console.page.url
    for query, marked in (
        ("query A { viewer { role } }", False),
        ("mutation B { __typename }", True),
    ):
        await page.goto("about:blank")
        await page.goto(f"{root}#query={quote(query)}")
        await expect(page.locator(".graphiql-query-editor")).to_contain_text(query.split()[1])
        await expect(page.locator("#linked")).to_be_visible(visible=marked)
    if run:
        await page.get_by_role("button", name="Execute query").click()
    else:
        await console.type(".graphiql-query-editor .CodeMirror", "mutation C { __typename }")

    await expect(page.locator("#linked")).to_be_hidden()


async def test_operation_after_a_question_mark_is_ignored(console: Console) -> None:
    """The address before the fragment is in the logs of servers."""
    await console.page.goto(f"{console.page.url}?query={quote('mutation B { __typename }')}")

    await expect(console.page.locator("#ignored")).to_be_visible()
    await expect(console.page.locator(".graphiql-query-editor")).not_to_contain_text("mutation B")
    assert "?" not in console.page.url


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
async def test_console_fits_its_window(console: Console, width: int, height: int) -> None:
    """Long names, comments on a laptop and the response on a phone are not cut off."""
    page, slug = console.page, console.scene.slug
    name = f"{slug.title()} Consolidated Industries"
    path = f"/v1/customers/{console.scene.customer}"
    await console.scene.services.stripe.write(path, {"name": name}, key=path, lane=Lane.SUPPORT)
    try:
        await page.set_viewport_size({"width": width, "height": height})
        await console.about(console.scene.customer, name)
        await console.choose("Find")
        await page.get_by_role("button", name="Execute query").click()
        await expect(page.locator(".result-window")).to_contain_text(name)

        answer = await page.locator(".graphiql-response").bounding_box()
        cut = "(each) => each.scrollWidth > each.clientWidth"
        assert answer is not None
        assert answer["x"] >= 0
        assert answer["width"] > min(width, 600) * 0.9
        assert answer["y"] + 200 < height
        assert not await page.locator("#whom").evaluate(cut)
        assert not await page.locator("body").evaluate(cut)
        scroller = page.locator(".graphiql-query-editor .CodeMirror-scroll")
        assert width < 1280 or not await scroller.evaluate(cut)
    finally:
        await page.set_viewport_size(VIEW)
