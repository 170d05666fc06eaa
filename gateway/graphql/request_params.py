"""What a request asks for: strict JSON, strict shapes, the same over HTTP and WebSocket."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from gateway.http.errors import HttpRefusal

# For a whole body to arrive.
READ_SECONDS = 20.0
_OBJECTS = ("variables", "extensions")


class Params(msgspec.Struct, rename="camel"):
    """A GraphQL request's parameters; *document_id* names a trusted document instead of its text."""

    query: str | None = None
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None
    document_id: str | None = None


_body = msgspec.json.Decoder(Params)
_object = msgspec.json.Decoder(dict[str, Any] | None)


async def read_params(request: Request, *, limit: int) -> Params:
    """The parameters of a GET or POST *request*, whose body may have *limit* bytes; HttpRefusal."""
    if request.method == "GET":
        return _from_query(request.query_params)
    _must_be_json(request)
    body = await read_body(request, limit=limit)
    try:
        return _body.decode(body)
    except (ValueError, RecursionError) as error:
        raise _ill_formed(error) from None


async def read_body(request: Request, *, limit: int) -> bytes:
    """The body; a 413 as soon as it is known to exceed *limit* bytes, a 408 when it takes too long.

    A 415 when it is compressed: a few kilobytes may stand for gigabytes.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpRefusal(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "Send the body as it is, without Content-Encoding.",
            {"Accept-Encoding": "identity"},
        )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:16]) > limit:
        raise _too_large(limit)
    first = await first_message(request.receive)
    if first["type"] == "http.disconnect":
        raise ClientDisconnect
    body = bytearray(first.get("body", b""))
    if first.get("more_body"):
        await _read_on(request, body, limit)
    if len(body) > limit:
        raise _too_large(limit)
    return bytes(body)


async def first_message(receive: Receive) -> Message:
    """The first message of a request, within the time that a body may take; a 408 when it takes longer."""
    receiving = cast("Coroutine[Any, Any, Message]", receive())
    try:
        receiving.send(None)
    except StopIteration as arrived:  # nearly always; a clock would cost more than all else here
        return cast("Message", arrived.value)
    receiving.close()
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await receive()
    except TimeoutError:
        raise _too_slow() from None


async def _read_on(request: Request, body: bytearray, limit: int) -> None:
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    return
    except TimeoutError:
        raise _too_slow() from None


def _from_query(query: QueryParams) -> Params:
    given: dict[str, Any] = {name: text for name, text in query.multi_items() if text}
    try:
        for name in _OBJECTS:
            if name in given:
                given[name] = _object.decode(given[name])
        return msgspec.convert(given, Params)
    except (ValueError, RecursionError) as error:
        raise _ill_formed(error) from None


def _must_be_json(request: Request) -> None:
    media, *parameters = request.headers.get("content-type", "").lower().split(";")
    charset = [each.partition("=")[2].strip('" ') for each in parameters if "charset" in each]
    if media.strip() != "application/json" or any(each != "utf-8" for each in charset):
        raise HttpRefusal(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "Send the request as Content-Type: application/json, in UTF-8.",
            {"Accept-Post": "application/json"},
        )


def _ill_formed(error: Exception) -> HttpRefusal:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return HttpRefusal(
        400, "BAD_REQUEST", f"The request is no well-formed GraphQL request: {reason}."
    )


def _too_slow() -> HttpRefusal:
    """408: who sends a byte a minute holds a connection, and an ending server, for hours."""
    return HttpRefusal(408, "REQUEST_TIMEOUT", f"The body took more than {READ_SECONDS:.0f} s.")


def _too_large(limit: int) -> HttpRefusal:
    return HttpRefusal(
        413,
        "PAYLOAD_TOO_LARGE",
        f"The body exceeds {limit:,} bytes; send less at a time.",
    )
