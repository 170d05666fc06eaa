"""The response cache: same token and same request only, and only while nothing has changed."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cachetools import Cache as PlainCache
from graphql import Executor
from redis.asyncio import Redis
from starlette.responses import Response

from billing.cache import open_cache
from billing.change_feed import FOLLOW_UP_SECONDS, USAGE_INTERVAL_SECONDS, Change, ChangeReason
from billing.services import Services
from billing.settings import Settings
from billing.usage_ingestion import record_usage
from gateway.app import create_app
from gateway.response_cache import LEDGER_MAX_AGE, MAX_AGE, ResponseCache
from resolvers.context import Context, Role, Viewer
from resolvers.dataloaders.stripe import Loaders
from tests.support.gateway_server import serve
from tests.support.stripe_catalog import Shop, delta
from tests.support.wait import wait_for_value, wait_until

NAME = "query ($id: ID!) { customer(id: $id) { name freshness { source } } }"
TOTAL = "query ($id: ID!) { customer(id: $id) { currentPeriod { total { amount } asOf state } } }"
AUDIT = "query ($id: ID!) { customer(id: $id) { name auditLog { nodes { action } } } }"


@dataclass
class Panel:
    """A client of the gateway, with access to what is behind it."""

    http: httpx.AsyncClient
    services: Services
    settings: Settings
    redis: Redis
    customer: str

    def token(self, role: str, *customers: str, seconds: int = 60) -> str:
        """Return a token for *role*."""
        assert self.settings.jwt_secret
        claims = {"sub": role, "role": role, "customers": customers, "aud": "fly-billing"}
        secret = self.settings.jwt_secret.get_secret_value()
        return jwt.encode({**claims, "exp": int(time.time()) + seconds}, secret, "HS256")

    async def query(
        self, document: str, token: str | None = None, **variables: Any
    ) -> httpx.Response:
        """Send *document* about the customer and return the response."""
        body = {"query": document, "variables": {"id": self.customer, **variables}}
        bearer = token or self.token("customer", self.customer)
        headers = {"Authorization": f"Bearer {bearer}"}
        return await self.http.post("/graphql", json=body, headers=headers)

    async def warm(self, document: str, token: str) -> httpx.Response:
        """Return a response that is stored."""
        await self.query(document, token)
        await self.query(document, token)
        return await self.query(document, token)

    async def scripts_run(self) -> int:
        """Return the number of Lua scripts that Redis ran; a verification runs none."""
        stats = await self.redis.info("commandstats")
        return sum(stats.get(name, {"calls": 0})["calls"] for name in ("cmdstat_evalsha",))


@pytest.fixture
async def panel(settings: Settings, services: Services, redis: Redis) -> AsyncIterator[Panel]:
    """The whole gateway on a port, and one customer at Stripe."""
    shop = Shop(services)
    await shop.open()
    customer = await shop.customer()
    async with (
        serve(create_app(settings)) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as http,
    ):
        yield Panel(http, services, settings, redis, customer)


async def test_repeated_request_gets_the_stored_bytes(panel: Panel) -> None:
    """After one command to Redis, which verifies them."""
    token = panel.token("customer", panel.customer)
    first = await panel.warm(NAME, token)
    before = await panel.scripts_run()
    again = [await panel.query(NAME, token) for _ in range(5)]
    assert {response.content for response in again} == {first.content}
    assert await panel.scripts_run() == before
    assert first.json()["data"]["customer"]["freshness"] == {"source": "CACHE"}
    assert first.json()["extensions"]["billing"]["stripeCalls"] == 0
    assert again[0].headers["content-type"] == first.headers["content-type"]
    assert len({response.headers["x-request-id"] for response in again}) == 5


async def test_compressed_body_is_refused_whatever_is_stored(panel: Panel) -> None:
    """The same bytes under another encoding are another request."""
    token = panel.token("customer", panel.customer)
    body = (await panel.warm(NAME, token)).request.content
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    gzipped = {**headers, "Content-Encoding": "gzip"}
    answers = [await panel.http.post("/graphql", content=body, headers=gzipped) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [415, 415]


async def test_response_from_stripe_is_not_stored(panel: Panel) -> None:
    """Its source STRIPE would be wrong the second time."""
    token = panel.token("customer", panel.customer)
    sources = [
        (await panel.query(NAME, token)).json()["data"]["customer"]["freshness"]["source"]
        for _ in range(3)
    ]
    assert sources == ["STRIPE", "CACHE", "CACHE"]


async def test_operation_objects_are_freed_without_gc(panel: Panel) -> None:
    """Collecting them as cycles took a tenth of a response's time."""
    document = """query ($id: ID!) { customer(id: $id) {
        paymentMethods { nodes { id } } invoices { nodes { id } } currentPeriod { asOf } } }"""
    await panel.query(document)
    gc.collect()
    gc.disable()
    try:
        for n in range(3):  # a new token has no stored response
            response = await panel.query(
                document, panel.token("customer", panel.customer, seconds=90 + n)
            )
            assert response.json()["data"]["customer"]["invoices"] == {"nodes": []}
        left = [found for found in gc.get_objects() if isinstance(found, Loaders | Executor)]
    finally:
        gc.enable()
    assert left == []


