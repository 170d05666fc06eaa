"""The ledger: the durable, exact record of usage, from which every bill is computed.

``Ledger`` combines ``usage`` (recording), ``leases`` (flushing to Stripe), ``adjustments``,
``holds``, ``queries`` and ``health``. Each state change is one Lua script in ``scripts``;
``server`` runs them, ``codec`` converts between stored values and snapshots, ``syncs`` reads the
record of each flush.
"""

from billing.ledger.adjustments import Adjustment, Adjustments, NewAdjustment
from billing.ledger.health import Health
from billing.ledger.holds import ActiveHold, Holds
from billing.ledger.leases import LeasedPeriod, Leases
from billing.ledger.policy import LedgerPolicy
from billing.ledger.queries import Queries
from billing.ledger.usage import DeltaOutcome, Usage

__all__ = [
    "ActiveHold",
    "Adjustment",
    "DeltaOutcome",
    "LeasedPeriod",
    "Ledger",
    "LedgerPolicy",
    "NewAdjustment",
]


class Ledger(Usage, Leases, Adjustments, Holds, Queries, Health):
    """The ledger in *redis*. Call ``open()`` before use."""

    async def open(self) -> None:
        """Connect to the server and establish its epoch; LedgerUnavailable if it cannot be used."""
        await self._server.open()

    async def begin_epoch(self) -> None:
        """Require every unsealed period to be verified against Stripe before its next write.

        A replaced server is detected automatically. Use this when keys were restored or edited
        while the server ran. ``python -m billing.ledger begin-epoch`` calls it.
        """
        await self._server.begin_epoch()
