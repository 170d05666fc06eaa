"""Number of Stripe reads that the panel's own query takes."""

import asyncio
import re
from pathlib import Path

from tests.resolvers.conftest import ApiHarness, panel_viewer
from tests.support.stripe_sandbox import StripeSandbox

PANEL = Path(__file__).parents[2] / "examples" / "panel" / "panel.js"


async def test_concurrent_cold_pages_share_one_set_of_stripe_reads(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """Twenty concurrent cold panels take at most four reads, and the next one none."""
    [query] = re.findall(r"const PANEL = `(.*?)`", PANEL.read_text(), re.DOTALL)
    customer = await api.shop.customer()
    await api.attach_card(customer)
    await api.record_usage(customer, "1000000")
    await api.flush(customer)
    await api.services.cache.invalidate(customer)
    await sandbox.reset_counters()

    shown = await asyncio.gather(
        *(api.query(panel_viewer(customer), query, id=customer, by="APP") for _ in range(20))
    )
    cold = (await sandbox.counters())["reads"]
    await api.query(panel_viewer(customer), query, id=customer, by="APP")

    assert all(page["shown"]["usage"] for page in shown)
    assert 0 < cold <= 4
    assert (await sandbox.counters())["reads"] == cold
