"""Answers given again: only to the same token and question, only while they are true."""

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
from redis.asyncio import Redis

from billing.cache import Cache
from billing.change_feed import REPEAT_SECONDS, USAGE_SPACING, Change, ChangeReason
from billing.services import Services
from billing.settings import Settings
from billing.usage_ingestion import record_usage
from gateway.app import create_app
from gateway.graphql.execution.executor import PlannedExecutor
from gateway.graphql.keeping import KeptResponse
from gateway.response_cache import LEDGER_LIFETIME, KeptAnswers
from resolvers.context import Context, Role, Viewer
from resolvers.dataloaders.stripe import Loaders
from tests.support.gateway_server import serve
from tests.support.polling import until
from tests.support.stripe_catalog import Shop, delta

NAME = "query ($id: ID!) { customer(id: $id) { name freshness { source } } }"
TOTAL = "query ($id: ID!) { customer(id: $id) { currentPeriod { total { amount } asOf state } } }"
DESK = "query ($id: ID!) { customer(id: $id) { name auditLog { nodes { action } } } }"


@dataclass
class Panel:
    """Somebody who asks the gateway, and what is behind it."""

    http: httpx.AsyncClient
    services: Services
    settings: Settings
    redis: Redis
    customer: str

    def token(self, role: str, *customers: str, seconds: int = 60) -> str:
        """A token."""
        assert self.settings.jwt_secret
        claims = {"sub": role, "role": role, "customers": customers, "aud": "fly-billing"}
        secret = self.settings.jwt_secret.get_secret_value()
        return jwt.encode({**claims, "exp": int(time.time()) + seconds}, secret, "HS256")

    async def ask(
        self, document: str, token: str | None = None, **variables: Any
    ) -> httpx.Response:
        """The answer to *document* about the customer."""
        body = {"query": document, "variables": {"id": self.customer, **variables}}
        bearer = token or self.token("customer", self.customer)
        headers = {"Authorization": f"Bearer {bearer}"}
        return await self.http.post("/graphql", json=body, headers=headers)

    async def warm(self, document: str, token: str) -> httpx.Response:
        """An answer that is kept."""
        await self.ask(document, token)
        await self.ask(document, token)
        return await self.ask(document, token)

    async def charges(self) -> int:
        """How often anything but a verification was asked of Redis."""
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


async def test_a_repeated_question_is_answered_without_work(panel: Panel) -> None:
    """Byte for byte, after one verification."""
    token = panel.token("customer", panel.customer)
    first = await panel.warm(NAME, token)
    before = await panel.charges()
    again = [await panel.ask(NAME, token) for _ in range(5)]
    assert {each.content for each in again} == {first.content}
    assert await panel.charges() == before
    assert first.json()["data"]["customer"]["freshness"] == {"source": "CACHE"}
    assert first.json()["extensions"]["billing"]["stripeCalls"] == 0
    assert again[0].headers["content-type"] == first.headers["content-type"]
    assert len({each.headers["x-request-id"] for each in again}) == 5


async def test_the_first_answer_says_where_it_came_from_and_is_not_repeated(panel: Panel) -> None:
    """STRIPE would be a lie the second time."""
    token = panel.token("customer", panel.customer)
    sources = [
        (await panel.ask(NAME, token)).json()["data"]["customer"]["freshness"]["source"]
        for _ in range(3)
    ]
    assert sources == ["STRIPE", "CACHE", "CACHE"]


async def test_what_an_answer_was_made_with_goes_with_it(panel: Panel) -> None:
    """Nobody has to look for cycles: each answer's took the collector a tenth of the time of making it."""
    document = """query ($id: ID!) { customer(id: $id) {
        paymentMethods { nodes { id } } invoices { nodes { id } } currentPeriod { asOf } } }"""
    await panel.ask(document)
    gc.collect()
    gc.disable()
    try:
        for n in range(3):  # a new token has no kept answer
            told = await panel.ask(
                document, panel.token("customer", panel.customer, seconds=90 + n)
            )
            assert told.json()["data"]["customer"]["invoices"] == {"nodes": []}
        left = [each for each in gc.get_objects() if isinstance(each, Loaders | PlannedExecutor)]
    finally:
        gc.enable()
    assert left == []


async def test_a_change_ends_it_at_once(panel: Panel) -> None:
    """After the webhook nobody is shown what was before it."""
    token = panel.token("customer", panel.customer)
    await panel.warm(NAME, token)
    path, key = f"/v1/customers/{panel.customer}", panel.settings.stripe_api_key.get_secret_value()
    async with httpx.AsyncClient(base_url=panel.settings.stripe_api_base) as stripe:
        (await stripe.post(path, data={"name": "New"}, auth=(key, ""))).raise_for_status()
    await panel.services.cache.forget(panel.customer)
    assert (await panel.ask(NAME, token)).json()["data"]["customer"]["name"] == "New"


async def test_nobody_is_given_another_ones_answer(panel: Panel) -> None:
    """The question is the same, the token is not."""
    await panel.warm(NAME, panel.token("customer", panel.customer))
    theirs = await panel.ask(NAME, panel.token("customer", "cus_other"))
    assert theirs.json()["data"] == {"customer": None}
    nobody = await panel.ask(NAME, "no token")
    assert nobody.status_code == 401


