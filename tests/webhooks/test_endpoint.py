"""The webhook endpoint: accepted and rejected deliveries, and the responses to them."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from starlette.applications import Starlette

from billing.cache import open_cache
from billing.cache.entries import CacheEntry
from billing.events import Inbox
from billing.events.effects import EventRef
from billing.events.records import EventStatus
from billing.pagination import PageRequest
from billing.stripe import resources
from tests.support.webhook_server import webhook_server
from tests.webhooks.conftest import (
    OLD_SECRET,
    SECRET,
    Endpoint,
    invoice_event,
    open_endpoint,
    signature,
)
from webhooks import endpoint
from webhooks.endpoint import BATCH_SIZE, MAX_BYTES, MAX_CONCURRENT, PATH, webhook_route


def signed_raw(body: bytes) -> str:
    """A valid signature of any bytes, also of those that stripe-python cannot sign."""
    moment = int(time.time())
    digest = hmac.new(SECRET.encode(), b"%d." % moment + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


def deliveries(outcome: str) -> float:
    """The number of deliveries with this outcome so far."""
    return REGISTRY.get_sample_value("billing_webhook_deliveries_total", {"outcome": outcome}) or 0


@pytest.mark.parametrize("secret", [OLD_SECRET, SECRET])
async def test_signed_event_is_stored_before_the_response(webhook: Endpoint, secret: str) -> None:
    """Stripe does not send it again after a 2xx, whichever secret signed it."""
    response = await webhook.deliver(invoice_event(), secret=secret)

    assert response.status_code == 204
    event = await webhook.inbox.get("evt_1")
    assert event is not None
    assert (event.status, event.type) == (EventStatus.PENDING, "invoice.paid")
    assert (event.object_id, event.customer) == ("in_1", "cus_1")


async def test_no_read_after_the_response_returns_the_old_state(webhook: Endpoint) -> None:
    """Not even from this process's memory."""
    stripe = {"status": "open"}

    async def read() -> Any:
        return (
            await webhook.cache.fetch(resources.invoice("in_1").entry, lambda: _copy(stripe))
        ).value

    assert await read() == {"status": "open"}
    stripe = {"status": "paid"}
    assert await read() == {"status": "open"}
    await webhook.deliver(invoice_event())

    assert await read() == {"status": "paid"}


async def _copy(value: dict[str, str]) -> dict[str, str]:
    return dict(value)


def thin(kind: str, named: str) -> dict[str, Any]:
    """A thin event, which names an object but not its customer."""
    return {
        "id": "evt_thin",
        "object": "v2.core.event",
        "type": f"v1.{kind}",
        "related_object": {"id": named},
    }


PAGE = resources.invoices("cus_1", PageRequest(10), None).entry
VIEWS = {
    "invoice.updated": [
        PAGE,
        resources.invoice_heads("cus_1", PageRequest(10)).entry,
        resources.invoice("in_1").entry,
    ],
    "credit_note.created": [
        PAGE,
        resources.invoice("in_1").entry,
        resources.lines("in_1", PageRequest(10)).entry,
    ],
    "payment_method.detached": [
        resources.payment_methods("cus_1", PageRequest(10)).entry,
        resources.customer_with_card("cus_1").entry,
        resources.customers_with_cards(PageRequest(10), None).entry,
    ],
}
NAMED = {"invoice.updated": "in_1", "credit_note.created": "cn_1"}


@pytest.mark.parametrize("kind", VIEWS)
async def test_event_without_customer_invalidates_every_view_of_its_object(
    webhook: Endpoint, kind: str
) -> None:
    """The customer is read later; until then no view may show the old state."""

    async def read(shown: str) -> list[Any]:
        async def load() -> Any:
            return shown

        for entry in VIEWS[kind]:  # the page first, so that it also fills the invoice
            others = [resources.invoice("in_1").entry] if entry is PAGE else []
            await webhook.cache.fetch(entry, load, split=partial(_with, others))
        return [(await webhook.cache.fetch(entry, load)).value for entry in VIEWS[kind]]

    assert set(await read("old")) == {"old"}
    assert set(await read("unread")) == {"old"}
    await webhook.deliver(thin(kind, NAMED.get(kind, "pm_1")))

    assert set(await read("new")) == {"new"}


def _with(others: list[CacheEntry], value: str) -> tuple[str, list[tuple[CacheEntry, str]]]:
    return value, [(entry, value) for entry in others]


async def test_page_loaded_during_an_event_without_customer_is_not_stored(
    webhook: Endpoint,
) -> None:
    """Stripe had answered before the change, and the page's contents were not known yet."""

    async def load() -> Any:
        await webhook.deliver(thin("invoice.updated", "in_1"))
        return "old"

    async def load_new() -> Any:
        return "new"

    await webhook.cache.fetch(PAGE, load, split=partial(_with, [resources.invoice("in_1").entry]))

    for entry in (PAGE, resources.invoice("in_1").entry):
        assert (await webhook.cache.fetch(entry, load_new)).value == "new"


