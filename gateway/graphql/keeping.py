"""Giving a whole answer again: the same token, asking the same in the same words, gets the same bytes.

It is looked for before anything else is done with a request, because only then does a repeated view
cost what a static page does. Whether an answer may be given again is the `Keeper`'s to know.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from graphql import DocumentNode, OperationDefinitionNode, OperationType
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.graphql.params import READ_SECONDS, too_slow

TELLING = frozenset({b"authorization", b"accept", b"content-type"})
"""The request headers that an answer depends on."""

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """The bytes of a 200."""

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @classmethod
    def of(cls, response: Response) -> "KeptResponse":
        """What *response* sends."""
        return cls(tuple(response.raw_headers), bytes(response.body))

    async def send(self, send: Send) -> None:
        """Send it again."""
        headers = list(self.headers)  # middleware adds to it
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Keeper(Protocol):
    """Keeps answers while they are true."""

    async def find(self, key: Key) -> KeptResponse | None:
        """The answer to *key*, if it still is one."""

    def keep(self, key: Key, response: KeptResponse, context: Any, until: float) -> None:
        """Keep *response*, if what *context* saw allows it, at most *until* (seconds since 1970)."""


@dataclass(slots=True)
class Watched:
    """Makes contexts as *make* does, and remembers the last."""

    make: Callable[[], Any]
    made: Any = None

    def __call__(self) -> Any:
        """A context."""
        self.made = self.make()
        return self.made


async def begin(scope: Scope, receive: Receive) -> tuple[Key | None, Receive]:
    """The key of a POST that comes in one piece, None for others; and a *receive* that begins anew."""
    if scope["method"] != "POST":
        return None, receive
    try:
        async with asyncio.timeout(READ_SECONDS):
            first = await receive()
    except TimeoutError:
        raise too_slow() from None
    unread: list[Message] = [first]
    key = None
    if first["type"] == "http.request" and not first.get("more_body"):
        key = (*[each for each in scope["headers"] if each[0] in TELLING], first.get("body"))

    async def again() -> Message:
        return unread.pop() if unread else await receive()

    return key, again


def only_asks(document: DocumentNode | None) -> bool:
    """Whether nothing in *document* changes anything, or lasts."""
    return document is not None and all(
        each.operation is OperationType.QUERY
        for each in document.definitions
        if isinstance(each, OperationDefinitionNode)
    )
