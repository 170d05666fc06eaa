"""Composition root: the objects that the gateway and the workers share, opened and closed together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from billing.audit import AuditLog
from billing.budget import Budget
from billing.budget.policy import BudgetPolicy
from billing.cache import Cache, CachePolicy, open_cache
from billing.cache.invoice_line_index import InvoiceLineIndex
from billing.change_feed import ChangeFeed, open_change_feed
from billing.errors import LedgerUnavailable
from billing.events import Inbox
from billing.job_queue import JobQueue, open_job_queue
from billing.ledger import Ledger, LedgerPolicy
from billing.redis_clients import (
    RETRIED_ERRORS,
    UNREACHABLE,
    awaited,
    client,
    client_or_cluster,
    describe_failure,
    ledger_failure,
    refusal_of,
)
from billing.settings import DAY, Environment, Settings, StartupError
from billing.stripe import StripeApi
from billing.stripe.price_catalog import PriceCatalog
from billing.stripe.reader import StripeReader

log = structlog.get_logger(__name__)

RETRIES = 5  # of a command to the ledger, and of each attempt to connect


@dataclass(frozen=True)
class Services:
    """The objects of `billing`, created once per process and passed in."""

    settings: Settings
    ledger: Ledger
    audit: AuditLog
    inbox: Inbox
    budget: Budget
    stripe: StripeApi
    cache: Cache
    change_feed: ChangeFeed
    price_catalog: PriceCatalog
    line_index: InvoiceLineIndex
    job_queue: JobQueue

    @cached_property
    def stripe_reader(self) -> StripeReader:
        """Reads Stripe's objects through the cache."""
        return StripeReader(self.stripe, self.cache)


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Connect everything; StartupError when the ledger is unreachable or not durable."""
    async with AsyncExitStack() as stack:
        ledger_redis = _ledger_client(settings.redis_url)
        stack.push_async_callback(ledger_redis.aclose)
        cache = await stack.enter_async_context(
            open_cache(settings.cache, CachePolicy(fresh_ttl=settings.cache_fresh))
        )
        policy = _ledger_policy(settings)
        ledger = Ledger(ledger_redis, policy=policy)
        await check_durability(ledger, settings)
        # On the queue's server: losing the budget costs a few refused calls, so it needs no durability.
        budget_redis = await stack.enter_async_context(
            client(settings.queue, Redis, socket_timeout=1, retry=Retry(NoBackoff(), 1)),
        )
        line_index_redis = await stack.enter_async_context(
            client(settings.cache, Redis, socket_timeout=1, socket_connect_timeout=1)
        )
        await check_server("BILLING_QUEUE_URL", budget_redis)
        await check_server("BILLING_CACHE_URL", line_index_redis)
        budget = Budget(budget_redis, BudgetPolicy.from_settings(settings))
        stack.push_async_callback(budget.drain)
        stripe = StripeApi(
            settings.stripe_api_key.get_secret_value(), settings.stripe_api_base, budget
        )
        stack.push_async_callback(stripe.aclose)
        yield Services(
            settings=settings,
            ledger=ledger,
            audit=AuditLog(ledger_redis, policy.replica_ack),
            inbox=Inbox(ledger_redis),
            budget=budget,
            stripe=stripe,
            cache=cache,
            change_feed=await stack.enter_async_context(open_change_feed(settings.cache, cache)),
            price_catalog=PriceCatalog(StripeReader(stripe, cache)),
            line_index=InvoiceLineIndex(line_index_redis, settings.ledger_retention * DAY),
            job_queue=await stack.enter_async_context(open_job_queue(settings.queue)),
        )


def _ledger_client(url: str) -> Redis | RedisCluster:
    """The ledger's client: retries through a server restart, which is safe because scripts are idempotent."""
    return client_or_cluster(
        url,
        socket_timeout=10,
        socket_connect_timeout=3,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(ExponentialBackoff(cap=1, base=0.05), RETRIES),
        retry_on_error=RETRIED_ERRORS,
    )


def _ledger_policy(settings: Settings) -> LedgerPolicy:
    return LedgerPolicy(
        flush_interval_ms=round(min(settings.flush_interval, settings.flush_pause) * 1000),
        flush_jitter=settings.flush_jitter,
        usage_max_age_ms=settings.usage_max_age * 1000,
        retention_ms=settings.ledger_retention * DAY * 1000,
        usage_max_future_ms=settings.usage_max_future * 1000,
        settle_ms=round(settings.settle_window * 1000),
        quiet_ms=round(settings.quiet_time * 1000),
        replicas=settings.ledger_replicas,
    )


async def check_durability(ledger: Ledger, settings: Settings) -> None:
    """Raise StartupError if the ledger is not durable, unless the operator accepts that.

    In production the message does not mention the setting that accepts it, and an empty server is refused:
    it would pass for a ledger that has never billed anything.
    """
    try:
        await ledger.open(create=settings.environment is not Environment.PRODUCTION)
    except LedgerUnavailable as error:
        raise startup_error(f"BILLING_REDIS_URL: {ledger_failure(error)}") from None
    health = await ledger.health.check()
    if health.ok or settings.accept_volatile_ledger:
        return
    problems = " ".join(health.problems)
    hint = (
        ""
        if settings.environment is Environment.PRODUCTION
        else " (for a try: BILLING_ACCEPT_VOLATILE_LEDGER=true)"
    )
    raise startup_error(f"the ledger at BILLING_REDIS_URL would forget usage. {problems}{hint}")


async def check_server(variable: str, redis: Redis) -> None:
    """Raise StartupError if a server that may be away refuses the address in *variable*; log it if it is away."""
    try:
        await awaited(redis.ping())
    except UNREACHABLE as error:
        reason = describe_failure(error)
        if refusal_of(error):
            raise startup_error(f"{variable}: {reason}") from None
        log.warning("start.server_unavailable", variable=variable, reason=reason)


def startup_error(reason: str) -> StartupError:
    """Log *reason* and return the error to raise."""
    # Logged here because an ASGI server reports an exit in its own way.
    log.critical("start.refused", reason=reason)
    return StartupError(f"Refusing to start: {reason}")
