"""Reads request bodies, with limits of size and time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from billing.deadline import complete_within
from gateway.http.errors import HttpError

# Time for a whole body to arrive.
BODY_TIMEOUT_SECONDS = 20.0


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
    try:
        start = cast("Callable[[], Coroutine[Any, Any, Message]]", receive)
        return await complete_within(BODY_TIMEOUT_SECONDS, start)
    except TimeoutError:
        raise _request_timeout() from None


def replay(first: Message, receive: Receive) -> Receive:
    """Return a `receive` that yields *first* again before the messages of *receive*."""
    unread = [first]

    async def receive_again() -> Message:
        return unread.pop() if unread else await receive()

    return receive_again


async def _read_remaining(request: Request, body: bytearray, limit: int) -> None:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    return
    except TimeoutError:
        raise _request_timeout() from None


def _request_timeout() -> HttpError:
    """408: a client that sends a byte a minute would keep a connection, and a shutdown, open for hours."""
    message = f"The body took more than {BODY_TIMEOUT_SECONDS:.0f} s."
    return HttpError(408, "REQUEST_TIMEOUT", message)


def _payload_too_large(limit: int) -> HttpError:
    message = f"The body exceeds {limit:,} bytes; send less at a time."
    return HttpError(413, "PAYLOAD_TOO_LARGE", message)
