"""The whole path on real parts: usage in, a draft at Stripe, webhooks back, the panel's numbers."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing.services import Services
from billing.settings import Settings
from billing.usage import Period
from demo import focus
from tests.support import sample
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import Caller, System, until

WEBHOOK_SECRET = "whsec_test_0123456789abcdef"
BATCH = 250

PERIOD = """query Period($id: ID!) { customer(id: $id) {
  currentPeriod { state inStripe { amount } claimed { amount } pending { amount } total { amount } invoice { id status total { amount } } }
  syncState { status pendingDeltas }
  invoices(first: 5) { nodes { id status total { amount } hostedInvoiceUrl } }
  freshness { source } } }"""
SYNC = """mutation Sync($id: ID!) { syncBilling(input: {customerId: $id}) { coalesced errors { code message } sync { id status } } }"""
SYNC_STATUS = """query Status($id: ID!) { sync(id: $id) { status stripeCalls linesAdded linesUpdated linesRemoved failure { code message } } }"""


@pytest.fixture
async def system(
    settings: Settings,
    services: Services,
    sandbox: StripeSandbox,
    tmp_path: Path,
) -> AsyncIterator[System]:
    """The gateway and one worker, with Stripe's webhooks coming in."""
    started = System(settings, tmp_path)
    await sandbox.hear(f"{started.url}/webhooks/stripe", WEBHOOK_SECRET)
    try:
        await started.start_gateway()
        started.start_worker()
        yield started
    finally:
        started.stop()


async def send(system: System, lines: list[bytes]) -> dict[str, int]:
    """Send usage lines in batches; how many were accepted and how many known before."""
    counted = {"accepted": 0, "duplicates": 0}
    async with system.caller("metering") as metering:
        for start in range(0, len(lines), BATCH):
            content = b"\n".join(lines[start : start + BATCH])
            answer = await metering.http.post("/usage", content=content)
            report = answer.json()
            assert answer.is_success, report
            assert report["rejected"] == []
            for each in counted:
                counted[each] += report[each]
    return counted


async def synced(caller: Caller, customer: str) -> dict[str, Any]:
    """Ask for a sync and wait until it has finished; the finished Sync."""
    asked = (await caller.ask(SYNC, id=customer))["syncBilling"]
    assert asked["errors"] == []

    async def finished() -> Any:
        sync = (await caller.ask(SYNC_STATUS, id=asked["sync"]["id"]))["sync"]
        assert sync["status"] != "FAILED", sync
        return sync if sync["status"] == "SUCCEEDED" else None

    found: dict[str, Any] = await until(finished, "the sync has finished", seconds=60)
    return found


async def current_period(caller: Caller, customer: str) -> dict[str, Decimal]:
    """The four numbers of a customer's period."""
    period = (await caller.ask(PERIOD, id=customer))["customer"]["currentPeriod"]
    return {
        name: Decimal(period[name]["amount"])
        for name in ("inStripe", "claimed", "pending", "total")
    }


@pytest.mark.timeout(180)
async def test_each_draft_is_the_csv_to_the_cent(
    system: System,
    services: Services,
    sandbox: StripeSandbox,
) -> None:
    """1,000 real rows, sent twice and out of order while syncs run, come to the sum of the file."""
    ids = await sample.put_into_stripe(services)
    now = datetime.now(UTC)
    lines = [
        sample.usage_line(each, ids) for each in focus.deltas(Period.containing(now).start, now)
    ]
    twice = lines * 2
    random.Random(20260901).shuffle(twice)  # noqa: S311
    most = max(
        ids, key=lambda account: sum(each.account == account for each in focus.deltas(now, now))
    )
    watched = ids[most]

    async with system.caller("support") as support:
        sending = asyncio.create_task(send(system, twice))
        sums_hold = 0
        while not sending.done():
            four = await current_period(support, watched)
            assert four["inStripe"] + four["claimed"] + four["pending"] == four["total"]
            sums_hold += 1
        assert await sending == {"accepted": 1000, "duplicates": 1000}
        assert sums_hold > 0
        await asyncio.gather(*(synced(support, customer) for customer in ids.values()))
        four = await current_period(support, watched)

    expected = sample.expected_lines()
    for account, customer in ids.items():
        drafts = await services.stripe.pages(
            "/v1/invoices", {"customer": customer}, lane="customer"
        )
        found = {}
        for draft in drafts:
            assert draft["status"] == "draft"
            shown = await services.stripe.pages(
                f"/v1/invoices/{draft['id']}/lines", lane="customer"
            )
            found = sample.shown_lines(shown)
            assert draft["total"] == sum(found.values())
        assert len(drafts) <= 1
        assert found == expected.get(account, {})
    assert four["total"] == four["inStripe"] == Decimal(sum(expected[most].values())) / 100
    assert four["pending"] == four["claimed"] == 0
