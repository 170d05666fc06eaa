"""Support's desk, used as Support uses it: paste a token, pick a tab, press play."""

import json
import re
import sys
import time
from typing import Any

import pytest
from playwright.async_api import expect

from billing.metering import moment
from tests.browser.conftest import Scene
from tests.support.asking import synced
from tests.support.system import until
from tests.support.usage_door import report

ANSWER = "document.querySelector('.result-window .CodeMirror')?.CodeMirror.getValue() ?? ''"
VARIABLES = "document.querySelector('.graphiql-editor-tool .CodeMirror').CodeMirror.getValue()"
NOTHING_PENDING = re.compile(r'"pending": \{\s*"formatted": "USD 0\.00"')


async def sit_down(scene: Scene, customer: str | None = None) -> None:
    """Open the desk with a Support token, and say whom it is about."""
    await scene.page.goto(f"{scene.system.url}/graphiql")
    await expect(scene.page.locator("#who")).to_have_text("Paste a token to begin")
    await scene.page.fill("#token", scene.system.token("support", subject="ada@fly.io"))
    await scene.page.fill("#customer", customer or scene.customer)
    await scene.page.press("#customer", "Tab")
    await expect(scene.page.locator("#who")).to_contain_text("ada@fly.io, support")


async def choose(scene: Scene, tab: str) -> None:
    """Bring *tab* to the front, and wait until the editor shows it."""
    named = re.compile(rf"^{tab}\b")  # the tab in front also has a button to close it
    await scene.page.get_by_role("tab", name=named).first.click()
    operation = re.compile(rf"(query|mutation|subscription) {tab}\b")
    await expect(scene.page.locator(".graphiql-query-editor")).to_contain_text(operation)


async def ask(scene: Scene, tab: str, **variables: str) -> Any:
    """Press play on *tab* with *variables* filled in; the answer's ``data``."""
    page = scene.page
    await choose(scene, tab)
    if variables:
        given = {**json.loads(await page.evaluate(VARIABLES)), **variables}
        await page.locator(".graphiql-editor-tool .CodeMirror").first.click()
        await page.keyboard.press("Control+A")
        await page.keyboard.insert_text(json.dumps(given))
    await page.evaluate(
        "document.querySelector('.result-window .CodeMirror')?.CodeMirror.setValue('')"
    )
    await page.click(".graphiql-execute-button")

    async def answered() -> Any:
        text = await page.evaluate(ANSWER)
        return json.loads(text) if text.strip().endswith("}") else None

    answer = await until(answered, f"{tab} is answered")
    assert "errors" not in answer, answer
    return answer["data"]