async def test_duplicate_gets_the_same_response_and_invalidates_again(webhook: Endpoint) -> None:
    """The first delivery may have failed between storing the event and invalidating."""
    await webhook.deliver(invoice_event())
    before = await webhook.cache.generations("in_1", "cus_1")
    response = await webhook.deliver(invoice_event())

    assert response.status_code == 204
    assert await webhook.stored() == ["evt_1"]
    assert not set(before) & set(await webhook.cache.generations("in_1", "cus_1"))


async def test_payload_is_not_stored(webhook: Endpoint, redis: Redis) -> None:
    """Payloads contain addresses and amounts; the ids are sufficient."""
    await webhook.deliver(invoice_event())

    async for key in redis.scan_iter("*"):
        assert b"ann@example.com" not in await redis.dump(key)


async def test_unknown_type_is_accepted_counted_and_ignored(webhook: Endpoint) -> None:
    """An error would make Stripe deliver it for three days, and disable the endpoint in the end."""
    before = deliveries("unknown_type")
    response = await webhook.deliver(invoice_event(type="treasury.flow.created"))

    assert response.status_code == 204
    assert deliveries("unknown_type") == before + 1
    event = await webhook.inbox.get("evt_1")
    assert event is not None
    assert event.status is EventStatus.IGNORED


async def test_event_of_no_known_shape_is_accepted_counted_and_ignored(webhook: Endpoint) -> None:
    """A thin event about something that no object stands for is authentic, too."""
    before = deliveries("unknown_type")
    no_meter = {
        "id": "evt_1",
        "object": "v2.core.event",
        "type": "v1.billing.meter.no_meter_found",
        "related_object": None,
    }
    response = await webhook.deliver(no_meter)

    event = await webhook.inbox.get("evt_1")
    assert (response.status_code, deliveries("unknown_type")) == (204, before + 1)
    assert event is not None
    assert event.status is EventStatus.IGNORED


async def test_event_of_another_account_is_accepted_counted_and_left_alone(
    webhook: Endpoint,
) -> None:
    """Our key reads none of its objects, and their ids name nothing here."""
    generations = await webhook.cache.generations("in_1", "cus_1")
    before = deliveries("other_account")
    response = await webhook.deliver(invoice_event(account="acct_1Other"))

    assert (response.status_code, deliveries("other_account")) == (204, before + 1)
    assert await webhook.stored() == []
    assert await webhook.cache.generations("in_1", "cus_1") == generations
    assert (await webhook.deliver(invoice_event(account=None))).status_code == 204
    assert await webhook.stored() == ["evt_1"]


async def test_echo_of_our_own_write_is_ignored_but_invalidates(webhook: Endpoint) -> None:
    """It needs no work, but a read that overtook our own invalidation is corrected."""
    [before] = await webhook.cache.generations("in_1")
    key = {"id": "req_1", "idempotency_key": "gw1:cus_1:2026-11:1:7:0"}
    await webhook.deliver(invoice_event(request=key))

    event = await webhook.inbox.get("evt_1")
    assert event is not None
    assert event.status is EventStatus.IGNORED
    assert [before] != list(await webhook.cache.generations("in_1"))


async def test_other_api_version_is_logged_and_accepted(webhook: Endpoint) -> None:
    """The event of an older endpoint reports the same change."""
    with structlog.testing.capture_logs() as logs:
        response = await webhook.deliver(invoice_event(api_version="2019-03-14", request="req_1"))

    assert response.status_code == 204
    assert await webhook.stored() == ["evt_1"]
    assert [(line["event"], line["version"]) for line in logs] == [
        ("webhook.other_version", "2019-03-14")
    ]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is not JSON."),
        (b"\xff\xfe\x00", "The body is not JSON."),
        (b'{"id": "evt_1", "type": "invoice.pa', "The body is not JSON."),
        (b"[" * 200_000, "The body is not JSON."),
        (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "The body is not JSON."),
        (b'{"id": NaN}', "The body is not JSON."),
        (b"[]", "The body is not a JSON object."),
        (b'{"object": "event", "id": "evt_1"}', "The event has no usable `type`."),
        (b'{"object": "v2.core.event", "type": "v1.x"}', "The event has no usable `id`."),
    ],
)
async def test_signed_invalid_body_is_rejected(
    webhook: Endpoint, body: bytes, sentence: str
) -> None:
    """Nothing unusable is stored, and nothing fails."""
    response = await webhook.http.post(
        PATH, content=body, headers={"Stripe-Signature": signed_raw(body)}
    )

    assert (response.status_code, response.text) == (400, sentence)
    assert await webhook.stored() == []


