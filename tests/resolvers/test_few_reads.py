"""What a page costs at Stripe: the panel's own query, as a browser sends it."""

import asyncio
import re
from pathlib import Path

from tests.resolvers.conftest import Desk, panel_of
from tests.support.stripe_sandbox import StripeSandbox

PANEL = Path(__file__).parents[2] / "examples" / "panel" / "panel.js"


async def test_a_crowd_on_a_cold_page_costs_the_reads_of_one(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """Everybody opens the panel when the e-mail with the invoice arrives: four reads, then none."""
    [query] = re.findall(r"const PANEL = `(.*?)`", PANEL.read_text(), re.DOTALL)
    customer = await desk.shop.customer()
    await desk.card(customer)
    await desk.use(customer, "1000000")
    await desk.flush(customer)
    await desk.services.cache.forget(customer)
    await sandbox.reset_counters()

    shown = await asyncio.gather(
        *(desk.ask(panel_of(customer), query, id=customer, by="APP") for _ in range(20))
    )
    cold = (await sandbox.counters())["reads"]
    await desk.ask(panel_of(customer), query, id=customer, by="APP")

    assert all(each["customer"]["currentPeriod"]["usage"] for each in shown)
    assert 0 < cold <= 4
    assert (await sandbox.counters())["reads"] == cold
