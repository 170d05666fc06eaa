"""A worker that is killed at any moment leaves the same bill."""

import signal
from decimal import Decimal
from typing import Any

import pytest

from billing.services import Services
from billing.settings import Settings
from tests.support.queries import PERIOD, SYNC
from tests.support.stripe_catalog import Shop
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import System
from tests.support.usage_endpoint import report
from tests.support.wait import wait_until

SLOW_SECONDS = 0.5

# What each round reports, and the call in which the worker is killed: by SKU, an absolute new total.
ROUNDS = (
    ("POST /v1/invoices", {"egress-gb": "5"}),
    ("POST /v1/invoices/{invoice}/add_lines", {"egress-gb": "5", "machine-seconds": "100000"}),
    (
        "POST /v1/invoices/{invoice}/update_lines",
        {"egress-gb": "17.5", "machine-seconds": "100000"},
    ),
    ("POST /v1/invoices/{invoice}/remove_lines", {"machine-seconds": "100000"}),
    ("GET /v1/invoices/{invoice}", {"machine-seconds": "200000", "volume-hours": "3000"}),
)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Short leases, so that a killed worker's customer is flushed again soon."""
    return settings.model_copy(update={"flush_lease": 2.0}, deep=True)


@pytest.mark.parametrize("fault", ["slow", "answer_lost_after", "answer_lost_before"])
async def test_worker_killed_in_any_call_leaves_the_same_bill(
    system: System,
    services: Services,
    sandbox: StripeSandbox,
    fault: str,
) -> None:
    """Killed before, while or after Stripe does the work: another worker goes on under the same key."""
    shop = Shop(services)
    await shop.open()
    customer = await shop.customer()
    recorded: dict[str, Decimal] = {}
    async with system.caller("support") as support:
        for endpoint, totals in ROUNDS:
            await report(system, customer, _difference(recorded, totals))
            recorded = {sku: Decimal(quantity) for sku, quantity in totals.items()}
            worker = system.running[-1]
            calls = await sandbox.calls(endpoint)
            how = {"seconds": SLOW_SECONDS} if fault == "slow" else {}
            await sandbox.fault(fault, endpoint, times=1, **how)
            await support.execute(SYNC, id=customer)

            async def called(endpoint: str = endpoint, calls: int = calls) -> bool:
                return await sandbox.calls(endpoint) > calls

            await wait_until(called, f"the worker makes {endpoint}")
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            system.start_worker()

            async def up_to_date() -> Any:
                period = (await support.execute(PERIOD, id=customer))["customer"]
                return period["syncState"]["status"] == "UP_TO_DATE"

            await wait_until(up_to_date, "another worker has finished", seconds=60)
            drafts = await services.stripe.list_all(
                "/v1/invoices", {"customer": customer}, lane="customer"
            )
            lines = {
                line["metadata"]["gw_line"]: Decimal(line["quantity_decimal"])
                for draft in drafts
                for line in draft["lines"]["data"]
            }
            assert len(drafts) == 1
            assert len(drafts[0]["lines"]["data"]) == len(lines)
            assert lines == recorded


def _difference(recorded: dict[str, Decimal], totals: dict[str, str]) -> dict[str, Decimal]:
    """The usage that turns *recorded* into *totals*."""
    now = {sku: Decimal(quantity) for sku, quantity in totals.items()}
    changed = {
        sku: now.get(sku, Decimal(0)) - recorded.get(sku, Decimal(0)) for sku in {*recorded, *now}
    }
    return {sku: change for sku, change in changed.items() if change}
