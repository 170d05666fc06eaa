"""A graphql-transport-ws client for tests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

PROTOCOL = websockets.Subprotocol("graphql-transport-ws")
INIT = {"type": "connection_init", "payload": {"Authorization": "Bearer ann"}}


class WebSocketClient:
    """Sends and receives messages over *connection*."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, *messages: Any) -> None:
        """Send *messages*: text and bytes as they are, others as JSON."""
        for message in messages:
            raw = message if isinstance(message, str | bytes) else json.dumps(message)
            await self.connection.send(raw)

    async def receive(self) -> dict[str, Any]:
        """Return the next message."""
        message: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), 5))
        return message

    async def receive_within(self, seconds: float) -> str:
        """Return the next message's text, or raise TimeoutError."""
        return str(await asyncio.wait_for(self.connection.recv(), seconds))

    async def init(self) -> "WebSocketClient":
        """Send a token and expect the acknowledgement."""
        await self.send(INIT)
        assert await self.receive() == {"type": "connection_ack"}
        return self

    async def execute(self, id_: str, query: str | None, **params: Any) -> list[dict[str, Any]]:
        """Start an operation and return all its messages."""
        await self.send(subscribe(id_, query, **params))
        messages = [await self.receive()]
        while messages[-1]["type"] == "next":
            messages.append(await self.receive())
        assert {id_} == {message["id"] for message in messages}
        return messages

    async def close_code(self, seconds: float = 5) -> int:
        """Wait until the server closes the socket and return its code."""
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(self._receive_all(), seconds)
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code

    async def _receive_all(self) -> None:
        while True:
            await self.connection.recv()


def subscribe(id_: Any, query: Any, **params: Any) -> dict[str, Any]:
    """Return the message that starts an operation."""
    return {"type": "subscribe", "id": id_, "payload": {"query": query, **params}}


@asynccontextmanager
async def connect(address: str, **options: Any) -> AsyncIterator[WebSocketClient]:
    """Open a socket to *address*."""
    async with websockets.connect(
        f"ws://{address}/graphql", subprotocols=[PROTOCOL], **options
    ) as connection:
        yield WebSocketClient(connection)
