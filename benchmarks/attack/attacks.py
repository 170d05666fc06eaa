"""Attacks by one customer, in a process of its own: each loops over several connections until its time is over."""

import asyncio
import itertools
import secrets
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import orjson
import websockets

from benchmarks.http_load import post

CONNECTIONS = 16
LEAVES_AFTER = 0.4  # seconds
SILENT_READERS = 60
WIDE = " ".join(f"a{n}: usage(by: APP) {{ key quantity amount {{ amount }} }}" for n in range(10))
PORTAL = """mutation($id: ID!) { createPortalSession(input: {customerId: $id, returnUrl: "https://fly.io"}) {
  url errors { code } } }"""
FOLLOW = "subscription($id: ID!) { billingChanged(customerId: $id) { customer { currentPeriod { %s } } } }"
Answers = Counter[str]


@dataclass(frozen=True)
class Attacker:
    """One customer at the gateway of *url*, with one token or many; attacks for *seconds*."""

    url: str
    customer: str
    tokens: tuple[str, ...]
    seconds: float


def attack(name: str, attacker: Attacker) -> Answers:
    """Run the attack called *name*; returns the number of answers by code."""
    return asyncio.run(ATTACKS[name](attacker))


async def _flood(
    attacker: Attacker, body: Callable[[str], Mapping[str, Any]], leaves_after: float = 60
) -> Answers:
    """Send what *body* makes of the customer's id again and again; do not wait longer than *leaves_after*."""
    answers, tokens = Answers(), itertools.cycle(attacker.tokens)
    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with httpx.AsyncClient(
        verify=False, trust_env=False, timeout=leaves_after, limits=limits
    ) as http:

        async def repeat() -> None:
            while True:
                headers = {"Authorization": f"Bearer {next(tokens)}"}
                try:
                    answer = await http.post(
                        f"{attacker.url}/graphql", json=body(attacker.customer), headers=headers
                    )
                except httpx.TimeoutException:
                    answers["left"] += 1
                except httpx.TransportError as error:
                    answers[type(error).__name__] += 1
                else:
                    answers[_code(answer)] += 1

        await _until(attacker.seconds, (repeat() for _ in range(CONNECTIONS)))
    return answers


async def _until(seconds: float, loops: Iterator[Awaitable[None]]) -> None:
    """Run *loops* beside each other, and cancel them after *seconds*."""
    running = [asyncio.ensure_future(loop) for loop in loops]
    await asyncio.wait(running, timeout=seconds)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _code(answer: httpx.Response) -> str:
    try:
        return error_code(answer.json()) or "ok"
    except ValueError:
        return str(answer.status_code)


def error_code(body: Mapping[str, Any]) -> str:
    """The code of the first error in a response, also of one in a payload; "" if there is none."""
    errors = body.get("errors") or [
        error
        for value in (body.get("data") or {}).values()
        for error in (value.get("errors") or () if isinstance(value, dict) else ())
    ]
    if not errors:
        return ""
    return str(errors[0].get("code") or errors[0].get("extensions", {}).get("code", "?"))


def _portal(customer: str) -> Mapping[str, Any]:
    return {"query": PORTAL, "variables": {"id": customer}}


def _invented(_: str) -> Mapping[str, Any]:
    ids = [f"in_{secrets.token_hex(12)}" for _ in range(100)]
    return {"query": "query($ids: [ID!]!) { nodes(ids: $ids) { id } }", "variables": {"ids": ids}}


def _invalid(customer: str) -> Mapping[str, Any]:
    fields = " ".join(f'a{n}: customer(id: "{customer}") {{ id name }}' for n in range(45))
    return {"query": f"{{ {fields} x{secrets.token_hex(4)} }}"}


def _wide(customer: str) -> Mapping[str, Any]:
    query = f"query($id: ID!) {{ customer(id: $id) {{ currentPeriod {{ {WIDE} }} }} }}"
    return {"query": query, "variables": {"id": customer}}


def _introspection(_: str) -> Mapping[str, Any]:
    fields = " ".join(
        f"f{n}: fields {{ name description args {{ name }} type {{ name }} }}" for n in range(40)
    )
    return {"query": f"{{ __schema {{ types {{ name {fields} }} }} }} # {secrets.token_hex(4)}"}


async def _stop_reading(attacker: Attacker) -> Answers:
    """Follow the customer over SSE and WebSocket with wide events, and never read one."""
    answers, tokens = Answers(), itertools.cycle(attacker.tokens)
    payload = {"query": FOLLOW % WIDE, "variables": {"id": attacker.customer}}

    async def read_nothing(number: int) -> None:
        opened = _event_stream if number % 2 else _web_socket
        try:
            await opened(attacker.url.removeprefix("http://"), next(tokens), payload)
            answers["open"] += 1
        except (OSError, websockets.WebSocketException) as error:
            answers[type(error).__name__] += 1
        await asyncio.sleep(attacker.seconds)

    await _until(attacker.seconds, (read_nothing(number) for number in range(SILENT_READERS)))
    return answers


UNREAD_SOCKETS: list[object] = []  # sockets that nobody reads stay open to the end of the process


async def _event_stream(address: str, token: str, payload: Mapping[str, Any]) -> None:
    host, _, port = address.partition(":")
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, (host, int(port)))
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {token}"}
    await asyncio.get_running_loop().sock_sendall(
        narrow, post("/graphql", orjson.dumps(payload), **headers)
    )
    UNREAD_SOCKETS.append(narrow)


async def _web_socket(address: str, token: str, payload: Mapping[str, Any]) -> None:
    protocol = websockets.Subprotocol("graphql-transport-ws")
    connection = await websockets.connect(
        f"ws://{address}/graphql", subprotocols=[protocol], max_queue=1, ping_interval=None
    )
    init = {"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}
    await connection.send(orjson.dumps(init).decode())
    subscribe = {"type": "subscribe", "id": "1", "payload": payload}
    await connection.send(orjson.dumps(subscribe).decode())
    UNREAD_SOCKETS.append(connection)


ATTACKS: Mapping[str, Callable[[Attacker], Coroutine[Any, Any, Answers]]] = {
    "portal sessions": partial(_flood, body=_portal),
    "invented ids": partial(_flood, body=_invented, leaves_after=LEAVES_AFTER),
    "invalid documents": partial(_flood, body=_invalid),
    "wide lists": partial(_flood, body=_wide),
    "introspection": partial(_flood, body=_introspection),
    "readers that stop": _stop_reading,
}
