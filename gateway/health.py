"""``/healthz``: the process is alive. ``/readyz``: it can serve requests, with reasons and warnings."""

import asyncio
import contextlib
import time

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from billing.cache.redis_backend import CacheUnavailable
from billing.errors import BillingError
from billing.services import Services

TIMEOUT_SECONDS = 2.0
MAX_AGE_SECONDS = 1.0  # frequent and concurrent probes share one check
SHUTTING_DOWN = "The process is shutting down."
SHARED_SERVER_WARNING = (
    "Ledger and cache are the same server: a full cache would stop usage from being recorded. Point "
    "BILLING_CACHE_URL at a server of its own."
)

REWIND_WARNING = (
    "The ledger has lost usage of {customers:,} customers that Stripe's invoices show; their billing is on hold. "
    "Let metering services send it again; `python -m billing.ledger rewound` lists the customers."
)

KEY_WARNING = (
    "Stripe refuses this gateway's key ({endpoints}): BILLING_STRIPE_API_KEY is wrong, has expired or lacks a "
    "permission. What is known is still shown, and usage of known customers is counted; nothing is billed."
)

QUEUE_WARNING = (
    "The queue's server (BILLING_QUEUE_URL) does not answer. Usage, pages and webhooks go on without it, and each "
    "process keeps to a share of Stripe's limits of its own; start it."
)


def health_routes(*shutting_down: asyncio.Event) -> list[Route]:
    """Return both routes, for an application whose Services are in ``state.services``.

    The process is not ready once one of the events is set.
    """
    readiness = Readiness()

    async def alive(_: Request) -> Response:
        return _json_response(200, alive=True)

    async def ready(request: Request) -> Response:
        if any(event.is_set() for event in shutting_down):
            return _json_response(503, ready=False, reasons=[SHUTTING_DOWN], warnings=[])
        reasons, warnings = await readiness.check(request.app.state.services)
        return _json_response(
            503 if reasons else 200, ready=not reasons, reasons=reasons, warnings=warnings
        )

    return [Route("/healthz", alive), Route("/readyz", ready)]


class Readiness:
    """The last check, at most a second old."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._stale_at = 0.0
        self._checked: tuple[list[str], list[str]] = ([], [])

    async def check(self, services: Services) -> tuple[list[str], list[str]]:
        """Return the reasons why this process cannot serve, and warnings that do not stop it."""
        async with self._lock:
            if time.monotonic() >= self._stale_at:
                self._checked = await _check_readiness(services)
                self._stale_at = time.monotonic() + MAX_AGE_SECONDS
        return self._checked


async def _check_readiness(services: Services) -> tuple[list[str], list[str]]:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            health = await services.ledger.health.check()
            rewound = await services.ledger.periods.count_rewound() if health.epoch else 0
    except (TimeoutError, BillingError) as error:
        return [f"The ledger does not answer ({type(error).__name__})."], []
    tolerated = services.settings.accept_volatile_ledger and health.epoch
    warnings = [
        *health.warnings,
        *_rewind_warning(rewound),
        *(await _budget_warning(services)),
        *(await _shared_server_warning(services, health.server)),
    ]
    if tolerated:
        return [], [*health.problems, *warnings]
    return list(health.problems), warnings


def _rewind_warning(customers: int) -> list[str]:
    """Warn when the ledger has lost usage, which bills then wait for."""
    return [REWIND_WARNING.format(customers=customers)] if customers else []


async def _budget_warning(services: Services) -> list[str]:
    """Warn while the queue's server, which has the budget, is away, or Stripe refuses our key for some endpoints."""
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            refused = (await services.budget.state()).key_refused
    except (TimeoutError, BillingError):
        return [QUEUE_WARNING]
    return [KEY_WARNING.format(endpoints=", ".join(refused))] if refused else []


async def _shared_server_warning(services: Services, ledger: str) -> list[str]:
    """Warn when the cache shares the ledger's server, which evicts nothing and would fill up."""
    with contextlib.suppress(CacheUnavailable, TimeoutError):
        async with asyncio.timeout(TIMEOUT_SECONDS):
            if await services.cache.is_on(ledger):
                return [SHARED_SERVER_WARNING]
    return []


def _json_response(status: int, **fields: object) -> Response:
    return Response(orjson.dumps(fields), status, {"Cache-Control": "no-store"}, "application/json")
