"""The one place where objects meet: everything the web and the workers share, opened and closed together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from redis import exceptions as redis_errors
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from billing.audit import AuditLog
from billing.budget import Budget
from billing.budget.policy import BudgetPolicy
from billing.cache import Cache, CachePolicy, open_cache
from billing.cache.invoice_line_index import LinePlaces
from billing.change_feed import Changes, open_changes
from billing.errors import LedgerUnavailable
from billing.events import Inbox
from billing.job_queue import Wakeups, open_wakeups
from billing.ledger import Ledger, LedgerPolicy
from billing.ledger.syncs import Syncs
from billing.redis_clients import server, servers
from billing.settings import DAY, Environment, Settings, SettingsRefused
from billing.stripe import StripeApi
from billing.stripe.price_catalog import Catalogue

log = structlog.get_logger(__name__)

ATTEMPTS = 5  # further ones of a command to the ledger, and of each to connect


@dataclass(frozen=True)
class Services:
    """The doors of the core, made once per process and passed in."""

    settings: Settings
    ledger: Ledger
    syncs: Syncs
    audit: AuditLog
    inbox: Inbox
    budget: Budget
    stripe: StripeApi
    cache: Cache
    changes: Changes
    catalogue: Catalogue
    line_places: LinePlaces
    wakeups: Wakeups


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Everything, connected; SettingsRefused when the ledger cannot be trusted with money."""
    async with AsyncExitStack() as stack:
        durable = _durable(settings.redis_url)
        stack.push_async_callback(durable.aclose)
        cache = await stack.enter_async_context(
            open_cache(settings.cache, CachePolicy(fresh=settings.cache_fresh))
        )
        ledger = Ledger(durable, policy=_ledger_policy(settings))
        await _trust(ledger, settings)
        # Beside the queue: losing the budget costs a few refused calls, keeping it is not worth an fsync.
        quick = await stack.enter_async_context(
            server(settings.queue, Redis, socket_timeout=1, retry=Retry(NoBackoff(), 1)),
        )
        disposable = await stack.enter_async_context(
            Redis.from_url(settings.cache, socket_timeout=1, socket_connect_timeout=1)
        )
        budget = Budget(quick, BudgetPolicy.of(settings))
        stack.push_async_callback(budget.settled)
        stripe = StripeApi(
            settings.stripe_api_key.get_secret_value(), settings.stripe_api_base, budget
        )
        stack.push_async_callback(stripe.aclose)
        yield Services(
            settings=settings,
            ledger=ledger,
            syncs=Syncs(durable),
            audit=AuditLog(durable),
            inbox=Inbox(durable),
            budget=budget,
            stripe=stripe,
            cache=cache,
            changes=await stack.enter_async_context(open_changes(settings.cache, cache)),
            catalogue=Catalogue(stripe, cache),
            line_places=LinePlaces(disposable, settings.ledger_retention * DAY),
            wakeups=await stack.enter_async_context(open_wakeups(settings.queue)),
        )


def _durable(url: str) -> Redis | RedisCluster:
    """The ledger's client: patient through a restart of its server, because every script may be repeated."""
    return servers(
        url,
        socket_timeout=10,
        socket_connect_timeout=3,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(ExponentialBackoff(cap=1, base=0.05), ATTEMPTS),
        retry_on_error=[
            OSError,
            redis_errors.ConnectionError,
            redis_errors.TimeoutError,
            redis_errors.BusyLoadingError,
        ],
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


async def _trust(ledger: Ledger, settings: Settings) -> None:
    """Refuse a ledger that forgets unless the operator accepts it; in production the message names no way around it."""
    try:
        await ledger.open()
    except LedgerUnavailable as error:
        raise refused(
            f"BILLING_REDIS_URL: {error.message} See that this server runs and the address is right."
        ) from None
    health = await ledger.health()
    if health.ok or settings.accept_volatile_ledger:
        return
    problems = " ".join(health.problems)
    hint = (
        ""
        if settings.environment is Environment.PRODUCTION
        else " (for a try: BILLING_ACCEPT_VOLATILE_LEDGER=true)"
    )
    raise refused(f"the ledger at BILLING_REDIS_URL would forget usage. {problems}{hint}")


def refused(why: str) -> SettingsRefused:
    """Why this process does not start, for whoever reads its log and for whoever started it."""
    # Logged here, because a server that runs us tells of an exit in its own way.
    log.critical("start.refused", reason=why)
    return SettingsRefused(f"Refusing to start: {why}")
