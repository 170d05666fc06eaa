"""``/healthz``: this process is alive. ``/readyz``: it can serve, or why it cannot, and what to look at."""

import asyncio
import contextlib

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from billing.cache.redis_backend import CacheGone
from billing.errors import BillingError
from billing.services import Services

PATIENCE = 2.0
SHARED = (
    "Ledger and cache are the same server: a full cache would stop usage from being recorded. Point "
    "BILLING_CACHE_URL at a server of its own."
)


def health_routes(ending: asyncio.Event) -> list[Route]:
    """Both routes, for an application that keeps its open Services in ``state.services``."""

    async def alive(_: Request) -> Response:
        return _answer(200, alive=True)

    async def ready(request: Request) -> Response:
        reasons, warnings = await _findings(request, ending)
        return _answer(
            503 if reasons else 200, ready=not reasons, reasons=reasons, warnings=warnings
        )

    return [Route("/healthz", alive), Route("/readyz", ready)]


async def _findings(request: Request, ending: asyncio.Event) -> tuple[list[str], list[str]]:
    """Why this process cannot serve, and what somebody should look at though it can."""
    services: Services = request.app.state.services
    if ending.is_set():
        return ["The process is shutting down."], []
    try:
        async with asyncio.timeout(PATIENCE):
            health = await services.ledger.health()
            await services.budget.state()
    except (TimeoutError, BillingError) as error:
        return [f"The ledger or Stripe's budget does not answer ({type(error).__name__})."], []
    tolerated = services.settings.accept_volatile_ledger and health.epoch
    warnings = [*health.warnings, *(await _shared(services, health.server))]
    if tolerated:
        return [], [*health.problems, *warnings]
    return list(health.problems), warnings


async def _shared(services: Services, ledger: str) -> list[str]:
    """The cache has a server of its own, or the ledger, which evicts nothing, fills up with it."""
    with contextlib.suppress(CacheGone, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            if await services.cache.is_on(ledger):
                return [SHARED]
    return []


def _answer(status: int, **told: object) -> Response:
    return Response(orjson.dumps(told), status, {"Cache-Control": "no-store"}, "application/json")
