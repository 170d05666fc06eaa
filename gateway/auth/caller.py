"""Who asks, as far as the edge has to know."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Authenticate = Callable[[object], Awaitable["Caller"]]
"""From an Authorization header's value (None without one) to the caller; HttpRefusal for nobody."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of a token.

    *name* is whose allowance and sockets are counted, *until* (seconds since 1970) when what they
    keep open ends. *introspects*: may ask for the schema, and read suggestions from it. *ad_hoc*: may
    send any document where only trusted ones run. *context* makes a fresh one for each operation, of which
    *surcharge* says what it cost beside its answer.
    """

    name: str
    context: Callable[[], Any]
    until: float = float("inf")
    introspects: bool = True
    ad_hoc: bool = True
    surcharge: Callable[[Any], int] = lambda _: 0
