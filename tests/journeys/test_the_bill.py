"""The whole path on real parts: usage, Stripe's draft, webhooks, the panel's amounts."""

import asyncio
import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.services import Services
from billing.usage import Period
from demo import focus_sample
from tests.support import sample
from tests.support.queries import current_period, synced
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import System

BATCH = 250


async def send(system: System, lines: list[bytes]) -> dict[str, int]:
    """Send usage lines in batches; return the numbers of accepted and duplicate ones."""
    counted = {"accepted": 0, "duplicates": 0}
    async with system.caller("metering") as metering:
        for start in range(0, len(lines), BATCH):
            content = b"\n".join(lines[start : start + BATCH])
            answer = await metering.http.post("/usage", content=content)
            report = answer.json()
            assert answer.is_success, report
            assert report["rejected"] == []
            for row in counted:
                counted[row] += report[row]
    return counted


@pytest.mark.timeout(180)
async def test_drafts_equal_the_sample_to_the_cent(
    system: System,
    services: Services,
    sandbox: StripeSandbox,
) -> None:
    """1,000 real rows, sent twice and out of order during syncs, add up to the sum of the file."""
    ids = await sample.put_into_stripe(services)
    now = datetime.now(UTC)
    lines = [
        sample.usage_line(delta, ids)
        for delta in focus_sample.deltas(Period.containing(now).start, now)
    ]
    twice = lines * 2
    random.Random(20260901).shuffle(twice)
    most = max(
        ids,
        key=lambda account: sum(
            delta.account == account for delta in focus_sample.deltas(now, now)
        ),
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
        drafts = await services.stripe.list_all(
            "/v1/invoices", {"customer": customer}, lane="customer"
        )
        found = {}
        for draft in drafts:
            assert draft["status"] == "draft"
            shown = await services.stripe.list_all(
                f"/v1/invoices/{draft['id']}/lines", lane="customer"
            )
            found = sample.shown_lines(shown)
            assert draft["total"] == sum(found.values())
        assert len(drafts) <= 1
        assert found == expected.get(account, {})
    assert four["total"] == four["inStripe"] == Decimal(sum(expected[most].values())) / 100
    assert four["pending"] == four["claimed"] == 0