async def test_a_wrong_bill_is_found_corrected_and_seen_on_the_draft(
    scene: Scene,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From "the bill is wrong" to the corrected draft: find, look, ask why, preview, correct, see."""
    await sit_down(scene, "")
    began = time.monotonic()

    found = (await ask(scene, "Find", search="billing@acme.example"))["customers"]["nodes"]
    assert [each["id"] for each in found] == [scene.customer]
    await scene.page.fill("#customer", scene.customer)
    bill = (await ask(scene, "Bill"))["customer"]["currentPeriod"]
    assert bill["total"]["formatted"] == "USD 223.73"
    await scene.shoot("desk-bill")
    why = (await ask(scene, "Why"))["customer"]["currentPeriod"]
    assert [row["key"] for row in why["byApp"]] == ["db", "web", "jobs"]
    plan = (await ask(scene, "Preview"))["previewSync"]["plan"]
    assert plan["createsInvoice"]
    corrected = (
        await ask(scene, "Correct", sku="egress-gb", quantity="-450", reason="ticket 4711")
    )["adjustUsage"]
    assert corrected["errors"] == []
    assert corrected["adjustment"]["amount"]["formatted"] == "USD -9.00"
    assert corrected["sync"]["customer"]["currentPeriod"]["total"]["formatted"] == "USD 214.73"
    await scene.shoot("desk-correct")

    async def on_the_draft() -> bool:
        period = (await ask(scene, "Bill"))["customer"]["currentPeriod"]
        return bool(period["inStripe"]["formatted"] == period["total"]["formatted"] == "USD 214.73")

    await until(on_the_draft, "the draft shows the correction")
    seconds = time.monotonic() - began
    drafts = await scene.services.stripe.pages(
        "/v1/invoices", {"customer": scene.customer}, lane="customer"
    )
    audit = (await ask(scene, "Audit"))["customer"]["auditLog"]["nodes"]
    await scene.shoot("desk-audit")

    assert [draft["total"] for draft in drafts] == [21473]
    assert ("ada@fly.io", "adjustUsage", "ticket 4711") in {
        (each["by"], each["action"], each["reason"]) for each in audit
    }
    assert all(moment(each["at"]) for each in audit)
    assert scene.hosts == {f"127.0.0.1:{scene.system.port}"}
    assert scene.complaints == []
    with capsys.disabled():
        sys.stdout.write(f"[from question to corrected draft: {seconds:.1f} s]")


async def test_pressing_play_twice_corrects_once(scene: Scene) -> None:
    """The tab brings its own idempotency key."""
    await sit_down(scene)
    said = {"sku": "egress-gb", "quantity": "-450", "reason": "ticket 4711"}

    first = (await ask(scene, "Correct", **said))["adjustUsage"]["adjustment"]
    again = (await ask(scene, "Correct"))["adjustUsage"]["adjustment"]

    assert first["id"] == again["id"]


async def test_a_hold_stops_a_sync_and_a_release_lets_it_go_on(scene: Scene) -> None:
    """Nothing is told to Stripe while Support talks to the customer."""
    await sit_down(scene)

    held = (await ask(scene, "Hold", reason="calls at three"))["holdBilling"]
    refused = (await ask(scene, "SyncNow"))["syncBilling"]
    await scene.shoot("desk-hold")
    released = (await ask(scene, "Release", reason="agreed"))["releaseBilling"]
    allowed = (await ask(scene, "SyncNow"))["syncBilling"]

    assert held["hold"]["by"] == "ada@fly.io"
    assert [each["code"] for each in refused["errors"]] == ["ON_HOLD"]
    assert released["customer"]["hold"] is None
    assert allowed["errors"] == []


async def test_a_draft_is_followed_live(scene: Scene) -> None:
    """The subscription runs over a WebSocket of this host and shows each step."""
    await sit_down(scene)
    page = scene.page
    await choose(scene, "Follow")

    async def listening() -> bool:
        if await page.get_by_role("button", name="Execute query").is_visible():
            # Right after a change of tabs GraphiQL may still take the document for the one before.
            await page.click(".graphiql-execute-button")
        await report(scene.system, scene.customer, {"egress-gb": "1"})
        return "billingChanged" in await page.evaluate(ANSWER)

    await until(listening, "the subscription hears of usage")
    async with scene.system.caller("support") as support:
        await synced(support, scene.customer)

    async def told() -> bool:
        return bool(NOTHING_PENDING.search(await page.evaluate(ANSWER)))

    await until(told, "the followed draft has nothing left to be told")


async def test_every_other_question_is_answered(scene: Scene) -> None:
    """A ready-made tab that fails is worse than none."""
    await sit_down(scene)

    for tab in ("Invoices", "Health", "FailedWebhooks", "Audit", "Preview"):
        assert await ask(scene, tab)
    repaired = (await ask(scene, "Repair", reason="looks off"))["repairDrift"]
    replayed = (await ask(scene, "Replay", event="evt_nothing"))["replayWebhookEvent"]

    assert repaired["errors"] == []
    assert [each["code"] for each in replayed["errors"]] == ["NOT_FOUND"]


async def test_a_link_carries_a_question_and_never_a_token(scene: Scene) -> None:
    """Colleagues share what they look at, not who they are."""
    await sit_down(scene)
    await scene.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await choose(scene, "Why")
    await scene.page.get_by_role("button", name="Copy link").click()
    link = await scene.page.evaluate("navigator.clipboard.readText()")

    context = await scene.page.context.browser.new_context()  # type: ignore[union-attr]
    colleague = await context.new_page()
    await colleague.goto(link)

    await expect(colleague.locator("#customer")).to_have_value(scene.customer)
    await expect(colleague.locator(".graphiql-query-editor")).to_contain_text("Why is it so high")
    await expect(colleague.locator("#token")).to_have_value("")
    assert scene.system.token("support", subject="ada@fly.io").split(".")[0] not in link