async def test_invalidation_ends_stored_responses(panel: Panel) -> None:
    """After the webhook the old value is not shown."""
    token = panel.token("customer", panel.customer)
    await panel.warm(NAME, token)
    path, key = f"/v1/customers/{panel.customer}", panel.settings.stripe_api_key.get_secret_value()
    async with httpx.AsyncClient(base_url=panel.settings.stripe_api_base) as stripe:
        (await stripe.post(path, data={"name": "New"}, auth=(key, ""))).raise_for_status()
    await panel.services.cache.invalidate(panel.customer)
    assert (await panel.query(NAME, token)).json()["data"]["customer"]["name"] == "New"


async def test_stored_response_is_bound_to_its_token(panel: Panel) -> None:
    """The same request with another token is another entry."""
    await panel.warm(NAME, panel.token("customer", panel.customer))
    theirs = await panel.query(NAME, panel.token("customer", "cus_other"))
    assert theirs.json()["data"] == {"customer": None}
    nobody = await panel.query(NAME, "no token")
    assert nobody.status_code == 401


async def test_usage_is_at_most_a_second_old(panel: Panel) -> None:
    """While usage streams in, however often the same is requested."""
    token = panel.token("customer", panel.customer)
    shown = "0"
    for cents in range(1, 5):
        await record_usage(panel.services, [delta(panel.customer, "1", sku="egress-gb")])
        async with asyncio.timeout(10):  # what it says of its age must be true of its total
            while shown != f"0.0{2 * cents}":
                sent = datetime.now(UTC)
                answer = (await panel.query(TOTAL, token)).json()["data"]["customer"][
                    "currentPeriod"
                ]
                age = sent - datetime.fromisoformat(answer["asOf"])
                assert age < timedelta(seconds=1.01)  # Redis's clock is this machine's
                shown = answer["total"]["amount"]


async def test_unannounced_usage_shows_within_a_second(panel: Panel) -> None:
    """A gateway may die between recording usage and publishing the change."""
    token = panel.token("customer", panel.customer)
    await record_usage(panel.services, [delta(panel.customer, "1", sku="egress-gb")])
    old = (await panel.warm(TOTAL, token)).json()["data"]
    assert (await panel.query(TOTAL, token)).json()["data"] == old

    async def changed() -> bool:
        return bool((await panel.query(TOTAL, token)).json()["data"] != old)

    await wait_until(changed, "the usage shows", 2)


async def test_published_change_ends_stored_responses(panel: Panel) -> None:
    """A hold, a sync or an adjustment shows at once."""
    token = panel.token("customer", panel.customer)
    await panel.warm(TOTAL, token)
    await panel.services.ledger.holds.place(panel.customer, "dispute", "ada")  # type: ignore[arg-type]
    await panel.services.change_feed.publish(Change(panel.customer, ChangeReason.SUPPORT))
    shown = (await panel.query(TOTAL, token)).json()["data"]["customer"]["currentPeriod"]
    assert shown["state"] == "HELD"


async def test_response_with_untracked_reads_is_not_stored(panel: Panel) -> None:
    """No generation covers the audit log."""
    token = panel.token("support")
    await panel.warm(AUDIT, token)
    before = await panel.scripts_run()
    await panel.query(AUDIT, token)
    assert await panel.scripts_run() > before


async def context_of(services: Services, *customers: str) -> Context:
    """Return the context of a cacheable response that read the current state of *customers*."""
    viewer = Viewer("panel", Role.CUSTOMER, frozenset(customers))
    context = Context(viewer, services, Loaders(services))
    generations = await services.cache.generations(*customers)
    context.loaders.dependencies.add(dict(zip(customers, generations, strict=True)))
    return context


@pytest.fixture
async def context(services: Services) -> Context:
    """The context of a cacheable response about one customer."""
    return await context_of(services, "cus_1")


@pytest.fixture
def responses(services: Services) -> ResponseCache:
    """An empty response cache."""
    return ResponseCache(lambda: services.cache)


def store(
    responses: ResponseCache, context: Context, key: str = "key", *, seconds: float = 60
) -> None:
    """Store a response to *key*, made with *context* for a token that expires in *seconds*."""
    responses.store((key,), Response(f"response to {key}"), context, time.time() + seconds)


async def body_of(responses: ResponseCache, key: str = "key") -> bytes | None:
    """Return the body stored for *key*; None if it has to be computed."""
    response = await responses.get((key,))
    return response and response.body


