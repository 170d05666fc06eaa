"""GraphQL over WebSocket: conformance to graphql-transport-ws, and every way a socket closes."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import websockets
from websockets.exceptions import InvalidStatus

from gateway.auth.caller import Caller
from gateway.graphql import websocket
from gateway.graphql.connection_limiter import ConnectionLimiter
from gateway.http.errors import HttpError
from tests.support.gateway_server import SmallGateway, http_client, serve
from tests.support.small_schema import SECRET
from tests.support.wait import wait_until
from tests.support.websocket_client import INIT, WebSocketClient, connect, subscribe


@pytest.fixture
async def ws_client(address: str) -> AsyncIterator[WebSocketClient]:
    """A socket before its first message."""
    async with connect(address) as client:
        yield client


async def test_subscription_sends_next_per_event_then_complete(ws_client: WebSocketClient) -> None:
    """Two events: next, next, complete."""
    messages = await (await ws_client.init()).execute("1", "subscription { count(to: 2) }")

    assert [message["payload"]["data"] for message in messages[:-1]] == [{"count": 1}, {"count": 2}]
    assert messages[-1] == {"type": "complete", "id": "1"}


async def test_queries_and_mutations_run_over_websocket(ws_client: WebSocketClient) -> None:
    """One next and one complete each."""
    await ws_client.init()

    query = await ws_client.execute(
        "1", "query A($n: String!) { hello(name: $n) }", variables={"n": "Ann"}
    )
    mutation = await ws_client.execute("1", "mutation { add(a: 1, b: 2) }")

    assert query[0]["payload"]["data"] == {"hello": "hello Ann"}
    assert mutation[0]["payload"]["data"] == {"add": 3}


async def test_each_operation_gets_its_own_context(
    ws_client: WebSocketClient, small_gateway: SmallGateway
) -> None:
    """Operations on one socket must not share dataloader caches."""
    await ws_client.init()

    for id_ in ("1", "2", "3"):
        await ws_client.execute(id_, "{ hello }")

    assert len(set(map(id, small_gateway.recorder.contexts))) == 3


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ unknown }", "GRAPHQL_VALIDATION_FAILED"),
        ("query ($c: Colour!) { colour(of: $c) }", "BAD_USER_INPUT"),
        ("query A { hello } query B { hello }", "OPERATION_RESOLUTION_FAILURE"),
        ("", "BAD_REQUEST"),
    ],
)
async def test_request_error_ends_operation_but_not_socket(
    ws_client: WebSocketClient, query: str, code: str
) -> None:
    """A bad document in a tab must not end the tab's other subscriptions."""
    await ws_client.init()

    [error] = await ws_client.execute("1", query)
    [response, _] = await ws_client.execute("1", "{ hello }")

    assert error["type"] == "error"
    assert code == error["payload"][0]["extensions"]["code"]
    assert response["payload"]["data"] == {"hello": "hello world"}


async def test_unexpected_error_in_subscription_is_masked(ws_client: WebSocketClient) -> None:
    """The event before it arrives; the exception's text does not."""
    messages = await (await ws_client.init()).execute("1", "subscription { broken }")

    assert [messages[0]["payload"]["data"]["broken"], messages[-1]["type"]] == [1, "error"]
    assert SECRET not in json.dumps(messages)


@pytest.mark.parametrize(
    "message",
    [
        "no json", "null", "42", "[]", '"x"', "{}", "[" * 50_000, '{"type": "unknown"}', '{"type": null}', '{"type": 1}',
        b"\x00\x01", '{"type": "next", "id": "1", "payload": {}}', '{"type": "connection_ack"}',
        '{"type": "connection_init", "payload": "text"}', '{"type": "connection_init", "payload": []}',
        '{"type": "ping", "payload": 1}', '{"type": "complete"}', '{"type": "complete", "id": 1}',
        '{"type": "subscribe"}', '{"type": "subscribe", "id": "1"}', '{"type": "subscribe", "id": "1", "payload": null}',
        '{"type": "subscribe", "id": "", "payload": {"query": "{ hello }"}}',
        '{"type": "subscribe", "id": {}, "payload": {"query": "{ hello }"}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": 1}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ hello }", "variables": []}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ hello }", "operationName": 1}}',
        '{"type": "subscribe", "id": "1", "payload": {"query": "{ hello }", "extensions": "x"}}',
        '{"type": "subscribe", "id": "1", "payload": {}}', '{"type": "subscribe", "id": "1", "payload": {"query": null}}',
        '{"type": "ping", "payload": {"long": "' + "x" * 300_000 + '"}}',
    ],
)  # fmt: skip
async def test_malformed_message_closes_with_4400(
    ws_client: WebSocketClient, message: str | bytes
) -> None:
    """With a reason, and never with 1006 or 1011 after a traceback."""
    await ws_client.init()

    await ws_client.send(message)

    assert await ws_client.close_code() == 4400


