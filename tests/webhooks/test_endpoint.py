"""The webhook door: what gets in, what does not, and what is said about it."""

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

from billing.cache import entries, open_cache
from billing.cache.entries import Entry
from billing.events import Inbox
from billing.events.effects import Notice
from billing.events.events import EventStatus
from billing.pagination import Window
from tests.support.webhook_server import hearing
from tests.webhooks.conftest import OLD_SECRET, SECRET, Door, door_with, invoice_event, signature
from webhooks import endpoint
from webhooks.endpoint import AT_ONCE, ENOUGH, MAX_BYTES, PATH, webhook_route


def signed_raw(body: bytes) -> str:
    """A true signature of any bytes, also of those that stripe-python cannot sign."""
    moment = int(time.time())
    digest = hmac.new(SECRET.encode(), b"%d." % moment + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


def deliveries(outcome: str) -> float:
    """How many deliveries had this outcome so far."""
    return REGISTRY.get_sample_value("billing_webhook_deliveries_total", {"outcome": outcome}) or 0


@pytest.mark.parametrize("secret", [OLD_SECRET, SECRET])
async def test_a_signed_event_is_in_the_inbox_before_the_answer(door: Door, secret: str) -> None:
    """2xx makes Stripe forget the event: it has to be ours by then, whichever secret signed it."""
    answer = await door.deliver(invoice_event(), secret=secret)

    assert answer.status_code == 204
    kept = await door.inbox.get("evt_1")
    assert kept is not None
    assert (kept.status, kept.type) == (EventStatus.PENDING, "invoice.paid")
    assert (kept.object_id, kept.customer) == ("in_1", "cus_1")


async def test_after_the_answer_nobody_reads_the_state_before_it(door: Door) -> None:
    """The panel must not show what Stripe had before the event, not even from this process's memory."""
    stripe = {"status": "open"}

    async def read() -> Any:
        return (await door.cache.fetch(entries.invoice("in_1"), lambda: _answer(stripe))).value

    assert await read() == {"status": "open"}
    stripe = {"status": "paid"}
    assert await read() == {"status": "open"}
    await door.deliver(invoice_event())

    assert await read() == {"status": "paid"}


async def _answer(value: dict[str, str]) -> dict[str, str]:
    return dict(value)


def thin(kind: str, named: str) -> dict[str, Any]:
    """An event that names an object, and not whose it is."""
    return {
        "id": "evt_thin",
        "object": "v2.core.event",
        "type": f"v1.{kind}",
        "related_object": {"id": named},
    }


PAGE = entries.invoices("cus_1", Window(10), None)
THEIRS = {
    "invoice.updated": [PAGE, entries.invoice_heads("cus_1", Window(10)), entries.invoice("in_1")],
    "credit_note.created": [PAGE, entries.invoice("in_1"), entries.lines("in_1", Window(10))],
    "payment_method.detached": [
        entries.payment_methods("cus_1", Window(10)),
        entries.customer_with_card("cus_1"),
        entries.customers_with_cards(Window(10), None),
    ],
}
NAMED = {"invoice.updated": "in_1", "credit_note.created": "cn_1"}


@pytest.mark.parametrize("kind", THEIRS)
async def test_what_names_no_customer_is_forgotten_wherever_it_is_shown(
    door: Door, kind: str
) -> None:
    """Whose it is is learnt later; until then nobody may be shown it as it was, least of all its owner."""

    async def read(shown: str) -> list[Any]:
        async def load() -> Any:
            return shown

        for each in THEIRS[kind]:  # the page first, so that the invoice comes along with it
            along = [entries.invoice("in_1")] if each is PAGE else []
            await door.cache.fetch(each, load, keep=partial(_with, along))
        return [(await door.cache.fetch(each, load)).value for each in THEIRS[kind]]

    assert set(await read("old")) == {"old"}
    assert set(await read("unread")) == {"old"}
    await door.deliver(thin(kind, NAMED.get(kind, "pm_1")))

    assert set(await read("new")) == {"new"}


def _with(along: list[Entry], value: str) -> tuple[str, list[tuple[Entry, str]]]:
    return value, [(entry, value) for entry in along]


async def test_a_page_that_was_being_read_is_not_kept_when_something_on_it_names_no_customer(
    door: Door,
) -> None:
    """Stripe had answered before the change, and nobody knew yet what would be on the page."""

    async def load() -> Any:
        await door.deliver(thin("invoice.updated", "in_1"))
        return "old"

    async def anew() -> Any:
        return "new"

    await door.cache.fetch(PAGE, load, keep=partial(_with, [entries.invoice("in_1")]))

    for each in (PAGE, entries.invoice("in_1")):
        assert (await door.cache.fetch(each, anew)).value == "new"


async def test_a_duplicate_is_answered_alike_and_forgets_again(door: Door) -> None:
    """The first delivery may have died between keeping the event and forgetting what it touches."""
    await door.deliver(invoice_event())
    before = await door.cache.generations("in_1", "cus_1")
    answer = await door.deliver(invoice_event())

    assert answer.status_code == 204
    assert await door.kept() == ["evt_1"]
    assert not set(before) & set(await door.cache.generations("in_1", "cus_1"))


async def test_the_payload_is_kept_nowhere(door: Door, redis: Redis) -> None:
    """Payloads hold addresses and amounts; identities are all that is needed."""
    await door.deliver(invoice_event())

    async for key in redis.scan_iter("*"):
        assert b"ann@example.com" not in await redis.dump(key)


async def test_an_unknown_type_is_accepted_counted_and_ignored(door: Door) -> None:
    """An error would make Stripe deliver it for three days, and disable the endpoint in the end."""
    before = deliveries("unknown_type")
    answer = await door.deliver(invoice_event(type="treasury.flow.created"))

    assert answer.status_code == 204
    assert deliveries("unknown_type") == before + 1
    kept = await door.inbox.get("evt_1")
    assert kept is not None
    assert kept.status is EventStatus.IGNORED


async def test_an_echo_of_our_own_write_is_ignored_but_forgotten(door: Door) -> None:
    """No work for a worker; a read that overtook our own bookkeeping is still cured."""
    [before] = await door.cache.generations("in_1")
    key = {"id": "req_1", "idempotency_key": "gw1:cus_1:2026-11:1:7:0"}
    await door.deliver(invoice_event(request=key))

    kept = await door.inbox.get("evt_1")
    assert kept is not None
    assert kept.status is EventStatus.IGNORED
    assert [before] != list(await door.cache.generations("in_1"))


async def test_another_api_version_is_recognised_and_still_heard(door: Door) -> None:
    """An endpoint of an older version says as well that the invoice may have changed."""
    with structlog.testing.capture_logs() as logs:
        answer = await door.deliver(invoice_event(api_version="2019-03-14", request="req_1"))

    assert answer.status_code == 204
    assert await door.kept() == ["evt_1"]
    assert [(each["event"], each["version"]) for each in logs] == [
        ("webhook.other_version", "2019-03-14")
    ]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is no JSON."),
        (b"\xff\xfe\x00", "The body is no JSON."),
        (b'{"id": "evt_1", "type": "invoice.pa', "The body is no JSON."),
        (b"[" * 200_000, "The body is no JSON."),
        (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "The body is no JSON."),
        (b'{"id": NaN}', "The body is no JSON."),
        (b"[]", "The body is no JSON object."),
        (b'{"object": "event", "id": "evt_1"}', "The event has no `data`."),
        (b'{"object": "v2.core.event", "id": "evt_1"}', "The event has no `data.object`."),
    ],
)
async def test_a_signed_body_of_the_wrong_shape_is_refused(
    door: Door, body: bytes, sentence: str
) -> None:
    """Signed or not, nothing that cannot be understood gets in, and nothing breaks over it."""
    answer = await door.http.post(
        PATH, content=body, headers={"Stripe-Signature": signed_raw(body)}
    )

    assert (answer.status_code, answer.text) == (400, sentence)
    assert await door.kept() == []