@pytest.mark.parametrize("seconds", [-3600, 3600])
async def test_replayed_or_postdated_delivery_is_rejected(webhook: Endpoint, seconds: int) -> None:
    """A recorded delivery cannot be replayed later."""
    response = await webhook.deliver(invoice_event(), at=time.time() + seconds)

    assert response.status_code == 400
    assert await webhook.stored() == []


async def test_forgery_is_rejected_without_its_payload_in_logs(webhook: Endpoint) -> None:
    """Text from a forger reaches neither logs nor responses."""
    with structlog.testing.capture_logs() as logs:
        response = await webhook.deliver(invoice_event("evt_forged"), secret="whsec_a_guess")

    assert response.status_code == 400
    assert "evt_forged" not in response.text + repr(logs)
    assert [line["event"] for line in logs] == ["webhook.refused"]
    assert await webhook.stored() == []


async def test_unsigned_delivery_is_rejected(webhook: Endpoint) -> None:
    """Scanners find every public path."""
    response = await webhook.http.post(PATH, json=invoice_event())

    assert response.status_code == 400


async def test_too_large_body_is_rejected_before_it_is_read(webhook: Endpoint) -> None:
    """Memory is bounded; the rest of the body is not read."""
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 65_536
            assert sent < 4 * MAX_BYTES
            yield b"x" * 65_536

    response = await webhook.http.post(PATH, content=endless())

    assert response.status_code == 413


async def test_largest_allowed_body_is_accepted(webhook: Endpoint) -> None:
    """The limit rejects abuse, not a long invoice."""
    event = invoice_event(padding="")
    event["padding"] = "x" * (MAX_BYTES - len(orjson.dumps(event)))

    assert (await webhook.deliver(event)).status_code == 204


