"""Support at its console, people in Stripe's Dashboard, and the webhooks that announce their edits."""

from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing.errors import Refused
from billing.ledger import NewAdjustment
from billing.usage import CustomerId, Period

if TYPE_CHECKING:
    from tests.simulation.world import World

CUSTOMERS = (CustomerId("cus_a"), CustomerId("cus_b"))


class People:
    """People who act independently of the gateway."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._webhooks: list[tuple[CustomerId, Period]] = []

    async def webhook(self) -> None:
        """Deliver a webhook of a person's edit, in random order."""
        if self._webhooks:
            customer, period = self._webhooks.pop(self._world.rng.randrange(len(self._webhooks)))
            await self._world.ledger.periods.request_verify(customer, period)

    async def support(self) -> None:
        """Run a random action of Support."""
        customer = self._world.rng.choice(CUSTOMERS)
        deed = self._world.rng.choice(["adjust", "hold", "release", "release", "sync", "verify"])
        self._world.counts[deed] += 1
        if deed == "adjust" and not self._world.mode.rewinds:
            await self._adjust(customer)
        elif deed == "hold":
            with suppress(Refused):  # the gateway holds it already
                await self._world.ledger.holds.place(customer, "review", "support")
        elif deed == "release":
            await self._world.ledger.holds.release(customer)
        elif deed == "sync":
            await self._world.ledger.syncs.request(customer, "ON_DEMAND")
        else:
            await self._world.ledger.periods.request_verify(
                customer, Period.containing(self._world.current_time())
            )

    async def _adjust(self, customer: CustomerId) -> None:
        """Adjust this month's invoice, or one of any period in the ledger, whatever its state."""
        n, rng = self._world.counts["adjust"], self._world.rng
        months = await self._world.ledger.periods.list_retained(customer)
        ended = [month for month in months if month.end <= self._world.current_time()]
        month = rng.choice([None, *months, *ended[-1:] * 4])
        quantity = Decimal(rng.randrange(-3, 4) or 1)
        requested = NewAdjustment(customer, "b", quantity, "r", "s", f"k{n}", month)
        try:
            made = await self._world.ledger.adjustments.create(requested, self._world.prices["b"])
        except Refused as refusal:
            self._world.counts[f"corrections refused: {refusal.code}"] += 1
            return
        snapshot = await self._world.ledger.periods.snapshot(customer, made.period)
        self._world.counts[f"corrections of a month that is {snapshot.state}"] += 1
        self._world.oracle.record_adjustment(made, requested)

    async def edit(self) -> None:
        """Edit as a person in the Dashboard; the webhook comes late or never."""
        invoices = sorted(self._world.stripe.invoices.values(), key=lambda invoice: invoice["id"])
        drafts = [invoice for invoice in invoices if invoice["status"] == "draft"]
        finalized = [invoice for invoice in invoices if invoice["status"] == "open"]
        if finalized and self._world.rng.random() < 0.1:
            self._world.counts["edit: void"] += 1
            self._tell(self._world.rng.choice(finalized), "void")
        elif drafts:
            draft = self._world.rng.choice(drafts)
            self._world.oracle.edited[draft["id"]] = self._world.now
            self._edit_draft(draft)
        self._world.oracle.check_lines()

    def _edit_draft(self, draft: dict[str, Any]) -> None:
        ours = [line for line in draft["lines"] if line["metadata"].get("gw_line")]
        deed = self._world.rng.choice(
            ["quantity", "amount", "drop", "foreign", "foreign", "finalize", "delete"]
        )
        self._world.counts[f"edit: {deed}"] += 1
        if deed == "foreign":
            line = self._world.stripe.foreign_line(self._world.rng.randrange(-500, 500))
            draft["lines"].append(line)
            self._world.oracle.record_foreign_line(draft["id"], line)
        elif deed == "finalize" and draft["lines"]:
            self._tell(draft, "open")
        elif deed == "delete":
            del self._world.stripe.invoices[draft["id"]]
            self._world.oracle.record_deleted_draft(draft["id"])
            self._tell(draft, "deleted")
        elif ours:
            self._edit_line(draft, self._world.rng.choice(ours), deed)

    def _edit_line(self, draft: dict[str, Any], line: dict[str, Any], deed: str) -> None:
        if deed == "drop":
            draft["lines"].remove(line)
        elif deed == "amount" or line["pricing"] is None:
            line.update(
                amount=self._world.rng.randrange(-400, 400), pricing=None, quantity_decimal="1"
            )
        else:
            price = line["pricing"]["price_details"]["price"]
            line.update(self._world.stripe.priced(price, str(self._world.rng.randrange(0, 9, 2))))
        self._tell(draft, "draft")

    def _tell(self, invoice: dict[str, Any], status: str) -> None:
        invoice["status"] = status
        if self._world.rng.random() < 0.7:
            period = Period.parse(invoice["metadata"]["gw_period"])
            self._webhooks.append((invoice["customer"], period))
