"""The ledger: the durable, exact record of usage, from which every bill is computed.

``Ledger`` is composed of parts, each in the module of its name. Each state change is one Lua script in
``scripts``; ``server`` runs them, ``codec`` converts between stored values and snapshots.
"""

import time
from collections.abc import Callable
from secrets import token_hex

from billing.ledger.adjustments import Adjustment, Adjustments, NewAdjustment
from billing.ledger.books import Books
from billing.ledger.due import DueQueue
from billing.ledger.health import Health
from billing.ledger.holds import ActiveHold, Holds
from billing.ledger.leases import LeasedPeriod, Leases
from billing.ledger.periods import Periods
from billing.ledger.policy import LedgerPolicy
from billing.ledger.server import Client, Server
from billing.ledger.syncs import Syncs
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


class Ledger:
    """The ledger in *redis*. Call ``open()`` before use.

    *nonce* makes unique texts. *clock* (ms) replaces the server's own time, for simulations.
    *wall_clock* is this machine's time in seconds.
    """

    def __init__(
        self,
        redis: Client,
        *,
        policy: LedgerPolicy | None = None,
        nonce: Callable[[], str] = lambda: token_hex(8),
        clock: Callable[[], int] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        policy = policy or LedgerPolicy()
        server = self._server = Server(redis, nonce, clock)
        self.usage = Usage(server, policy)
        self.due = DueQueue(server, policy)
        self.leases = Leases(server, policy)
        self.periods = Periods(server, policy)
        self.adjustments = Adjustments(server, policy)
        self.holds = Holds(server, policy)
        self.books = Books(server, policy)
        self.syncs = Syncs(server, policy)
        self.health = Health(server, policy, wall_clock)

    async def open(self, *, create: bool = True) -> None:
        """Connect to the server and establish its epoch; LedgerUnavailable if it cannot be used.

        An empty server becomes a new ledger; without *create* it cannot be used.
        """
        await self._server.open(create=create)

    async def begin_epoch(self) -> None:
        """Require every unsealed period to be verified against Stripe before its next write.

        A replaced server is detected automatically. Use this when keys were restored or edited
        while the server ran. ``python -m billing.ledger begin-epoch`` calls it.
        """
        await self._server.begin_epoch()
