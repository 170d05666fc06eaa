"""SIGTERM to a real process: streams end so that clients reconnect, requests are finished."""

import asyncio
import json
import signal
import time
from pathlib import Path

import httpx
import jwt

from billing.services import Services
from billing.settings import Settings
from tests.gateway.test_app import create_customer
from tests.support.system import System
from tests.support.wait import wait_for_value
from tests.support.websocket_client import connect

SECONDS = 5


async def test_sigterm_ends_streams_and_finishes_requests(
    settings: Settings, services: Services, tmp_path: Path
) -> None:
    """A WebSocket closes with 1012, a stream ends without complete, a half-sent request is answered."""
    customer = await create_customer(services)
    headers = {"Authorization": _support_token(settings)}
    query = f'subscription {{ billingChanged(customerId: "{customer}") {{ reason }} }}'
    system = System(settings, tmp_path)
    process = await system.start_gateway()
    try:
        async with connect(f"127.0.0.1:{system.port}") as ws_client:
            await ws_client.send({"type": "connection_init", "payload": headers})
            await ws_client.receive()
            stream = asyncio.create_task(_stream(system.url, query, headers))
            reader, writer = await _send_partial_request(system.port, headers)
            await asyncio.wait_for(_streaming.wait(), SECONDS)

            process.send_signal(signal.SIGTERM)

            assert await ws_client.close_code(SECONDS) == 1012
            assert "complete" not in await asyncio.wait_for(stream, SECONDS)
            writer.write(b" }")
            answer = await asyncio.wait_for(reader.read(), SECONDS)
            assert b'"role":"SUPPORT"' in answer
            writer.close()
        assert await asyncio.to_thread(process.wait, SECONDS) in (0, -signal.SIGTERM)
    finally:
        system.stop()


async def test_delayed_shutdown_serves_while_it_is_not_ready(
    settings: Settings, services: Services, tmp_path: Path
) -> None:
    """A balancer that asks /readyz sends nobody to a closed port; a second signal ends the wait."""
    system = System(settings.model_copy(update={"shutdown_delay": 60.0}), tmp_path)
    process = await system.start_gateway()
    try:
        process.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient(base_url=system.url) as client:

            async def ready() -> int:
                return (await client.get("/readyz")).status_code

            await wait_for_value(ready, 503)
            assert (await client.get("/healthz")).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, SECONDS) in (0, -signal.SIGTERM)
    finally:
        system.stop()


_streaming = asyncio.Event()


async def _stream(url: str, query: str, headers: dict[str, str]) -> str:
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream(
            "POST",
            f"{url}/graphql",
            json={"query": query},
            headers={**headers, "Accept": "text/event-stream"},
        ) as response,
    ):
        _streaming.set()
        return "".join([text async for text in response.aiter_text()])


async def _send_partial_request(
    port: int, headers: dict[str, str]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and send all of a request but its last two bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"query": "{ viewer { role } }"})[:-1] + " }"
    lines = [
        "POST /graphql HTTP/1.1",
        "Host: localhost",
        f"Authorization: {headers['Authorization']}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    writer.write("\r\n".join([*lines, "", body[:-2]]).encode())
    await writer.drain()
    return reader, writer


def _support_token(settings: Settings) -> str:
    assert settings.jwt_secret
    claims = {"sub": "s", "role": "support", "aud": "fly-billing", "exp": int(time.time()) + 60}
    return "Bearer " + jwt.encode(claims, settings.jwt_secret.get_secret_value(), "HS256")
