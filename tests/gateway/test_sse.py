"""GraphQL over SSE, distinct connections mode, and every way a stream ends."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.graphql import sse
from tests.support.gateway_server import SmallGateway
from tests.support.wait import wait_until

SILENCE = {"query": "subscription { silence }"}
EVENTS = {"Accept": "text/event-stream"}


@asynccontextmanager
async def follow(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> AsyncIterator[AsyncIterator[str]]:
    """Yield the blocks of the stream that answers *body*."""
    async with client.stream("POST", "/graphql", json=body, headers=EVENTS) as response:
        assert response.status_code == 200
        yield read_blocks(response)


async def read_blocks(response: httpx.Response) -> AsyncIterator[str]:
    """Yield the text between empty lines, with LF as the line end, which is the only one urql splits on."""
    text = ""
    async for chunk in response.aiter_text():
        text += chunk
        while "\n\n" in text:
            block, text = text.split("\n\n", 1)
            yield block


async def test_events_end_in_lf_alone(client: httpx.AsyncClient) -> None:
    """Urql splits on nothing else; the complete event has a data field, which browsers need."""
    response = await client.post(
        "/graphql", json={"query": "subscription { count(to: 1) }"}, headers=EVENTS
    )

    first, complete, rest = response.text.split("\n\n")
    assert "\r" not in response.text
    assert first.startswith('event: next\ndata: {"data":{"count":1}')
    assert [complete, rest] == ["event: complete\ndata:", ""]


@pytest.mark.parametrize(
    ("method", "query", "kinds"),
    [
        ("POST", "{ hello }", ["data"]),
        ("POST", "mutation { add(a: 1, b: 2) }", ["data"]),
        ("POST", "subscription { count(to: 2) }", ["data", "data"]),
        ("GET", "{ hello }", ["data"]),
        ("GET", "subscription { count(to: 2) }", ["data", "data"]),
        ("GET", "mutation { add(a: 1, b: 2) }", ["errors"]),
        ("POST", "{ unknown }", ["errors"]),
        ("POST", "{", ["errors"]),
    ],
)
async def test_every_operation_type_streams(
    client: httpx.AsyncClient, method: str, query: str, kinds: list[str]
) -> None:
    """GET may not change anything here either; request errors are events of the stream."""
    arguments = {"params" if method == "GET" else "json": {"query": query}}

    response = await client.request(method, "/graphql", headers=EVENTS, **arguments)

    data = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    assert kinds == [next(iter(json.loads(block))) for block in data]
    assert response.text.endswith("event: complete\ndata:\n\n")


async def test_stream_without_token_is_a_401(
    client: httpx.AsyncClient,
) -> None:
    """As JSON, before the stream starts."""
    response = await client.post("/graphql", json=SILENCE, headers={**EVENTS, "Authorization": ""})

    assert response.status_code == 401


async def test_disconnect_closes_the_generator(
    client: httpx.AsyncClient, small_gateway: SmallGateway
) -> None:
    """At once, not with the next event or heartbeat."""
    async with follow(client, SILENCE) as events:
        await anext(events)

    await wait_until(lambda: "silence closed" in small_gateway.recorder.entries)


async def test_idle_stream_sends_heartbeats(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies close a connection that they believe dead."""
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)

    async with follow(client, SILENCE) as events:
        received = [await anext(events) for _ in range(4)]

    assert received.count(":") >= 3


async def test_stream_ends_when_its_token_expires(
    client: httpx.AsyncClient, small_gateway: SmallGateway
) -> None:
    """With an error and a complete event, so that clients do not reconnect with the same token."""
    small_gateway.caller = lambda caller: replace(caller, expires_at=time.time() + 0.2)

    async with follow(client, SILENCE) as events:
        received = [block async for block in events]

    assert "UNAUTHENTICATED" in received[1]
    assert received[2] == "event: complete\ndata:"
    await wait_until(lambda: "silence closed" in small_gateway.recorder.entries)


async def test_stream_ends_without_complete_on_shutdown(
    client: httpx.AsyncClient, small_gateway: SmallGateway
) -> None:
    """A missing complete event makes clients reconnect."""
    async with follow(client, SILENCE) as events:
        await anext(events)
        small_gateway.shutdown.set()
        rest = [block async for block in events]

    assert rest == []
    await wait_until(lambda: "silence closed" in small_gateway.recorder.entries)


async def test_stream_under_a_longer_token_ends_for_a_reconnect(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is still valid has not expired: no error, and no complete event."""
    monkeypatch.setattr("gateway.auth.caller.MAX_CONNECTION_SECONDS", 0.1)
    async with follow(client, SILENCE) as events:
        await anext(events)
        rest = [block async for block in events]

    assert rest == []


async def test_slow_reader_delays_the_next_event(address: str, small_gateway: SmallGateway) -> None:
    """It fills its socket's buffer, not the gateway's memory."""
    reader, writer = await asyncio.open_connection(*address.split(":"), limit=1024)
    body = json.dumps({"query": "subscription { flood }"})
    writer.write(
        f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    await reader.read(100)
    before = -1
    async with asyncio.timeout(10):
        while before != small_gateway.recorder.produced:
            before = small_gateway.recorder.produced
            await asyncio.sleep(0.3)

    assert small_gateway.recorder.produced < 2_000
    writer.close()
