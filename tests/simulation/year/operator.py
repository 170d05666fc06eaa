"""The operator: brings the product to rest, and decides what only a person can decide."""

import argparse
import contextlib
import io
from typing import TYPE_CHECKING

from billing.audit import AuditLog
from billing.invoicing.snapshot import CUSTOMER_DELETED, PeriodState, Snapshot
from billing.ledger import cli
from billing.usage import CustomerId
from billing.usage_validation import RawDelta
from tests.simulation.year.catalog import SKUS

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

# Failures that name something a person can do; any other is a period that is stuck for ever.
CURABLE = {"two_drafts", "no_room", CUSTOMER_DELETED, "crash_loop"}


class Operator:
    """Decisions about what waits: holds, parked periods, lost usage."""

    def __init__(self, world: "YearWorld") -> None:
        self._world = world
        self._written_off: set[tuple[str, str]] = set()

    async def correct_currency(self, customer: CustomerId) -> None:
        """Undo a stray delta, the first of a customer, that was in another currency than theirs."""
        world, home = self._world, self._world.home[customer]
        if await world.ledger.usage.registered_currencies([customer]):
            return
        sku = next(sku for sku, code in SKUS.items() if code != home)
        for quantity in ("7", "-7"):
            at = world.current_time().isoformat()
            await world.producers.send([RawDelta(f"stray {quantity}", customer, sku, quantity, at)])
        options = argparse.Namespace(customer=customer, currency=home, reason="a mistake")
        with contextlib.redirect_stdout(io.StringIO()):
            await cli._set_currency("", world.ledger, AuditLog(world.redis), options)
        undone = {
            f"stray {quantity}" for quantity in ("7", "-7")
        } <= world.books.page.entries.keys()
        known = (await world.ledger.usage.registered_currencies([customer])).get(customer, home)
        world.oracle.require(known == home or not undone, f"{customer} stays in {known}")
        world.counts["operator: currencies corrected"] += 1

    async def accept_loss(self) -> None:
        """Run ``accept-loss`` for all customers."""
        world = self._world
        rewound = await world.ledger.periods.list_rewound()
        for snapshot in rewound:
            world.oracle.accept_loss(snapshot.customer)
        world.note(
            f"operator: accepts the loss of {[str(snapshot.period) for snapshot in rewound]}"
        )
        world.counts["operator: losses accepted"] += len(rewound)
        options = argparse.Namespace(customer=None, yes=True, reason="nothing is left")
        with contextlib.redirect_stdout(io.StringIO()):
            await cli._accept_loss("redis://x", world.ledger, AuditLog(world.redis), options)

    async def decide(self) -> bool:
        """Decide about everything that waits for a person; False if nothing does."""
        world, decided = self._world, False
        if await world.ledger.periods.list_rewound():
            await self.accept_loss()
            decided = True
        for customer in world.customers:
            while (hold := await world.ledger.holds.get(customer)) is not None:
                world.oracle.check_hold(customer, hold)
                world.note(f"operator: releases {customer}: {hold.reason[:60]}")
                await world.ledger.holds.release(customer, hold)
                decided = True
            for snapshot in await self._unsealed(customer):
                if snapshot.parked_reason and await self._cure(snapshot):
                    decided = True
        return decided

    async def _unsealed(self, customer: CustomerId) -> list[Snapshot]:
        ledger = self._world.ledger
        return [
            snapshot
            for month in await ledger.periods.list_retained(customer)
            if (snapshot := await ledger.periods.snapshot(customer, month)).state
            is not PeriodState.SEALED
        ]

    async def _cure(self, snapshot: Snapshot) -> bool:
        """Do what the reason of a parked period asks for; False if that was done before."""
        world, reason = self._world, snapshot.parked_reason
        world.note(f"operator: cures {snapshot.customer} {snapshot.period}: {reason}")
        world.counts[f"parked: {reason}"] += 1
        world.oracle.require_curable(snapshot, reason in CURABLE)
        if reason == CUSTOMER_DELETED:
            world.oracle.check_unbillable(snapshot)
            key = (snapshot.customer, str(snapshot.period))
            if key in self._written_off:
                return False
            self._written_off.add(key)
            await world.support.write_off(snapshot.customer, snapshot.period)
        elif reason in ("two_drafts", "no_room"):
            for invoice in list(world.stripe.invoices.values()):
                period = invoice["metadata"].get("gw_period")
                mine = invoice["customer"] == snapshot.customer and period == str(snapshot.period)
                if mine and invoice["status"] == "draft" and not invoice.get("from_invoice"):
                    world.oracle.unregister_foreign_lines(invoice["id"])
                    invoice["lines"] = [line for line in invoice["lines"] if line["metadata"]]
        await world.ledger.due.wake(snapshot.customer, snapshot.period)
        return True
