"""The whole double as one ASGI application, and the server that can cut a connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox import control, pages
from sandbox.api import Api
from sandbox.world import World

TICK_SECONDS: Final = 0.25


def create_app(world: World) -> ASGIApp:
    """Return the application: ``/v1``, ``/_sandbox``, and the pages."""
    api = Api(world.account, world.routes, world.limiter, world.faults)
    rest = Starlette(
        routes=[*pages.routes(world), *control.routes(world)], lifespan=lambda _: _running(world)
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        to_api = scope["type"] == "http" and scope["path"].startswith("/v1/")
        await (api if to_api else rest)(scope, receive, send)

    return app


@asynccontextmanager
async def _running(world: World) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(world.courier.run()), asyncio.create_task(_ticking(world))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        world.account.state.close()


async def _ticking(world: World) -> None:
    while True:
        await asyncio.sleep(TICK_SECONDS)
        control.tick(world)


class CuttingProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, whose requests know how to cut their own connection."""

    def on_message_begin(self) -> None:
        """Hand the request the means to vanish."""
        super().on_message_begin()
        self.scope["extensions"] = {"sandbox.cut": {"now": self.transport.abort}}
