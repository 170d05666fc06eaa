"""GraphQL over WebSocket: graphql-transport-ws by the letter, and the ends of a socket's life."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.auth.caller import Caller
from gateway.graphql import websocket
from gateway.graphql.connection_limiter import Places
from gateway.http.errors import HttpRefusal
from tests.gateway.waiting import until
from tests.support.gateway_server import Edge, client_of, serve
from tests.support.small_schema import SECRET

PROTOCOL = websockets.Subprotocol("graphql-transport-ws")
INIT = {"type": "connection_init", "payload": {"Authorization": "Bearer ann"}}


class Peer:
    """A client that speaks frames."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, *frames: Any) -> None:
        """Send *frames*: JSON-able ones as JSON, text and bytes as they are."""
        for frame in frames:
            raw = frame if isinstance(frame, str | bytes) else json.dumps(frame)
            await self.connection.send(raw)

    async def hear(self) -> dict[str, Any]:
        """The next frame."""
        frame: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), 5))
        return frame

    async def within(self, seconds: float) -> str:
        """The next frame's text, or TimeoutError."""
        return str(await asyncio.wait_for(self.connection.recv(), seconds))

    async def begin(self) -> "Peer":
        """Say who is there, and be welcomed."""
        await self.say(INIT)
        assert await self.hear() == {"type": "connection_ack"}
        return self

    async def run(self, id_: str, query: str, **params: Any) -> list[dict[str, Any]]:
        """Everything that is said about one operation."""
        await self.say(subscribe(id_, query, **params))
        heard = [await self.hear()]
        while heard[-1]["type"] == "next":
            heard.append(await self.hear())
        assert {id_} == {frame["id"] for frame in heard}
        return heard

    async def ended(self, seconds: float = 5) -> int:
        """The code with which the other side closes."""
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(self._hear_all(), seconds)
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code

    async def _hear_all(self) -> None:
        while True:
            await self.connection.recv()


def subscribe(id_: Any, query: Any, **params: Any) -> dict[str, Any]:
    """The frame that starts an operation."""
    return {"type": "subscribe", "id": id_, "payload": {"query": query, **params}}


@asynccontextmanager
async def connected(address: str, **options: Any) -> AsyncIterator[Peer]:
    """A socket to *address*."""
    async with websockets.connect(
        f"ws://{address}/graphql", subprotocols=[PROTOCOL], **options
    ) as connection:
        yield Peer(connection)


@pytest.fixture
async def peer(address: str) -> AsyncIterator[Peer]:
    """A socket that has said nothing yet."""
    async with connected(address) as somebody:
        yield somebody


async def test_a_subscription_is_answered_event_by_event(peer: Peer) -> None:
    """next, next, next, complete."""
    heard = await (await peer.begin()).run("1", "subscription { count(to: 2) }")

    assert [frame["payload"]["data"] for frame in heard[:-1]] == [{"count": 1}, {"count": 2}]
    assert heard[-1] == {"type": "complete", "id": "1"}


async def test_queries_and_mutations_run_over_a_socket(peer: Peer) -> None:
    """One answer each, in contexts of their own."""
    await peer.begin()

    query = await peer.run("1", "query A($n: String!) { hello(name: $n) }", variables={"n": "Ann"})
    mutation = await peer.run("1", "mutation { add(a: 1, b: 2) }")

    assert query[0]["payload"]["data"] == {"hello": "hello Ann"}
    assert mutation[0]["payload"]["data"] == {"add": 3}


async def test_each_operation_has_a_context_of_its_own(peer: Peer, edge: Edge) -> None:
    """What one operation loaded, another on the same socket must not see."""
    await peer.begin()

    for id_ in ("1", "2", "3"):
        await peer.run(id_, "{ hello }")

    assert len(set(map(id, edge.events.contexts))) == 3


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
async def test_a_request_error_ends_the_operation_and_not_the_socket(
    peer: Peer, query: str, code: str
) -> None:
    """One bad document in a tab must not end everything that the tab follows."""
    await peer.begin()

    [error] = await peer.run("1", query)
    [answer, _] = await peer.run("1", "{ hello }")

    assert error["type"] == "error"
    assert code == error["payload"][0]["extensions"]["code"]
    assert answer["payload"]["data"] == {"hello": "hello world"}


