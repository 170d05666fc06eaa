"""GraphQL over SSE, distinct connections mode, and the ends of a stream's life."""

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
from tests.gateway.waiting import until
from tests.support.gateway_server import Edge

SILENCE = {"query": "subscription { silence }"}
EVENTS = {"Accept": "text/event-stream"}


@asynccontextmanager
async def followed(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> AsyncIterator[AsyncIterator[str]]:
    """The blocks of the stream that answers *body*."""
    async with client.stream("POST", "/graphql", json=body, headers=EVENTS) as answer:
        assert answer.status_code == 200
        yield blocks(answer)


async def blocks(answer: httpx.Response) -> AsyncIterator[str]:
    """What stands between empty lines, with LF for lines as urql splits them."""
    text = ""
    async for chunk in answer.aiter_text():
        text += chunk
        while "\n\n" in text:
            block, text = text.split("\n\n", 1)
            yield block


async def test_events_are_framed_as_every_client_can_split_them(client: httpx.AsyncClient) -> None:
    """LF and nothing else; a complete event with a data field, which browsers need."""
    answer = await client.post(
        "/graphql", json={"query": "subscription { count(to: 1) }"}, headers=EVENTS
    )

    first, complete, rest = answer.text.split("\n\n")
    assert "\r" not in answer.text
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
async def test_any_operation_can_be_streamed(
    client: httpx.AsyncClient, method: str, query: str, kinds: list[str]
) -> None:
    """GET changes nothing here either; request errors are told in the stream."""
    given = {"params" if method == "GET" else "json": {"query": query}}

    answer = await client.request(method, "/graphql", headers=EVENTS, **given)

    data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    assert kinds == [next(iter(json.loads(each))) for each in data]
    assert answer.text.endswith("event: complete\ndata:\n\n")


async def test_a_stream_without_a_token_is_refused_before_it_begins(
    client: httpx.AsyncClient,
) -> None:
    """401 as JSON, as anywhere else."""
    answer = await client.post("/graphql", json=SILENCE, headers={**EVENTS, "Authorization": ""})

    assert answer.status_code == 401


async def test_leaving_closes_the_generator(client: httpx.AsyncClient, edge: Edge) -> None:
    """At once, not when the next event or heartbeat would have been sent."""
    async with followed(client, SILENCE) as events:
        await anext(events)

    await until(lambda: "silence closed" in edge.events.seen)


async def test_silence_is_filled_with_comments(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies take a silent connection for a dead one."""
    monkeypatch.setattr(sse, "HEARTBEAT", 0.05)

    async with followed(client, SILENCE) as events:
        heard = [await anext(events) for _ in range(4)]

    assert heard.count(":") >= 3


async def test_a_stream_ends_with_its_token(client: httpx.AsyncClient, edge: Edge) -> None:
    """With an error and a complete, so that nobody connects again with the same token."""
    edge.caller = lambda caller: replace(caller, until=time.time() + 0.2)

    async with followed(client, SILENCE) as events:
        heard = [each async for each in events]

    assert "UNAUTHENTICATED" in heard[1]
    assert heard[2] == "event: complete\ndata:"
    await until(lambda: "silence closed" in edge.events.seen)


async def test_a_stream_just_ends_when_the_server_does(
    client: httpx.AsyncClient, edge: Edge
) -> None:
    """Without a complete, which is what makes clients connect again."""
    async with followed(client, SILENCE) as events:
        await anext(events)
        edge.ending.set()
        rest = [each async for each in events]

    assert rest == []
    await until(lambda: "silence closed" in edge.events.seen)


async def test_a_reader_that_does_not_read_is_waited_for(address: str, edge: Edge) -> None:
    """Events are made when they can be sent: a slow reader costs its socket's buffer, not our memory."""
    reader, writer = await asyncio.open_connection(*address.split(":"), limit=1024)
    body = json.dumps({"query": "subscription { flood }"})
    writer.write(
        f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    await reader.read(100)
    before = -1
    async with asyncio.timeout(10):
        while before != edge.events.produced:
            before = edge.events.produced
            await asyncio.sleep(0.3)

    assert edge.events.produced < 2_000
    writer.close()