async def test_response_is_served_until_a_generation_changes(
    responses: ResponseCache, services: Services
) -> None:
    """A change by any process ends it; changes of other objects do not."""
    store(responses, await context_of(services, "cus_1", "in_1", "in_2"))
    await services.cache.invalidate("cus_2")
    assert await body_of(responses) == b"response to key"
    await services.cache.invalidate("in_2")
    assert await body_of(responses) is None


async def test_response_made_before_a_change_is_not_served(
    responses: ResponseCache, services: Services, context: Context
) -> None:
    """The change came between its reads and its being stored."""
    await services.cache.invalidate("cus_1")
    store(responses, context)
    assert await body_of(responses) is None


@pytest.mark.parametrize(("ledger", "max_age"), [(True, LEDGER_MAX_AGE), (False, MAX_AGE)])
async def test_response_expires_without_a_change(
    responses: ResponseCache, context: Context, ledger: bool, max_age: float
) -> None:
    """Its age counts from its first read."""
    context.loaders.dependencies.includes_ledger = ledger
    context.loaders.dependencies.started_at -= max_age - 0.5
    store(responses, context)
    assert await body_of(responses) == b"response to key"
    context.loaders.dependencies.started_at -= 0.5
    store(responses, context)
    assert await body_of(responses) is None


async def test_lost_generation_invalidates_a_response(
    responses: ResponseCache, context: Context, redis: Redis
) -> None:
    """A generation that Redis has lost cannot be verified."""
    store(responses, context)
    await redis.flushall()
    assert await body_of(responses) is None


async def test_no_response_is_served_without_redis(context: Context) -> None:
    """Generations cannot be verified."""
    async with open_cache("redis://127.0.0.1:1") as unreachable:
        responses = ResponseCache(lambda: unreachable)
        store(responses, context)
        assert await body_of(responses) is None


async def test_least_recently_used_response_is_evicted(
    services: Services, context: Context
) -> None:
    """Memory is bounded: three entries of about 1.3 kB fit."""
    responses = ResponseCache(lambda: services.cache, limit=4_500)
    for key in "abc":
        store(responses, context, key)
    assert await body_of(responses, "a") == b"response to a"
    store(responses, context, "d")
    assert [await body_of(responses, key) is not None for key in "abcd"] == [
        True,
        False,
        True,
        True,
    ]


async def test_unused_response_leaves_the_process(
    responses: ResponseCache, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody requests it again, and a bill does not stay in memory for that."""
    monkeypatch.setattr("gateway.response_cache.STORED_SECONDS", 0.05)
    responses = ResponseCache(responses._cache)
    store(responses, context)

    async def stored() -> int:
        return PlainCache.__len__(responses._responses)  # its own would drop what has expired

    assert await stored() == 1
    await wait_for_value(stored, 0)


async def test_concurrent_requests_share_one_new_response(
    responses: ResponseCache, services: Services, context: Context
) -> None:
    """When usage changes, hundreds of open panels request at once; one of them computes."""
    store(responses, context)
    await services.cache.invalidate("cus_1")

    requests = [asyncio.create_task(body_of(responses)) for _ in range(4)]
    (first,), waiting = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
    store(responses, await context_of(services, "cus_1"))

    assert first.result() is None
    assert await asyncio.gather(*waiting) == [b"response to key"] * 3


async def test_waiting_for_a_new_response_times_out(
    responses: ResponseCache, services: Services, context: Context
) -> None:
    """The first request may fail, or wait for Stripe."""
    store(responses, context)
    await services.cache.invalidate("cus_1")

    async with asyncio.timeout(5):
        assert [await body_of(responses) for _ in range(2)] == [None, None]


async def test_expired_token_gets_no_stored_response(
    responses: ResponseCache, context: Context
) -> None:
    """Its rights ended with it."""
    store(responses, context, seconds=-1)
    assert await body_of(responses) is None


@pytest.mark.parametrize("field", ["stripe_calls", "cache_misses"])
async def test_response_that_called_stripe_is_not_stored(
    responses: ResponseCache, context: Context, field: str
) -> None:
    """Its extensions would be wrong the second time."""
    setattr(context.loaders.stats, field, 1)
    store(responses, context)
    assert await body_of(responses) is None


async def test_response_without_dependencies_is_not_stored(
    responses: ResponseCache, context: Context
) -> None:
    """Nothing could invalidate it."""
    context.loaders.dependencies.generations.clear()
    store(responses, context)
    assert await body_of(responses) is None


async def test_oversized_entry_evicts_nothing(responses: ResponseCache, context: Context) -> None:
    """Megabytes in a header neither fill the cache nor empty it."""
    oversized = ((b"accept", bytes(65 << 20)),)
    store(responses, context)
    responses.store(oversized, Response(), context, time.time() + 60)

    assert await body_of(responses) == b"response to key"
    assert await responses.get(oversized) is None


def test_repeated_change_outlives_stored_responses() -> None:
    """Usage within a second of a change is published late; no stored response may be older then."""
    assert FOLLOW_UP_SECONDS >= USAGE_INTERVAL_SECONDS + LEDGER_MAX_AGE
