"""The caller of an operation, as far as the GraphQL endpoint needs to know it."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Authenticate = Callable[[object], Awaitable["Caller"]]
"""Maps an Authorization header's value (None when absent) to its caller; raises an HTTP error if it names none."""

MAX_CONNECTION_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of a token.

    *name* keys the person's allowance and the connection limit; callers of the same *group* share an allowance
    as well. Connections end at *expires_at* (Unix seconds). *may_introspect* allows introspection and
    suggestions in error messages. *may_send_ad_hoc* allows documents outside the trusted manifest.
    *new_context* makes the context of one operation. Each id or cursor in an operation, but *own_ids*, reserves
    *lookup_cost* until it is found.
    """

    name: str
    new_context: Callable[[], Any]
    expires_at: float = float("inf")
    may_introspect: bool = True
    may_send_ad_hoc: bool = True
    group: str = ""
    lookup_cost: int = 0
    own_ids: frozenset[str] = frozenset()

    def remaining_seconds(self) -> float:
        """Return how long a connection opened now may last."""
        return min(max(self.expires_at - time.time(), 0.0), MAX_CONNECTION_SECONDS)

    def outlives_connection(self) -> bool:
        """True if the token is valid for longer than a connection opened now may last."""
        return self.expires_at - time.time() > MAX_CONNECTION_SECONDS
