"""``python -m sandbox``: serve the double; one JSON line on stdout says where, once it is ready."""

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox import pages
from sandbox.admin import World
from sandbox.api import Api
from sandbox.errors import StripeError
from sandbox.faults import Settings


class CuttingProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, whose requests know how to cut their own connection."""

    def on_message_begin(self) -> None:
        """Hand the request the means to vanish."""
        super().on_message_begin()
        self.scope["extensions"] = {"sandbox.cut": {"now": self.transport.abort}}


def create_app(world: World) -> Starlette:
    """Return the whole double as one application: ``/v1``, ``/_sandbox``, and the pages."""

    @asynccontextmanager
    async def running(_: Starlette) -> AsyncIterator[None]:
        sys.stdout.write(orjson.dumps({"url": world.account.base_url}).decode() + "\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(world.run())
            yield
            task.cancel()

    anything = ("GET", "POST", "DELETE", "PUT", "PATCH")
    doors = [
        Route("/v1/{path:path}", Api(world).handle, methods=anything),
        Route("/_sandbox/{path:path}", world.handle, methods=anything),
    ]
    routes, errors = [*doors, *pages.routes(world)], {StripeError: pages.refused}
    return Starlette(routes=routes, exception_handlers=errors, lifespan=running)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    args = _arguments()
    settings = Settings(limits=not args.no_limits, latency=not args.no_latency, mode=args.limits)
    world = World(settings, args.state, args.seed)
    listener = socket.create_server((args.host, args.port), backlog=2048)
    world.account.base_url = f"http://{args.host}:{listener.getsockname()[1]}"
    if args.webhook_url:
        world.hear(url=args.webhook_url, secret=args.webhook_secret, lasting=True)
    if args.seed_file:
        world.seed_from(args.seed_file)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: sys.exit(0))  # uvicorn raises it again when it has finished
    config = uvicorn.Config(
        create_app(world),
        http=CuttingProtocol,
        loop="uvloop",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=60,  # an idle client should not meet a closing door
        timeout_graceful_shutdown=2,
        lifespan="on",
    )
    uvicorn.Server(config).run(sockets=[listener])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=12111, help="0 for any free one")
    parser.add_argument("--state", type=Path, help="journal that outlives the process")
    parser.add_argument("--seed-file", type=Path, help="objects to create at start")
    parser.add_argument("--seed", type=int, default=0, help="of ids, delays and chance")
    parser.add_argument("--no-limits", action="store_true")
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--limits", choices=("live", "sandbox"), default="live")
    parser.add_argument("--webhook-url", help="an endpoint for all events, current version")
    parser.add_argument("--webhook-secret", help="its whsec_…")
    args = parser.parse_args()
    if bool(args.webhook_url) != bool(args.webhook_secret):
        parser.error("--webhook-url and --webhook-secret go together")
    return args


if __name__ == "__main__":
    main()