@pytest.mark.parametrize(
    "payload", [None, {}, {"Authorization": None}, {"Authorization": 7}, {"Authorization": "x"}]
)
async def test_invalid_token_closes_with_4403(ws_client: WebSocketClient, payload: Any) -> None:
    """Clients reconnect after 4403 with a new token."""
    await ws_client.send({"type": "connection_init", "payload": payload})

    assert await ws_client.close_code() == 4403


async def test_unverifiable_token_closes_with_1013(
    small_gateway: SmallGateway, ws_client: WebSocketClient
) -> None:
    """The token may be valid; after 4403 the client would discard it."""

    def unknown(_: Caller) -> Caller:
        raise HttpError(503, "KEYS_UNAVAILABLE", "Later.")

    small_gateway.caller = unknown

    await ws_client.send(INIT)

    assert await ws_client.close_code() == 1013


async def test_unexpected_error_closes_with_4500(
    small_gateway: SmallGateway, ws_client: WebSocketClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not with 1006 after a traceback; the log has the location of the error but not its text."""

    def broken(_: Caller) -> Caller:
        raise RuntimeError(SECRET)

    small_gateway.caller = broken

    await ws_client.send(INIT)

    assert await ws_client.close_code() == 4500
    logged = "".join(capfd.readouterr())
    assert "websocket.fault" in logged
    assert SECRET not in logged


async def test_subscribe_before_init_closes_with_4401(
    ws_client: WebSocketClient, small_gateway: SmallGateway
) -> None:
    """No context is made."""
    await ws_client.send(subscribe("1", "{ hello }"))

    assert await ws_client.close_code() == 4401
    assert small_gateway.recorder.contexts == []


async def test_second_init_closes_with_4429(ws_client: WebSocketClient) -> None:
    """A socket belongs to one caller."""
    await ws_client.init()

    await ws_client.send(INIT)

    assert await ws_client.close_code() == 4429


async def test_duplicate_operation_id_closes_with_4409(ws_client: WebSocketClient) -> None:
    """Messages of two operations with one id could not be told apart."""
    await ws_client.init()

    await ws_client.send(subscribe("1", "subscription { silence }"), subscribe("1", "{ hello }"))

    assert await ws_client.close_code() == 4409


async def test_missing_init_closes_with_4408(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent sockets are closed soon."""
    monkeypatch.setattr(websocket, "INIT_TIMEOUT_SECONDS", 0.1)

    async with connect(address) as ws_client:
        assert await ws_client.close_code() == 4408


async def test_ping_is_answered_before_and_after_init(ws_client: WebSocketClient) -> None:
    """A pong needs no token."""
    await ws_client.send({"type": "ping"})
    assert await ws_client.receive() == {"type": "pong"}

    await ws_client.init()
    await ws_client.send(
        {"type": "pong", "payload": {"unasked": True}}, {"type": "ping", "payload": {"n": 1}}
    )

    assert await ws_client.receive() == {"type": "pong"}


async def test_complete_stops_the_operation(
    ws_client: WebSocketClient, small_gateway: SmallGateway
) -> None:
    """Its generator is closed, and its id may be used again."""
    await ws_client.init()
    await ws_client.send(subscribe("1", "subscription { silence }"))
    assert (await ws_client.receive())["payload"]["data"] == {"silence": 0}

    await ws_client.send({"type": "complete", "id": "1"}, {"type": "complete", "id": "unknown"})
    await wait_until(lambda: "silence closed" in small_gateway.recorder.entries)

    [response, _] = await ws_client.execute("1", "{ hello }")
    assert response["payload"]["data"] == {"hello": "hello world"}


async def test_disconnect_stops_all_operations(address: str, small_gateway: SmallGateway) -> None:
    """Subscriptions and slow queries alike."""
    async with connect(address) as ws_client:
        await ws_client.init()
        await ws_client.send(subscribe("1", "subscription { silence }"), subscribe("2", "{ slow }"))
        await ws_client.receive()
        await wait_until(lambda: "slow begun" in small_gateway.recorder.entries)

    await wait_until(
        lambda: {"silence closed", "slow cancelled"} <= set(small_gateway.recorder.entries)
    )


async def test_socket_closes_when_its_token_expires(
    small_gateway: SmallGateway, address: str
) -> None:
    """4403 at the moment of expiry; its operations are stopped."""
    small_gateway.caller = lambda caller: replace(caller, expires_at=time.time() + 0.3)

    async with connect(address) as ws_client:
        await ws_client.init()
        await ws_client.send(subscribe("1", "subscription { silence }"))

        assert await ws_client.close_code() == 4403
    await wait_until(lambda: "silence closed" in small_gateway.recorder.entries)


async def test_sockets_close_with_1012_on_shutdown(
    ws_client: WebSocketClient, small_gateway: SmallGateway
) -> None:
    """Clients reconnect after 1012, to another process."""
    await ws_client.init()

    small_gateway.shutdown.set()

    assert await ws_client.close_code() == 1012


async def test_operations_per_socket_are_limited(ws_client: WebSocketClient) -> None:
    """Only the operation above the limit is rejected."""
    await ws_client.init()
    for number in range(websocket.MAX_OPERATIONS):
        await ws_client.send(subscribe(f"s{number}", "subscription { silence }"))
        await ws_client.receive()

    [error] = await ws_client.execute("one more", "{ hello }")

    assert error["payload"][0]["extensions"]["code"] == "TOO_MANY_OPERATIONS"


async def test_connections_per_caller_are_limited(small_gateway: SmallGateway) -> None:
    """1013 for a socket and 429 for a stream; a closed connection frees its place; other callers are not affected."""
    small_gateway.connection_limiter = ConnectionLimiter(per_caller=1)
    stream = {
        "json": {"query": "subscription { silence }"},
        "headers": {"Accept": "text/event-stream"},
    }
    bob = {"type": "connection_init", "payload": {"Authorization": "Bearer bob"}}
    async with http_client(small_gateway) as client:
        address = client.base_url.netloc.decode()
        async with (
            connect(address) as first,
            connect(address) as second,
            connect(address) as third,
        ):
            await first.init()
            await second.send(INIT)
            await third.send(bob)
            assert await second.close_code() == 1013
            assert await third.receive() == {"type": "connection_ack"}
            assert (await client.post("/graphql", **stream)).status_code == 429

        await wait_until(lambda: small_gateway.connection_limiter.acquire("ann"))
        small_gateway.connection_limiter.release("ann")
        async with client.stream("POST", "/graphql", **stream) as response:
            assert response.status_code == 200
        await wait_until(lambda: small_gateway.connection_limiter.acquire("ann"))


def test_connections_in_total_are_limited() -> None:
    """Regardless of the caller."""
    limiter = ConnectionLimiter(total=2)

    assert [limiter.acquire(name) for name in ("ann", "bob", "cid")] == [True, True, False]
    limiter.release("ann")
    assert limiter.acquire("cid")


async def test_fast_sender_is_slowed_down(ws_client: WebSocketClient) -> None:
    """It is delayed, not disconnected."""
    await ws_client.init()
    began = time.monotonic()

    for _ in range(120):
        await ws_client.send({"type": "ping"})
    for _ in range(120):
        await ws_client.receive()

    assert (
        time.monotonic() - began
        > (120 - websocket.MESSAGE_BURST) / websocket.MESSAGES_PER_SECOND / 2
    )


async def test_foreign_origin_is_rejected_with_403(address: str) -> None:
    """Before the socket is accepted."""
    with pytest.raises(InvalidStatus) as refused:
        async with connect(address, origin="https://evil.example"):
            pass

    assert refused.value.response.status_code == 403


async def test_legacy_subprotocol_closes_with_4406(address: str) -> None:
    """The legacy graphql-ws protocol is not supported."""
    legacy = websockets.Subprotocol("graphql-ws")
    async with websockets.connect(f"ws://{address}/graphql", subprotocols=[legacy]) as connection:
        assert await WebSocketClient(connection).close_code() == 4406


async def test_token_of_the_handshake_is_accepted(address: str) -> None:
    """Clients other than browsers can set headers; the message's token comes first."""
    url, protocols = f"ws://{address}/graphql", [websockets.Subprotocol(websocket.SUBPROTOCOL)]
    headers = {"Authorization": "Bearer ann"}
    async with websockets.connect(
        url, subprotocols=protocols, additional_headers=headers
    ) as connection:
        client = WebSocketClient(connection)
        await client.send({"type": "connection_init"})

        assert await client.receive() == {"type": "connection_ack"}


async def test_socket_under_a_longer_token_closes_for_a_reconnect(
    small_gateway: SmallGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is still valid has not expired, and works again."""
    monkeypatch.setattr("gateway.auth.caller.MAX_CONNECTION_SECONDS", 0.1)
    async with serve(small_gateway.app) as address, connect(address) as client:
        await client.init()

        assert await client.close_code() == 1012


async def test_silent_socket_has_a_place_until_it_is_closed(
    small_gateway: SmallGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who says nothing counts among all connections, and leaves nothing."""
    monkeypatch.setattr(websocket, "INIT_TIMEOUT_SECONDS", 0.2)
    limiter = small_gateway.connection_limiter = ConnectionLimiter(total=2)
    async with serve(small_gateway.app) as address, connect(address) as named:
        await named.init()
        async with connect(address) as silent, connect(address) as refused:
            assert await refused.close_code() == 1013
            assert await silent.close_code() == 4408
        assert (limiter._open, dict(limiter._open_by_caller)) == (1, {"ann": 1})
