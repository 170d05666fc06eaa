"""The door for Stripe's events: verified, kept durably, what they touch forgotten, then 2xx.

The order matters. A delivery is answered only when it can no longer get lost and no read can show
the state before it any more; a crash in between leaves it unanswered, and Stripe delivers it again,
which costs nothing. Refusals say why in one sentence; payloads are neither answered nor logged.

Stripe may send thousands at once, beside people who look at panels: so the door speaks ASGI itself
(Starlette's Request and Response cost more than the signature), reads of an event what matters, takes in
together what comes within a hundredth of a second, and works on no more than a few in one turn of the event loop.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from prometheus_client import Counter
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from billing.cache.batcher import Tick
from billing.errors import Unavailable
from billing.event_ingestion import take_in
from billing.events.effects import NotAnEvent, Notice
from billing.services import Services
from billing.stripe import API_VERSION
from webhooks.event_parser import skim
from webhooks.signature import NotSigned, verify

log = structlog.get_logger(__name__)

PATH = "/webhooks/stripe"
MAX_BYTES = 256 * 1024
READ_SECONDS = 10.0  # Stripe sends a body in a few packets
GATHER_SECONDS, ENOUGH = 0.01, 32  # a delivery may wait so long for others to share its writes
AT_ONCE = 64  # deliveries; about 4 ms of work, which is what anybody else may have to wait

DELIVERIES = Counter(
    "billing_webhook_deliveries",
    "Deliveries of Stripe events by outcome: new, duplicate, unknown_type, other_mode, refused, unavailable.",
    ["outcome"],
)
NEW, DUPLICATE, UNKNOWN_TYPE, OTHER_MODE, REFUSED, UNAVAILABLE = (
    DELIVERIES.labels(outcome)
    for outcome in ("new", "duplicate", "unknown_type", "other_mode", "refused", "unavailable")
)


def webhook_route(read_seconds: float = READ_SECONDS) -> Route:
    """``POST /webhooks/stripe``, for an application that keeps its open Services in ``state.services``.

    A body may take *read_seconds* to arrive.
    """
    return Route(PATH, _Door(read_seconds), methods=["POST"])


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _Door:
    def __init__(self, read_seconds: float) -> None:
        self._read_seconds = read_seconds
        self._places = asyncio.Semaphore(AT_ONCE)
        self._secrets: Sequence[bytes] = ()
        self._livemode = False
        self._arriving: Tick[Notice, bool] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one delivery."""
        try:
            body = await _body(receive, self._read_seconds)
            async with self._places:
                outcome = await self._take_in(scope, body)
        except _Refused as refusal:
            log.warning("webhook.refused", reason=str(refusal))
            REFUSED.inc()
            await PlainTextResponse(str(refusal), refusal.status)(scope, receive, send)
        except Unavailable as error:
            UNAVAILABLE.inc()
            answer = PlainTextResponse(error.message, HTTPStatus.SERVICE_UNAVAILABLE)
            await answer(scope, receive, send)
        else:
            outcome.inc()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

    async def _take_in(self, scope: Scope, body: bytes) -> Counter:
        arriving = self._arriving or self._open(scope["app"].state.services)
        _must_be_signed(scope, body, self._secrets)
        notice = _notice(body, livemode=self._livemode)
        if notice is None:
            return OTHER_MODE
        new = await arriving.ask(notice)
        if notice.effect is None:
            return UNKNOWN_TYPE
        return NEW if new else DUPLICATE

    def _open(self, services: Services) -> Tick[Notice, bool]:
        """Begin with the first delivery: an application has no Services before it has started."""
        secrets = services.settings.stripe_webhook_secrets
        self._secrets = [each.get_secret_value().encode() for each in secrets]
        self._livemode = services.settings.livemode
        self._arriving = Tick(partial(take_in, services), wait=GATHER_SECONDS, enough=ENOUGH)
        return self._arriving


async def _body(receive: Receive, seconds: float) -> bytes:
    body = bytearray()
    reading = _read(receive, body)
    try:
        reading.send(None)
    except StopIteration:  # all of it is here, as nearly always: a clock would cost more than that
        return bytes(body)
    reading.close()
    try:
        async with asyncio.timeout(seconds):
            await _read(receive, body)
    except TimeoutError as error:
        raise _Refused(HTTPStatus.REQUEST_TIMEOUT, "The body took too long.") from error
    return bytes(body)


async def _read(receive: Receive, body: bytearray) -> None:
    """Add to *body* what has not been read of it yet."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refused(HTTPStatus.BAD_REQUEST, "The body was cut short.")
        body += message.get("body", b"")
        if len(body) > MAX_BYTES:
            sentence = f"The body is larger than {MAX_BYTES} bytes."
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
        more = message.get("more_body", False)


def _must_be_signed(scope: Scope, body: bytes, secrets: Sequence[bytes]) -> None:
    header = next((value for name, value in scope["headers"] if name == b"stripe-signature"), b"")
    try:
        verify(body, header, secrets, time.time())
    except NotSigned as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error


def _notice(body: bytes, *, livemode: bool) -> Notice | None:
    """What *body* says; None when it is of the other mode, whose objects our key cannot reach."""
    try:
        event = skim(body)
        notice = Notice.of(event)
    except orjson.JSONDecodeError as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, "The body is no JSON.") from error
    except NotAnEvent as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
    _recognise_version(notice, event)
    if event.get("livemode", livemode) is not livemode:
        log.warning("webhook.other_mode", event_id=notice.id)
        return None
    return notice


def _recognise_version(notice: Notice, event: dict[str, Any]) -> None:
    """Say that an endpoint renders another API version; its identities are all that we take anyway."""
    version = event.get("api_version")
    if version != API_VERSION:
        log.warning("webhook.other_version", event_id=notice.id, version=str(version)[:40])
