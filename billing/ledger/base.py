"""Base class of the ledger's parts: the server, the policy and the nonce generator."""

import time
from collections.abc import Callable
from secrets import token_hex

from billing.ledger.policy import LedgerPolicy
from billing.ledger.server import Client, Server


def new_nonce() -> str:
    """Return a nonce of 16 hex digits."""
    return token_hex(8)


class LedgerPart:
    """One part of the ledger.

    *clock* (ms) replaces the server's own time, for simulations. *wall_clock* is this machine's
    time in seconds.
    """

    def __init__(
        self,
        redis: Client,
        *,
        policy: LedgerPolicy | None = None,
        nonce: Callable[[], str] = new_nonce,
        clock: Callable[[], int] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._wall_clock = wall_clock
        self._policy = policy or LedgerPolicy()
        self._new_nonce = nonce
        self._server = Server(redis, nonce, clock)