@pytest.mark.parametrize("seconds", [-3600, 3600])
async def test_a_replayed_or_postdated_delivery_is_refused(door: Door, seconds: int) -> None:
    """Somebody who recorded a delivery cannot play it back later."""
    answer = await door.deliver(invoice_event(), at=time.time() + seconds)

    assert answer.status_code == 400
    assert await door.kept() == []


async def test_a_forgery_is_refused_without_a_word_of_its_payload(door: Door) -> None:
    """What forgers write does not get into our logs or answers."""
    with structlog.testing.capture_logs() as logs:
        answer = await door.deliver(invoice_event("evt_forged"), secret="whsec_a_guess")

    assert answer.status_code == 400
    assert "evt_forged" not in answer.text + repr(logs)
    assert [each["event"] for each in logs] == ["webhook.refused"]
    assert await door.kept() == []


async def test_an_unsigned_delivery_is_refused(door: Door) -> None:
    """Scanners find every public path."""
    answer = await door.http.post(PATH, json=invoice_event())

    assert answer.status_code == 400


async def test_a_body_beyond_the_bound_is_refused_before_it_is_read(door: Door) -> None:
    """Memory is bounded whatever is sent; the rest of the body is never asked for."""
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 65_536
            assert sent < 4 * MAX_BYTES
            yield b"x" * 65_536

    answer = await door.http.post(PATH, content=endless())

    assert answer.status_code == 413


