"""Parameters of a GraphQL request: strict JSON and strict shapes, the same over HTTP and WebSocket."""

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from gateway.http.errors import HttpError

# Time for a whole body to arrive.
BODY_TIMEOUT_SECONDS = 20.0
_JSON_PARAMETERS = ("variables", "extensions")


class RequestParams(msgspec.Struct, rename="camel"):
    """A GraphQL request's parameters; *document_id* names a trusted document in place of *query*."""

    query: str | None = None
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None
    document_id: str | None = None


_params_decoder = msgspec.json.Decoder(RequestParams)
_object_decoder = msgspec.json.Decoder(dict[str, Any] | None)


async def read_params(request: Request, *, limit: int) -> RequestParams:
    """Read a GET or POST *request*, whose body may have *limit* bytes; HttpError when it is malformed."""
    if request.method == "GET":
        return _params_from_query(request.query_params)
    _require_json(request)
    body = await read_body(request, limit=limit)
    try:
        return _params_decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise _bad_request(error) from None


async def read_body(request: Request, *, limit: int) -> bytes:
    """Return the body; 413 as soon as it is known to exceed *limit* bytes, 408 when it takes too long.

    415 when it is compressed: a few kilobytes may expand to gigabytes.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "Send the body as it is, without Content-Encoding.",
            {"Accept-Encoding": "identity"},
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:16]) > limit:
        raise _payload_too_large(limit)
    first = await read_first_message(request.receive)
    if first["type"] == "http.disconnect":
        raise ClientDisconnect
    body = bytearray(first.get("body", b""))
    if first.get("more_body"):
        await _read_remaining(request, body, limit)
    if len(body) > limit:
        raise _payload_too_large(limit)
    return bytes(body)


async def read_first_message(receive: Receive) -> Message:
    """Return the first message of a request; 408 when it takes longer than a body may take."""
    reading = cast("Coroutine[Any, Any, Message]", receive())
    try:
        reading.send(None)
    except StopIteration as arrived:  # the usual case; a timer would cost more than all else here
        return cast("Message", arrived.value)
    reading.close()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            return await receive()
    except TimeoutError:
        raise _request_timeout() from None


async def _read_remaining(request: Request, body: bytearray, limit: int) -> None:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    return
    except TimeoutError:
        raise _request_timeout() from None


def _params_from_query(query: QueryParams) -> RequestParams:
    params: dict[str, Any] = {name: text for name, text in query.multi_items() if text}
    try:
        for name in _JSON_PARAMETERS:
            if name in params:
                params[name] = _object_decoder.decode(params[name])
        return msgspec.convert(params, RequestParams)
    except (ValueError, RecursionError) as error:
        raise _bad_request(error) from None


def _require_json(request: Request) -> None:
    media, *parameters = request.headers.get("content-type", "").lower().split(";")
    charsets = [text.partition("=")[2].strip('" ') for text in parameters if "charset" in text]
    if media.strip() != "application/json" or any(charset != "utf-8" for charset in charsets):
        raise HttpError(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "Send the request as Content-Type: application/json, in UTF-8.",
            {"Accept-Post": "application/json"},
        )


def _bad_request(error: Exception) -> HttpError:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return HttpError(
        400, "BAD_REQUEST", f"The request is no well-formed GraphQL request: {reason}."
    )


def _request_timeout() -> HttpError:
    """408: a client that sends a byte a minute would keep a connection, and a shutdown, open for hours."""
    return HttpError(
        408, "REQUEST_TIMEOUT", f"The body took more than {BODY_TIMEOUT_SECONDS:.0f} s."
    )


def _payload_too_large(limit: int) -> HttpError:
    return HttpError(
        413,
        "PAYLOAD_TOO_LARGE",
        f"The body exceeds {limit:,} bytes; send less at a time.",
    )
