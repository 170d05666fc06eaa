"""The endpoint for Stripe's events: each is verified, stored durably and invalidated, then acknowledged.

The order matters. A delivery is acknowledged only when it cannot get lost any more and no read can show
the state before it. After a crash in between Stripe delivers it again, which is harmless. A rejection gives
its reason in one sentence; payloads are neither returned nor logged.

Stripe may send thousands of events at once while the process serves panels. Therefore the endpoint is plain
ASGI (Starlette's Request and Response cost more than the signature), parses only the fields it needs, ingests
the deliveries of 10 ms together, and processes a limited number concurrently.
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

from billing.cache.batcher import Batcher
from billing.deadline import complete_within
from billing.errors import Unavailable
from billing.event_ingestion import ingest
from billing.events.effects import EventRef, InvalidEvent
from billing.services import Services
from billing.stripe import API_VERSION
from webhooks.event_parser import parse_event
from webhooks.signature import InvalidSignature, verify

log = structlog.get_logger(__name__)

PATH = "/webhooks/stripe"
MAX_BYTES = 256 * 1024
BODY_TIMEOUT_SECONDS = 10.0  # Stripe sends a body in a few packets
BATCH_SECONDS, BATCH_SIZE = 0.01, 32  # deliveries ingested in one batch
MAX_CONCURRENT = 64  # deliveries; about 4 ms of work, during which other requests wait

DELIVERIES = Counter(
    "billing_webhook_deliveries",
    "Deliveries of Stripe events by outcome: new, duplicate, unknown_type, other_mode, other_account, refused, "
    "unavailable.",
    ["outcome"],
)
NEW, DUPLICATE, UNKNOWN_TYPE, OTHER_MODE, OTHER_ACCOUNT, REFUSED, UNAVAILABLE = (
    DELIVERIES.labels(outcome)
    for outcome in (
        "new",
        "duplicate",
        "unknown_type",
        "other_mode",
        "other_account",
        "refused",
        "unavailable",
    )
)


def webhook_route(read_seconds: float = BODY_TIMEOUT_SECONDS) -> Route:
    """The route ``POST /webhooks/stripe``, for an application with its Services in ``state.services``.

    A body must arrive within *read_seconds*.
    """
    return Route(PATH, WebhookEndpoint(read_seconds), methods=["POST"])


class RejectedDelivery(Exception):
    """A delivery that is answered with an error *status* and *sentence*."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class WebhookEndpoint:
    """The ASGI application of the endpoint."""

    def __init__(self, read_seconds: float) -> None:
        self._read_seconds = read_seconds
        self._concurrency = asyncio.Semaphore(MAX_CONCURRENT)
        self._secrets: Sequence[bytes] = ()
        self._livemode = False
        self._ingestion: Batcher[EventRef, bool] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one delivery."""
        try:
            body = await _body(receive, self._read_seconds)
            async with self._concurrency:
                outcome = await self._ingest(scope, body)
        except RejectedDelivery as rejection:
            log.warning("webhook.refused", reason=str(rejection))
            REFUSED.inc()
            await PlainTextResponse(str(rejection), rejection.status)(scope, receive, send)
        except Unavailable as error:
            UNAVAILABLE.inc()
            response = PlainTextResponse(error.message, HTTPStatus.SERVICE_UNAVAILABLE)
            await response(scope, receive, send)
        else:
            outcome.inc()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

    async def _ingest(self, scope: Scope, body: bytes) -> Counter:
        ingestion = self._ingestion or self._start(scope["app"].state.services)
        _verify_signature(scope, body, self._secrets)
        event, payload = _parse(body)
        if not_ours := _outcome_of_foreign(event, payload, livemode=self._livemode):
            return not_ours
        new = await ingestion.submit(event)
        if event.effect is None:
            return UNKNOWN_TYPE
        return NEW if new else DUPLICATE

    def _start(self, services: Services) -> Batcher[EventRef, bool]:
        """Initialize on the first delivery: an application has no Services before it has started."""
        secrets = services.settings.stripe_webhook_secrets
        self._secrets = [secret.get_secret_value().encode() for secret in secrets]
        self._livemode = services.settings.livemode
        self._ingestion = Batcher(
            partial(ingest, services), linger=BATCH_SECONDS, target_size=BATCH_SIZE
        )
        return self._ingestion


async def _body(receive: Receive, seconds: float) -> bytes:
    body = bytearray()
    try:
        await complete_within(seconds, partial(_read, receive, body))
    except TimeoutError as error:
        raise RejectedDelivery(HTTPStatus.REQUEST_TIMEOUT, "The body took too long.") from error
    return bytes(body)


async def _read(receive: Receive, body: bytearray) -> None:
    """Append the unread rest of the request body to *body*."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RejectedDelivery(HTTPStatus.BAD_REQUEST, "The body was cut short.")
        body += message.get("body", b"")
        if len(body) > MAX_BYTES:
            sentence = f"The body is larger than {MAX_BYTES} bytes."
            raise RejectedDelivery(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
        more = message.get("more_body", False)


def _verify_signature(scope: Scope, body: bytes, secrets: Sequence[bytes]) -> None:
    header = next((value for name, value in scope["headers"] if name == b"stripe-signature"), b"")
    try:
        verify(body, header, secrets, time.time())
    except InvalidSignature as error:
        raise RejectedDelivery(HTTPStatus.BAD_REQUEST, str(error)) from error


def _parse(body: bytes) -> tuple[EventRef, dict[str, Any]]:
    """The event in *body*, and the JSON that it was reduced from."""
    try:
        payload = parse_event(body)
        event = EventRef.from_payload(payload)
    except orjson.JSONDecodeError as error:
        raise RejectedDelivery(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from error
    except InvalidEvent as error:
        raise RejectedDelivery(HTTPStatus.BAD_REQUEST, str(error)) from error
    _warn_on_other_version(event, payload)
    return event, payload


def _outcome_of_foreign(
    event: EventRef, payload: dict[str, Any], *, livemode: bool
) -> Counter | None:
    """The outcome for an event whose objects our key cannot read; None for our own events.

    Stripe names the account of events of connected accounts alone.
    """
    if payload.get("livemode", livemode) is not livemode:
        log.warning("webhook.other_mode", event_id=event.id)
        return OTHER_MODE
    if payload.get("account"):
        log.warning("webhook.other_account", event_id=event.id)
        return OTHER_ACCOUNT
    return None


def _warn_on_other_version(event: EventRef, payload: dict[str, Any]) -> None:
    """Log that an endpoint has another API version; the event's ids are valid in any."""
    version = payload.get("api_version")
    if version != API_VERSION:
        log.warning("webhook.other_version", event_id=event.id, version=str(version)[:40])
