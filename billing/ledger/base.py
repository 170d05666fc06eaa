"""What the ledger's doors have in common: the server, the policy, fresh nonces."""

import time
from collections.abc import Callable
from secrets import token_hex

from billing.ledger.policy import LedgerPolicy
from billing.ledger.server import Client, Server


def token_hex8() -> str:
    """A nonce: 16 hex digits."""
    return token_hex(8)


class Door:
    """*clock* (ms) stands in for the server's own time where one is given: the simulation's.

    *wall* is this machine's time, in seconds.
    """

    def __init__(
        self,
        redis: Client,
        *,
        policy: LedgerPolicy | None = None,
        nonce: Callable[[], str] = token_hex8,
        clock: Callable[[], int] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._wall = wall
        self._policy = policy or LedgerPolicy()
        self._nonce = nonce
        self._server = Server(redis, nonce, clock)
