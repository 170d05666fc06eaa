"""The ledger: the durable, exact memory of usage, from which every bill is made.

``Ledger`` is one object with five doors: ``recording`` (usage comes in), ``flushing`` (workers tell
Stripe), ``support`` (corrections), ``holds`` and ``reading``. Each change of state is one Lua script in
``scripts``; ``server`` runs them, ``wire`` turns what they keep into snapshots, ``syncs``
reads what became of each flush, ``health`` says what an acknowledgement is worth.
"""

from billing.ledger.adjustments import Adjustment, NewAdjustment, Support
from billing.ledger.health import Health
from billing.ledger.holds import Holds, StandingHold
from billing.ledger.leases import Flushing, Held
from billing.ledger.policy import LedgerPolicy
from billing.ledger.queries import Reading
from billing.ledger.usage import DeltaOutcome, Recording

__all__ = [
    "Adjustment",
    "DeltaOutcome",
    "Held",
    "Ledger",
    "LedgerPolicy",
    "NewAdjustment",
    "StandingHold",
]


class Ledger(Recording, Flushing, Support, Holds, Reading, Health):
    """The ledger in *redis*. ``open()`` before use."""

    async def open(self) -> None:
        """Look at the server and settle its epoch; LedgerUnavailable when it cannot be used."""
        await self._server.open()

    async def begin_epoch(self) -> None:
        """Have every unsealed period verified against Stripe before its next write.

        A replaced server is noticed without this; it is for one whose keys were restored or edited while
        it ran. ``python -m billing.ledger begin-epoch`` does it.
        """
        await self._server.begin_epoch()
