"""Support at its console: every mutation, also on old months, old syncs and old events, through the real resolvers."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from billing.errors import ErrorCode, Refused, Unavailable
from billing.usage import CustomerId, Period
from resolvers.context import Context, Role, Viewer
from resolvers.mutations import finalize_invoice as finalizing
from resolvers.mutations.adjust_usage import Correction, adjust_usage
from resolvers.mutations.hold_billing import hold_billing
from resolvers.mutations.preview_sync import preview_sync
from resolvers.mutations.release_billing import release_billing
from resolvers.mutations.repair_drift import repair_drift
from resolvers.mutations.replay_webhook_event import replay_webhook_event
from resolvers.mutations.retry_sync import retry_sync
from resolvers.mutations.sync_billing import sync_billing
from tests.simulation.year.catalog import SKUS

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

Act = Callable[[], Awaitable[Any]]


class Support:
    """Support's acts; a refusal is an answer, and an outage is tried again by nobody."""

    def __init__(self, world: "YearWorld") -> None:
        self._world = world
        self._keys = 0

    async def act(self) -> None:
        """Do one thing, whatever the state of what it concerns."""
        acts = [self.adjust, self.adjust, self.preview, self.sync, self.retry, self.retry]
        acts += [self.hold, self.release, self.release, self.finalize, self.finalize]
        acts += [self.repair, self.replay, self.poll]
        await self._world.rng.choice(acts)()

    async def adjust(self) -> None:
        """Correct this month's bill, or any other."""
        world, rng = self._world, self._world.rng
        customer, month = self._customer(), self._month()
        sku = rng.choice([sku for sku, code in SKUS.items() if code == world.home[customer]])
        quantity = rng.choice(["-3", "2", "0.5", "-120.25", "1"])
        correction = Correction(sku, quantity, str(month) if month else None)
        allowed = await world.oracle.correction_prices(customer, sku, month)
        self._keys += 1
        made = await self._try(
            "adjust",
            lambda: adjust_usage(
                self._context(),
                customer,
                correction,
                reason="why",
                idempotency_key=f"k{self._keys}",
            ),
        )
        if made is not None:
            adjustment = made.adjustment.adjustment
            world.oracle.check_correction_price(adjustment, allowed)
            world.books.enter_adjustment(adjustment)

    async def preview(self) -> None:
        """Look at what a correction would do."""
        customer, month = self._customer(), self._month()
        sku = self._world.rng.choice(sorted(SKUS))
        correction = self._world.rng.choice(
            [None, Correction(sku, "-1", str(month) if month else None)]
        )
        await self._try("preview", lambda: preview_sync(self._context(), customer, correction))

    async def sync(self) -> None:
        """Ask for a sync, as a panel or as Support."""
        customer = self._customer()
        await self._try("sync", lambda: sync_billing(self._context(), customer))

    async def retry(self) -> None:
        """Retry a sync of any age."""
        world = self._world
        customer = self._customer()
        page = await world.ledger.syncs.page(100, customer=customer)
        if page.items:
            sync = world.rng.choice(page.items)
            await self._try("retry", lambda: retry_sync(self._context(), sync.id, None))

    async def hold(self) -> None:
        """Hold a customer's billing, always in the same words."""
        customer, key = self._customer(), self._key()
        await self._try("hold", lambda: hold_billing(self._context(), customer, "review", key))

    async def release(self) -> None:
        """Release whatever hold there is, unless it is for lost usage: that is for the operator."""
        customer = self._customer()
        hold = await self._world.ledger.holds.get(customer)
        if hold is not None and not hold.reason.startswith("The ledger has lost"):
            self._world.oracle.check_hold(customer, hold)
            context = self._context()
            await self._try("release", lambda: release_billing(context, customer, "ok", None))

    async def finalize(self) -> None:
        """Finalize a draft of the gateway's, or a copy of one of its bills."""
        world = self._world
        drafts = [
            invoice
            for invoice in world.stripe.invoices.values()
            if invoice["status"] == "draft" and invoice["lines"] and not invoice.get("from_invoice")
        ]
        if drafts:
            draft = world.rng.choice(drafts)
            found = await self._try(
                "finalize", lambda: finalizing.finalize_invoice(self._context(), draft["id"], "now")
            )
            if found is not None:
                world.oracle.promise_final(draft["id"])

    async def repair(self) -> None:
        """Restore the gateway's lines."""
        customer = self._customer()
        await self._try("repair", lambda: repair_drift(self._context(), customer, "drift"))

    async def replay(self) -> None:
        """Process an event of any age again."""
        world = self._world
        if world.stripe.events:
            event = world.rng.choice(world.stripe.events)["id"]
            await self._try("replay", lambda: replay_webhook_event(self._context(), event, None))

    async def poll(self) -> None:
        """Fetch the events that never arrived."""
        self._world.crons.poll_requested = True

    async def write_off(self, customer: CustomerId, month: Period) -> bool:
        """Take off what cannot be billed of a deleted customer; False if that is refused."""
        world = self._world
        snapshot = await world.ledger.periods.snapshot(customer, month)
        for line, quantity in snapshot.totals.items():
            sku = line.split("~")[0]
            if not quantity or line.startswith("adj:"):
                continue
            self._keys += 1
            correction = Correction(sku, f"{-quantity:f}", str(month))
            made = await self._try(
                "write off",
                lambda correction=correction: adjust_usage(  # type: ignore[misc]
                    self._context(),
                    customer,
                    correction,
                    reason="gone",
                    idempotency_key=f"k{self._keys}",
                ),
            )
            if made is None:
                return False
            world.books.enter_adjustment(made.adjustment.adjustment)
        return True

    async def _try(self, name: str, act: Act) -> Any:
        world = self._world
        world.note(f"support: {name}")
        try:
            result = await act()
        except Refused as refusal:
            world.note(f"  refused: {refusal.code}")
            world.counts[f"support: {name} refused: {refusal.code}"] += 1
            world.oracle.require(
                refusal.code is not ErrorCode.IDEMPOTENCY_CONFLICT, f"{name}: {refusal.message}"
            )
            return None
        except Unavailable:
            world.counts[f"support: {name} failed"] += 1
            return None
        world.counts[f"support: {name}"] += 1
        return result

    def _context(self) -> Context:
        return Context.for_viewer(Viewer("agent", Role.SUPPORT), self._world.services)

    def _customer(self) -> CustomerId:
        return self._world.rng.choice(self._world.customers)

    def _key(self) -> str | None:
        self._keys += 1
        return self._world.rng.choice([None, f"k{self._keys}"])

    def _month(self) -> Period | None:
        """This month, the last, or one of up to a year ago."""
        month = self._world.current_month()
        for _ in range(self._world.rng.choice([0, 0, 0, 1, 1, 2, 4, 9])):
            month = month.previous()
        return self._world.rng.choice([None, month, month])
