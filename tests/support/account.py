"""A customer at the local Stripe, with everything a test does to one and wants to know of one."""

from decimal import Decimal
from typing import Any

from billing.budget import Lane
from billing.invoicing.snapshot import Snapshot
from billing.ledger import NewAdjustment
from billing.ledger.syncs import Sync
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import WebhookWorld
from workers.flush.flush import flush
from workers.flush.outcome import FlushResult
from workers.flush.policy import FlushContext


class Account:
    """One customer: record usage, flush, read Stripe."""

    def __init__(self, world: WebhookWorld, customer: CustomerId, period: Period) -> None:
        self.world = world
        self.customer = customer
        self.period = period
        self.context = FlushContext.from_services(world.services)

    async def use(self, quantity: str, sku: str = "egress-gb", **facts: str) -> None:
        """Record usage."""
        report = await record_usage(
            self.world.services, [delta(self.customer, quantity, sku, **facts)]
        )
        assert report.accepted == 1, report

    async def flush(self) -> FlushResult:
        """Flush as a worker does."""
        return await flush(self.customer, self.period, self.context, lane=Lane.CUSTOMER)

    async def last_sync(self) -> Sync:
        """The record of what was told to Stripe last."""
        sync = await self.world.services.ledger.syncs.latest(self.customer)
        assert sync is not None, "nothing was told"
        return sync

    async def snapshot(self) -> Snapshot:
        """Return the ledger's snapshot."""
        return await self.world.services.ledger.periods.snapshot(self.customer, self.period)

    async def invoices(self) -> list[dict[str, Any]]:
        """Return the invoices at Stripe."""
        query = {"customer": self.customer}
        return await self.world.services.stripe.list_all("/v1/invoices", query, lane=Lane.SUPPORT)

    async def lines(self) -> dict[str, tuple[str, int]]:
        """Our lines on the only invoice: quantity told and amount; others' by their description."""
        (invoice,) = await self.invoices()
        path = f"/v1/invoices/{invoice['id']}/lines"
        found = await self.world.services.stripe.list_all(path, lane=Lane.SUPPORT)
        return {
            line["metadata"].get("gw_line", line["description"]): (
                line["metadata"].get("gw_quantity", ""),
                line["amount"],
            )
            for line in found
        }

    async def calls(self, endpoint: str) -> int:
        """The number of calls to Stripe."""
        return await self.world.sandbox.calls(endpoint)

    async def adjust(self, quantity: str, key: str, month: Period | None = None) -> None:
        """Support corrects the bill."""
        price = (await self.world.services.price_catalog.by_sku(["egress-gb"]))["egress-gb"]
        adjustment = NewAdjustment(
            self.customer, "egress-gb", Decimal(quantity), "goodwill", "agent", key, month
        )
        await self.world.services.ledger.adjustments.create(adjustment, price)