async def test_a_fault_in_a_subscription_is_masked(peer: Peer) -> None:
    """The event before it arrives, the exception's text does not."""
    heard = await (await peer.begin()).run("1", "subscription { broken }")

    assert [heard[0]["payload"]["data"]["broken"], heard[-1]["type"]] == [1, "error"]
    assert SECRET not in json.dumps(heard)


@pytest.mark.parametrize(
    "frame",
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
        '{"type": "ping", "payload": {"long": "' + "x" * 300_000 + '"}}',
    ],
)  # fmt: skip
async def test_a_frame_that_is_none_closes_with_4400(peer: Peer, frame: str | bytes) -> None:
    """Strictly, with a reason, and never with a traceback's 1006 or 1011."""
    await peer.begin()

    await peer.say(frame)

    assert await peer.ended() == 4400


@pytest.mark.parametrize(
    "payload", [None, {}, {"Authorization": None}, {"Authorization": 7}, {"Authorization": "x"}]
)
async def test_a_socket_without_a_valid_token_is_closed_with_4403(peer: Peer, payload: Any) -> None:
    """Clients come back from 4403 with a new token."""
    await peer.say({"type": "connection_init", "payload": payload})

    assert await peer.ended() == 4403


async def test_a_socket_is_told_to_come_back_when_tokens_cannot_be_verified(
    edge: Edge, peer: Peer
) -> None:
    """Its token may be good; 4403 would have the client throw it away."""

    def unknown(_: Caller) -> Caller:
        raise HttpRefusal(503, "KEYS_UNAVAILABLE", "Later.")

    edge.caller = unknown

    await peer.say(INIT)

    assert await peer.ended() == 1013