async def test_usage_is_never_shown_older_than_a_second(panel: Panel) -> None:
    """While it streams in, whoever recorded it, and however often the same is asked."""
    token = panel.token("customer", panel.customer)
    shown = "0"
    for cents in range(1, 5):
        await record_usage(panel.services, [delta(panel.customer, "1", sku="egress-gb")])
        async with asyncio.timeout(10):  # what it says of its age must be true of its total
            while shown != f"0.0{2 * cents}":
                sent = datetime.now(UTC)
                answer = (await panel.ask(TOTAL, token)).json()["data"]["customer"]["currentPeriod"]
                age = sent - datetime.fromisoformat(answer["asOf"])
                assert age < timedelta(seconds=1.01)  # Redis's clock is this machine's
                shown = answer["total"]["amount"]


async def test_what_is_not_announced_shows_within_a_second_as_well(panel: Panel) -> None:
    """A gateway that dies between recording and announcing leaves nobody with an old total."""
    token = panel.token("customer", panel.customer)
    await record_usage(panel.services, [delta(panel.customer, "1", sku="egress-gb")])
    old = (await panel.warm(TOTAL, token)).json()["data"]
    assert (await panel.ask(TOTAL, token)).json()["data"] == old

    async def fresh() -> bool:
        return bool((await panel.ask(TOTAL, token)).json()["data"] != old)

    await until(fresh, wanted=True, seconds=2)


async def test_a_step_of_ours_ends_it_at_once(panel: Panel) -> None:
    """A hold, a sync, a correction: announced, hence seen."""
    token = panel.token("customer", panel.customer)
    await panel.warm(TOTAL, token)
    await panel.services.ledger.hold(panel.customer, "dispute", "ada")  # type: ignore[arg-type]
    await panel.services.changes.publish(Change(panel.customer, ChangeReason.SUPPORT))
    shown = (await panel.ask(TOTAL, token)).json()["data"]["customer"]["currentPeriod"]
    assert shown["state"] == "HELD"


async def test_what_is_read_past_the_loaders_is_made_anew(panel: Panel) -> None:
    """Nobody can vouch for it: no generation stands for the audit log."""
    token = panel.token("support")
    await panel.warm(DESK, token)
    before = await panel.charges()
    await panel.ask(DESK, token)
    assert await panel.charges() > before


@pytest.fixture
async def context(services: Services) -> Context:
    """What an answer that may be kept was made with."""
    viewer = Viewer("panel", Role.CUSTOMER, frozenset({"cus_1"}))
    context = Context(viewer, services, Loaders(services))
    (standing,) = await services.cache.generations("cus_1")
    context.loaders.footprint.add({"cus_1": standing})
    return context


async def kept(cache: Cache, context: Context, until: float) -> bool:
    """Whether an answer made with *context* is given again."""
    answers = KeptAnswers(lambda: cache)
    answers.keep(("key",), KeptResponse((), b"{}"), context, until)
    return await answers.find(("key",)) is not None


async def test_one_makes_the_next_answer_and_the_others_wait_for_it(
    services: Services, context: Context
) -> None:
    """When usage moves on, hundreds of open panels ask at once; one of them has it worked out."""
    answers, later = KeptAnswers(lambda: services.cache), time.time() + 60
    answers.keep(("key",), KeptResponse((), b"old"), context, later)
    await services.cache.forget("cus_1")

    asking = [asyncio.create_task(answers.find(("key",))) for _ in range(4)]
    (making,), waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    context.renew()
    (standing,) = await services.cache.generations("cus_1")
    context.loaders.footprint.add({"cus_1": standing})
    answers.keep(("key",), KeptResponse((), b"new"), context, later)

    assert making.result() is None
    assert [each and each.body for each in await asyncio.gather(*waiting)] == [b"new"] * 3


async def test_nobody_waits_for_an_answer_that_does_not_come(
    services: Services, context: Context
) -> None:
    """Whoever made it may have failed, or may be waiting for Stripe."""
    answers = KeptAnswers(lambda: services.cache)
    answers.keep(("key",), KeptResponse((), b"old"), context, time.time() + 60)
    await services.cache.forget("cus_1")

    async with asyncio.timeout(5):
        assert [await answers.find(("key",)) for _ in range(2)] == [None, None]


async def test_an_expired_token_is_given_nothing(services: Services, context: Context) -> None:
    """What it could see until then is not its to see now."""
    assert await kept(services.cache, context, time.time() + 60)
    assert not await kept(services.cache, context, time.time() - 1)


@pytest.mark.parametrize("field", ["stripe_calls", "cache_misses"])
async def test_an_answer_that_took_a_call_is_not_kept(
    services: Services, context: Context, field: str
) -> None:
    """It says so in itself."""
    setattr(context.loaders.cost, field, 1)
    assert not await kept(services.cache, context, time.time() + 60)


async def test_an_answer_that_rests_on_nothing_is_not_kept(
    services: Services, context: Context
) -> None:
    """Nothing could end it."""
    context.loaders.footprint.generations.clear()
    assert not await kept(services.cache, context, time.time() + 60)


async def test_headers_weigh_and_what_is_too_heavy_pushes_nothing_out(
    services: Services, context: Context
) -> None:
    """Whoever sends megabytes in a header neither fills the memory nor empties it for the others."""
    answers, later = KeptAnswers(lambda: services.cache), time.time() + 60
    response, heavy = KeptResponse((), b"{}"), ((b"accept", bytes(65 << 20)),)

    answers.keep(("key",), response, context, later)
    answers.keep(heavy, response, context, later)

    assert await answers.find(("key",)) == response
    assert await answers.find(heavy) is None


def test_the_last_word_on_usage_comes_when_no_answer_is_kept_that_lacks_it() -> None:
    """Usage within a second of a change is not announced; who asks again then must not be given what was before."""
    assert REPEAT_SECONDS >= USAGE_SPACING + LEDGER_LIFETIME
