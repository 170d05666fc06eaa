"""The door for Stripe's events: verified, kept durably, what they touch forgotten, then 2xx.

The order matters. A delivery is answered only when it can no longer get lost and no read can show
the state before it any more; a crash in between leaves it unanswered, and Stripe delivers it again,
which costs nothing. Refusals say why in one sentence; payloads are neither answered nor logged.
"""

import asyncio
import time
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from prometheus_client import Counter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from billing.effects import NotAnEvent, Notice
from billing.errors import Unavailable
from billing.services import Services
from billing.stripe_api import API_VERSION
from webhooks.arrivals import Arrivals
from webhooks.signature import NotSigned, verify

log = structlog.get_logger(__name__)

PATH = "/webhooks/stripe"
MAX_BYTES = 256 * 1024
READ_SECONDS = 10.0  # Stripe sends a body in a few packets

DELIVERIES = Counter(
    "billing_webhook_deliveries",
    "Deliveries of Stripe events by outcome: new, duplicate, unknown_type, refused, unavailable.",
    ["outcome"],
)


def webhook_route(read_seconds: float = READ_SECONDS) -> Route:
    """``POST /webhooks/stripe``, for an application that keeps its open Services in ``state.services``.

    A body may take *read_seconds* to arrive.
    """
    return Route(PATH, _Door(read_seconds).deliver, methods=["POST"])


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class _Door:
    def __init__(self, read_seconds: float) -> None:
        self._read_seconds = read_seconds
        self._arrivals = Arrivals()

    async def deliver(self, request: Request) -> Response:
        """Answer one delivery."""
        services: Services = request.app.state.services
        try:
            body = await _body(request, self._read_seconds)
            _must_be_signed(request, body, services)
            notice = _notice(body)
            new = await self._arrivals.take_in(services, notice)
        except _Refused as refusal:
            log.warning("webhook.refused", reason=str(refusal))
            DELIVERIES.labels("refused").inc()
            return PlainTextResponse(str(refusal), refusal.status)
        except Unavailable as error:
            DELIVERIES.labels("unavailable").inc()
            return PlainTextResponse(error.message, HTTPStatus.SERVICE_UNAVAILABLE)
        DELIVERIES.labels(_outcome(notice, new=new)).inc()
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _outcome(notice: Notice, *, new: bool) -> str:
    if notice.effect is None:
        return "unknown_type"
    return "new" if new else "duplicate"


async def _body(request: Request, seconds: float) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    sentence = f"The body is larger than {MAX_BYTES} bytes."
                    raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
    except TimeoutError as error:
        raise _Refused(HTTPStatus.REQUEST_TIMEOUT, "The body took too long.") from error
    except ClientDisconnect as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, "The body was cut short.") from error
    return bytes(body)


def _must_be_signed(request: Request, body: bytes, services: Services) -> None:
    header = request.headers.get("stripe-signature", "").encode("latin-1")
    secrets = services.settings.stripe_webhook_secrets
    try:
        verify(body, header, [each.get_secret_value().encode() for each in secrets], time.time())
    except NotSigned as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error


def _notice(body: bytes) -> Notice:
    try:
        event = orjson.loads(body)
        notice = Notice.of(event)
    except orjson.JSONDecodeError as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, "The body is no JSON.") from error
    except NotAnEvent as error:
        raise _Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
    _recognise_version(notice, event)
    return notice


def _recognise_version(notice: Notice, event: dict[str, Any]) -> None:
    """Say that an endpoint renders another API version; its identities are all that we take anyway."""
    version = event.get("api_version")
    if version != API_VERSION:
        log.warning("webhook.other_version", event_id=notice.id, version=str(version)[:40])
