"""Support at its console, people in Stripe's Dashboard, and the webhooks that tell of them."""

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
    """Everybody who may do something without asking us."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._webhooks: list[tuple[CustomerId, Period]] = []

    async def webhook(self) -> None:
        """Stripe tells, in no order, of something that a person did."""
        if self._webhooks:
            customer, period = self._webhooks.pop(self._world.rng.randrange(len(self._webhooks)))
            await self._world.ledger.request_verify(customer, period)

    async def support(self) -> None:
        """Somebody at the console."""
        customer = self._world.rng.choice(CUSTOMERS)
        deed = self._world.rng.choice(["adjust", "hold", "release", "release", "sync", "verify"])
        self._world.counts[deed] += 1
        if deed == "adjust" and not self._world.mode.rewinds:
            await self._adjust(customer)
        elif deed == "hold":
            with suppress(Refused):  # the gateway holds it already
                await self._world.ledger.hold(customer, "review", "support")
        elif deed == "release":
            await self._world.ledger.release_hold(customer)
        elif deed == "sync":
            await self._world.ledger.request_sync(customer, "ON_DEMAND")
        else:
            await self._world.ledger.request_verify(
                customer, Period.containing(self._world.moment())
            )

    async def _adjust(self, customer: CustomerId) -> None:
        """Of this month's bill, or of one that the ledger has, whatever has become of it meanwhile."""
        n, rng = self._world.counts["adjust"], self._world.rng
        months = await self._world.ledger.periods(customer)
        ended = [each for each in months if each.end <= self._world.moment()]
        month = rng.choice([None, *months, *ended[-1:] * 4])
        quantity = Decimal(rng.randrange(-3, 4) or 1)
        asked = NewAdjustment(customer, "b", quantity, "r", "s", f"k{n}", month)
        try:
            made = await self._world.ledger.adjust(asked, self._world.prices["b"])
        except Refused as refusal:
            self._world.counts[f"corrections refused: {refusal.code}"] += 1
            return
        snapshot = await self._world.ledger.peek(customer, made.period)
        self._world.counts[f"corrections of a month that is {snapshot.state}"] += 1
        self._world.oracle.adjusted(made, asked)

    async def edit(self) -> None:
        """A person in the Dashboard; the webhook of it comes late or never."""
        invoices = sorted(self._world.stripe.invoices.values(), key=lambda each: each["id"])
        drafts = [each for each in invoices if each["status"] == "draft"]
        finalized = [each for each in invoices if each["status"] == "open"]
        if finalized and self._world.rng.random() < 0.1:
            self._world.counts["edit: void"] += 1
            self._tell(self._world.rng.choice(finalized), "void")
        elif drafts:
            draft = self._world.rng.choice(drafts)
            self._world.oracle.edited[draft["id"]] = self._world.now
            self._edit_draft(draft)
        self._world.oracle.look()

    def _edit_draft(self, draft: dict[str, Any]) -> None:
        ours = [line for line in draft["lines"] if line["metadata"].get("gw_line")]
        deed = self._world.rng.choice(
            ["quantity", "amount", "drop", "foreign", "foreign", "finalize", "delete"]
        )
        self._world.counts[f"edit: {deed}"] += 1
        if deed == "foreign":
            line = self._world.stripe.foreign_line(self._world.rng.randrange(-500, 500))
            draft["lines"].append(line)
            self._world.oracle.somebody_added(draft["id"], line)
        elif deed == "finalize" and draft["lines"]:
            self._tell(draft, "open")
        elif deed == "delete":
            del self._world.stripe.invoices[draft["id"]]
            self._world.oracle.somebody_deleted(draft["id"])
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