async def test_a_fault_of_ours_closes_with_4500(
    edge: Edge, peer: Peer, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not with a traceback's 1006; the log knows where it was, and not what it said."""

    def broken(_: Caller) -> Caller:
        raise RuntimeError(SECRET)

    edge.caller = broken

    await peer.say(INIT)

    assert await peer.ended() == 4500
    logged = "".join(capfd.readouterr())
    assert "websocket.fault" in logged
    assert SECRET not in logged


async def test_nothing_runs_before_the_token_was_taken(peer: Peer, edge: Edge) -> None:
    """4401, and no context was made."""
    await peer.say(subscribe("1", "{ hello }"))

    assert await peer.ended() == 4401
    assert edge.events.contexts == []


async def test_a_second_init_closes_with_4429(peer: Peer) -> None:
    """A socket has one owner."""
    await peer.begin()

    await peer.say(INIT)

    assert await peer.ended() == 4429


async def test_an_id_in_use_closes_with_4409(peer: Peer) -> None:
    """Two operations of one name could not be told apart."""
    await peer.begin()

    await peer.say(subscribe("1", "subscription { silence }"), subscribe("1", "{ hello }"))

    assert await peer.ended() == 4409


async def test_a_socket_that_never_says_who_it_is_is_closed(edge: Edge) -> None:
    """4408, so that silent sockets cost nothing for long."""
    edge.init_wait = timedelta(seconds=0.1)

    async with serve(edge.app) as address, connected(address) as peer:
        assert await peer.ended() == 4408


async def test_pings_are_answered_at_any_time(peer: Peer) -> None:
    """Before and after the token."""
    await peer.say({"type": "ping"})
    assert await peer.hear() == {"type": "pong"}

    await peer.begin()
    await peer.say(
        {"type": "pong", "payload": {"unasked": True}}, {"type": "ping", "payload": {"n": 1}}
    )

    assert await peer.hear() == {"type": "pong"}


async def test_complete_stops_the_operation_behind_the_wire(peer: Peer, edge: Edge) -> None:
    """The generator is closed, and the id is free again."""
    await peer.begin()
    await peer.say(subscribe("1", "subscription { silence }"))
    assert (await peer.hear())["payload"]["data"] == {"silence": 0}

    await peer.say({"type": "complete", "id": "1"}, {"type": "complete", "id": "unknown"})
    await until(lambda: "silence closed" in edge.events.seen)

    [answer, _] = await peer.run("1", "{ hello }")
    assert answer["payload"]["data"] == {"hello": "hello world"}


async def test_leaving_stops_everything_that_ran(address: str, edge: Edge) -> None:
    """Subscriptions and slow queries alike."""
    async with connected(address) as peer:
        await peer.begin()
        await peer.say(subscribe("1", "subscription { silence }"), subscribe("2", "{ slow }"))
        await peer.hear()
        await until(lambda: "slow begun" in edge.events.seen)

    await until(lambda: {"silence closed", "slow cancelled"} <= set(edge.events.seen))


async def test_a_socket_ends_with_its_token(edge: Edge, address: str) -> None:
    """4403 at the moment of expiry, and what ran is stopped."""
    edge.caller = lambda caller: replace(caller, until=time.time() + 0.3)

    async with connected(address) as peer:
        await peer.begin()
        await peer.say(subscribe("1", "subscription { silence }"))

        assert await peer.ended() == 4403
    await until(lambda: "silence closed" in edge.events.seen)


async def test_sockets_close_when_the_server_ends(peer: Peer, edge: Edge) -> None:
    """1012 tells clients to connect again, to another process."""
    await peer.begin()

    edge.ending.set()

    assert await peer.ended() == 1012


async def test_a_socket_runs_so_many_operations_at_a_time(peer: Peer) -> None:
    """The next one is refused by itself."""
    await peer.begin()
    for number in range(websocket.MAX_OPERATIONS):
        await peer.say(subscribe(f"s{number}", "subscription { silence }"))
        await peer.hear()

    [error] = await peer.run("one more", "{ hello }")

    assert error["payload"][0]["extensions"]["code"] == "TOO_MANY_OPERATIONS"


async def test_a_caller_has_so_many_sockets_and_streams(edge: Edge) -> None:
    """1013 and 429; whoever leaves makes room, and others have places of their own."""
    edge.places = Places(of_one=1)
    stream = {
        "json": {"query": "subscription { silence }"},
        "headers": {"Accept": "text/event-stream"},
    }
    bob = {"type": "connection_init", "payload": {"Authorization": "Bearer bob"}}
    async with client_of(edge) as client:
        address = client.base_url.netloc.decode()
        async with (
            connected(address) as first,
            connected(address) as second,
            connected(address) as third,
        ):
            await first.begin()
            await second.say(INIT)
            await third.say(bob)
            assert await second.ended() == 1013
            assert await third.hear() == {"type": "connection_ack"}
            assert (await client.post("/graphql", **stream)).status_code == 429

        await until(lambda: edge.places.take("ann"))
        edge.places.leave("ann")
        async with client.stream("POST", "/graphql", **stream) as answer:
            assert answer.status_code == 200
        await until(lambda: edge.places.take("ann"))


def test_there_are_so_many_places_in_all() -> None:
    """Whoever holds them."""
    places = Places(in_all=2)

    assert [places.take(name) for name in ("ann", "bob", "cid")] == [True, True, False]
    places.leave("ann")
    assert places.take("cid")


async def test_a_socket_that_talks_too_fast_is_read_slowly(peer: Peer) -> None:
    """It is held back, not cut off."""
    await peer.begin()
    began = time.monotonic()

    for _ in range(120):
        await peer.say({"type": "ping"})
    for _ in range(120):
        await peer.hear()

    assert time.monotonic() - began > (120 - websocket.BURST) / websocket.PACE / 2


async def test_pages_of_other_sites_cannot_connect(address: str) -> None:
    """403 before anything is accepted."""
    with pytest.raises(InvalidStatus) as refused:
        async with connected(address, origin="https://evil.example"):
            pass

    assert refused.value.response.status_code == 403


async def test_another_subprotocol_is_not_acceptable(address: str) -> None:
    """The legacy graphql-ws protocol is not spoken here."""
    legacy = websockets.Subprotocol("graphql-ws")
    async with websockets.connect(f"ws://{address}/graphql", subprotocols=[legacy]) as connection:
        assert await Peer(connection).ended() == 4406
