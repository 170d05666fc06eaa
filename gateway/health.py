"""``/healthz``: this process is alive. ``/readyz``: it can serve, or the reasons why it cannot."""

import asyncio

import orjson
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from billing.errors import BillingError
from billing.services import Services

PATIENCE = 2.0


def health_routes(ending: asyncio.Event) -> list[Route]:
    """Both routes, for an application that keeps its open Services in ``state.services``."""

    async def alive(_: Request) -> Response:
        return _answer(200, alive=True)

    async def ready(request: Request) -> Response:
        reasons = await _reasons(request, ending)
        return _answer(503 if reasons else 200, ready=not reasons, reasons=reasons)

    return [Route("/healthz", alive), Route("/readyz", ready)]


async def _reasons(request: Request, ending: asyncio.Event) -> list[str]:
    services: Services = request.app.state.services
    if ending.is_set():
        return ["The process is shutting down."]
    try:
        async with asyncio.timeout(PATIENCE):
            health = await services.ledger.health()
            await services.budget.state()
    except (TimeoutError, OSError, RedisError, BillingError) as error:
        return [f"The ledger or Stripe's budget does not answer ({type(error).__name__})."]
    tolerated = services.settings.accept_volatile_ledger and health.epoch
    return [] if health.ok or tolerated else list(health.problems)


def _answer(status: int, **told: object) -> Response:
    return Response(orjson.dumps(told), status, {"Cache-Control": "no-store"}, "application/json")