async def test_the_largest_allowed_body_is_accepted(door: Door) -> None:
    """The bound refuses abuse, not a long invoice."""
    event = invoice_event(padding="")
    event["padding"] = "x" * (MAX_BYTES - len(orjson.dumps(event)))

    assert (await door.deliver(event)).status_code == 204


async def test_a_delivery_that_breaks_off_is_refused(door: Door) -> None:
    """A connection that ends in the middle of the body must not count as a delivery."""
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

    app = door.http._transport.app  # type: ignore[attr-defined]
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
    assert await door.kept() == []


async def test_a_body_that_never_ends_is_given_up(door: Door) -> None:
    """Whoever sends a byte a minute must not hold a place for ever."""
    services = door.http._transport.app.state.services  # type: ignore[attr-defined]
    async with hearing(services, read_seconds=0.05) as url:
        at = httpx.URL(url)
        reader, writer = await asyncio.open_connection(at.host, at.port)
        writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{" % PATH.encode())
        answer = await reader.readuntil(b"took too long.")
        writer.close()

    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_comes_in_pieces_is_put_together(door: Door) -> None:
    """A large event fills several packets, which the network brings when it likes."""
    body = orjson.dumps(invoice_event())

    async def in_pieces() -> Any:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]
            await asyncio.sleep(0.01)

    services = door.http._transport.app.state.services  # type: ignore[attr-defined]
    async with hearing(services) as url, httpx.AsyncClient() as http:
        headers = {"Stripe-Signature": signature(body)}
        answer = await http.post(url, content=in_pieces(), headers=headers)

    assert answer.status_code == 204
    assert await door.kept() == ["evt_1"]


async def test_without_the_ledger_stripe_is_asked_to_deliver_again(
    door: Door, redis_url: str
) -> None:
    """An event that cannot be kept must not be acknowledged."""
    app = Starlette(routes=[webhook_route()])
    services = door.http._transport.app.state.services  # type: ignore[attr-defined]
    nowhere = Inbox(Redis.from_url("redis://127.0.0.1:1"))
    app.state.services = SimpleNamespace(
        settings=services.settings, inbox=nowhere, cache=door.cache
    )
    async with _client(app) as http:
        answer = await Door(http, door.inbox, door.cache).deliver(invoice_event())

    assert answer.status_code == 503


async def test_without_the_cache_stripe_is_asked_to_deliver_again(door: Door) -> None:
    """Otherwise a cache that comes back could still show the state before the event."""
    app = Starlette(routes=[webhook_route()])
    services = door.http._transport.app.state.services  # type: ignore[attr-defined]
    async with open_cache("redis://127.0.0.1:1") as nowhere, _client(app) as http:
        app.state.services = SimpleNamespace(
            settings=services.settings, inbox=door.inbox, cache=nowhere
        )
        answer = await Door(http, door.inbox, nowhere).deliver(invoice_event())

    assert answer.status_code == 503
    assert await door.kept() == ["evt_1"]