async def test_interrupted_delivery_is_rejected(webhook: Endpoint) -> None:
    """A connection that ends in the middle of the body is not a delivery."""
    body = orjson.dumps(invoice_event())
    arriving = iter(
        [
            {"type": "http.request", "body": body, "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    answered: list[Any] = []

    async def receive() -> Any:
        return next(arriving)

    async def send(message: Any) -> None:
        answered.append(message)

    app = webhook.http._transport.app  # type: ignore[attr-defined]
    headers = [(b"stripe-signature", signature(body).encode())]
    scope = {
        "type": "http",
        "method": "POST",
        "path": PATH,
        "headers": headers,
        "query_string": b"",
    }
    await app(scope, receive, send)

    assert answered[0]["status"] == 400
    assert await webhook.stored() == []


async def test_slow_body_times_out(webhook: Endpoint) -> None:
    """A sender of a byte a minute must not occupy the endpoint."""
    services = webhook.http._transport.app.state.services  # type: ignore[attr-defined]
    async with webhook_server(services, read_seconds=0.05) as url:
        at = httpx.URL(url)
        reader, writer = await asyncio.open_connection(at.host, at.port)
        writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{" % PATH.encode())
        response = await reader.readuntil(b"took too long.")
        writer.close()

    assert response.startswith(b"HTTP/1.1 408 ")


async def test_chunked_body_is_joined(webhook: Endpoint) -> None:
    """A large event fills several packets."""
    body = orjson.dumps(invoice_event())

    async def in_pieces() -> Any:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]
            await asyncio.sleep(0.01)

    services = webhook.http._transport.app.state.services  # type: ignore[attr-defined]
    async with webhook_server(services) as url, httpx.AsyncClient() as http:
        headers = {"Stripe-Signature": signature(body)}
        response = await http.post(url, content=in_pieces(), headers=headers)

    assert response.status_code == 204
    assert await webhook.stored() == ["evt_1"]


async def test_ledger_outage_returns_503(webhook: Endpoint, redis_url: str) -> None:
    """An event that cannot be stored must not be acknowledged."""
    app = Starlette(routes=[webhook_route()])
    services = webhook.http._transport.app.state.services  # type: ignore[attr-defined]
    nowhere = Inbox(Redis.from_url("redis://127.0.0.1:1"))
    app.state.services = SimpleNamespace(
        settings=services.settings, inbox=nowhere, cache=webhook.cache
    )
    async with _client(app) as http:
        response = await Endpoint(http, webhook.inbox, webhook.cache).deliver(invoice_event())

    assert response.status_code == 503


async def test_cache_outage_returns_503(webhook: Endpoint) -> None:
    """A cache that returns could otherwise serve the state before the event."""
    app = Starlette(routes=[webhook_route()])
    services = webhook.http._transport.app.state.services  # type: ignore[attr-defined]
    async with open_cache("redis://127.0.0.1:1") as nowhere, _client(app) as http:
        app.state.services = SimpleNamespace(
            settings=services.settings, inbox=webhook.inbox, cache=nowhere
        )
        response = await Endpoint(http, webhook.inbox, nowhere).deliver(invoice_event())

    assert response.status_code == 503
    assert await webhook.stored() == ["evt_1"]


def _client(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


async def test_get_returns_405(webhook: Endpoint) -> None:
    """People open the address in a browser to check it."""
    assert (await webhook.http.get(PATH)).status_code == 405


async def test_concurrent_deliveries_are_all_stored(webhook: Endpoint) -> None:
    """Deliveries of one loop iteration share a round trip, and none is lost."""
    responses = await asyncio.gather(
        *(webhook.deliver(invoice_event(f"evt_{i % 80}")) for i in range(100))
    )

    assert {response.status_code for response in responses} == {204}
    assert len(await webhook.stored()) == 80


async def test_flood_takes_few_round_trips(webhook: Endpoint, redis: Redis) -> None:
    """Deliveries that arrive while the ledger works share one script for storing and one for invalidating."""

    async def scripts() -> int:
        calls: int = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        return calls

    await webhook.deliver(invoice_event("evt_first"))
    before = await scripts()
    await asyncio.gather(*(webhook.deliver(invoice_event(f"evt_{i}")) for i in range(60)))

    assert await scripts() - before < 60


class _Counting(Inbox):
    """An inbox that records the sizes of its batches."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.sizes: list[int] = []

    async def receive(self, refs: Sequence[EventRef]) -> list[bool]:
        self.sizes.append(len(refs))
        return await super().receive(refs)


async def test_flood_is_ingested_in_bounded_batches(webhook: Endpoint, redis: Redis) -> None:
    """Other requests meanwhile wait for one batch, not for all."""
    app = webhook.http._transport.app  # type: ignore[attr-defined]
    inbox = app.state.services.inbox = _Counting(redis)

    await asyncio.gather(*(webhook.deliver(invoice_event(f"evt_{i}")) for i in range(100)))

    assert sum(inbox.sizes) == 100
    assert max(inbox.sizes) <= MAX_CONCURRENT


async def test_deliveries_within_the_batch_time_share_their_writes(
    webhook: Endpoint, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery waits for others, so that a flood takes few scripts, each of which blocks the ledger."""
    monkeypatch.setattr(endpoint, "BATCH_SECONDS", 1.0)
    inbox = webhook.http._transport.app.state.services.inbox = _Counting(redis)  # type: ignore[attr-defined]

    first = asyncio.create_task(webhook.deliver(invoice_event("evt_first")))
    await asyncio.sleep(0.1)
    await webhook.deliver(invoice_event("evt_second"))
    await first

    assert inbox.sizes == [2]


async def test_full_batch_does_not_wait(
    webhook: Endpoint, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst is processed at once."""
    monkeypatch.setattr(endpoint, "BATCH_SECONDS", 600.0)
    inbox = webhook.http._transport.app.state.services.inbox = _Counting(redis)  # type: ignore[attr-defined]

    async with asyncio.timeout(30):
        await asyncio.gather(
            *(webhook.deliver(invoice_event(f"evt_{i}")) for i in range(BATCH_SIZE))
        )

    assert inbox.sizes == [BATCH_SIZE]


async def test_disconnected_client_does_not_affect_other_deliveries(webhook: Endpoint) -> None:
    """Deliveries share a round trip, not their outcome."""
    cancelled = asyncio.create_task(webhook.deliver(invoice_event("evt_gone")))
    stays = asyncio.create_task(webhook.deliver(invoice_event("evt_stays")))
    await asyncio.sleep(0)
    cancelled.cancel()

    assert (await stays).status_code == 204
    assert cancelled.cancelled()
    assert "evt_stays" in await webhook.stored()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "type", "data", "object", "customer", "metadata", "request"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.binary(max_size=64) | JSON.map(orjson.dumps))
async def test_no_signed_body_causes_an_error(webhook: Endpoint, body: bytes) -> None:
    """The response is 204 or 400, never a 500."""
    response = await webhook.http.post(
        PATH, content=body, headers={"Stripe-Signature": signed_raw(body)}
    )

    assert response.status_code in (204, 400)


@pytest.mark.parametrize("live", [False, True])
async def test_event_of_the_other_mode_is_ignored(
    redis: Redis, redis_url: str, *, live: bool
) -> None:
    """Test and live mode may share an address; our key cannot read the other mode's objects."""
    key = "sk_live_0123456789abcdef" if live else "sk_test_0123456789abcdef"
    async with open_endpoint(redis, redis_url, key) as webhook:
        before = deliveries("other_mode")
        responses = [
            await webhook.deliver(invoice_event("evt_ours", livemode=live)),
            await webhook.deliver(invoice_event("evt_theirs", livemode=not live)),
        ]

        assert [response.status_code for response in responses] == [204, 204]
        assert await webhook.stored() == ["evt_ours"]
        assert deliveries("other_mode") == before + 1