def _client(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


async def test_a_get_is_told_that_only_post_is_understood(door: Door) -> None:
    """People open the address in a browser to see whether it is there."""
    assert (await door.http.get(PATH)).status_code == 405


async def test_many_at_once_are_all_kept(door: Door) -> None:
    """Those that arrive in one turn of the event loop share a round trip, and none goes missing."""
    answers = await asyncio.gather(
        *(door.deliver(invoice_event(f"evt_{i % 80}")) for i in range(100))
    )

    assert {each.status_code for each in answers} == {204}
    assert len(await door.kept()) == 80


async def test_a_flood_costs_few_round_trips(door: Door, redis: Redis) -> None:
    """What arrives while the ledger works is kept with one script and forgotten with another."""

    async def scripts() -> int:
        calls: int = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        return calls

    await door.deliver(invoice_event("evt_first"))
    before = await scripts()
    await asyncio.gather(*(door.deliver(invoice_event(f"evt_{i}")) for i in range(60)))

    assert await scripts() - before < 60


class _Counting(Inbox):
    """An inbox that remembers how many events came at once."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self.sizes: list[int] = []

    async def receive(self, notices: Sequence[Notice]) -> list[bool]:
        self.sizes.append(len(notices))
        return await super().receive(notices)


async def test_a_flood_is_taken_in_by_bounded_handfuls(door: Door, redis: Redis) -> None:
    """Whoever looks at a panel meanwhile waits for a handful of deliveries, not for all of them."""
    app = door.http._transport.app  # type: ignore[attr-defined]
    inbox = app.state.services.inbox = _Counting(redis)

    await asyncio.gather(*(door.deliver(invoice_event(f"evt_{i}")) for i in range(100)))

    assert sum(inbox.sizes) == 100
    assert max(inbox.sizes) <= AT_ONCE


async def test_deliveries_soon_after_each_other_share_their_writes(
    door: Door, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery waits a little for others, so that a flood is few scripts, each of which stops the ledger."""
    monkeypatch.setattr(endpoint, "GATHER_SECONDS", 1.0)
    inbox = door.http._transport.app.state.services.inbox = _Counting(redis)  # type: ignore[attr-defined]

    first = asyncio.create_task(door.deliver(invoice_event("evt_first")))
    await asyncio.sleep(0.1)
    await door.deliver(invoice_event("evt_second"))
    await first

    assert inbox.sizes == [2]


async def test_enough_deliveries_wait_for_no_more(
    door: Door, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst is answered at once."""
    monkeypatch.setattr(endpoint, "GATHER_SECONDS", 600.0)
    inbox = door.http._transport.app.state.services.inbox = _Counting(redis)  # type: ignore[attr-defined]

    async with asyncio.timeout(30):
        await asyncio.gather(*(door.deliver(invoice_event(f"evt_{i}")) for i in range(ENOUGH)))

    assert inbox.sizes == [ENOUGH]


async def test_a_client_that_hangs_up_takes_nobody_else_along(door: Door) -> None:
    """Deliveries share a round trip, not their fate."""
    gone = asyncio.create_task(door.deliver(invoice_event("evt_gone")))
    stays = asyncio.create_task(door.deliver(invoice_event("evt_stays")))
    await asyncio.sleep(0)
    gone.cancel()

    assert (await stays).status_code == 204
    assert gone.cancelled()
    assert "evt_stays" in await door.kept()


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
async def test_no_signed_body_can_break_the_door(door: Door, body: bytes) -> None:
    """Whatever is signed, the answer is 204 or 400; never a crash."""
    answer = await door.http.post(
        PATH, content=body, headers={"Stripe-Signature": signed_raw(body)}
    )

    assert answer.status_code in (204, 400)


@pytest.mark.parametrize("live", [False, True])
async def test_an_event_of_the_other_mode_is_passed_over(
    redis: Redis, redis_url: str, *, live: bool
) -> None:
    """Test and live mode may share an address; what our key cannot read would fail in the inbox for ever."""
    key = "sk_live_0123456789abcdef" if live else "sk_test_0123456789abcdef"
    async with door_with(redis, redis_url, key) as door:
        before = deliveries("other_mode")
        answers = [
            await door.deliver(invoice_event("evt_ours", livemode=live)),
            await door.deliver(invoice_event("evt_theirs", livemode=not live)),
        ]

        assert [each.status_code for each in answers] == [204, 204]
        assert await door.kept() == ["evt_ours"]
        assert deliveries("other_mode") == before + 1
