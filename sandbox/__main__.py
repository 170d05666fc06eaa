"""``python -m sandbox``: serve the sandbox; when ready it prints one JSON line with its URL."""

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox import pages
from sandbox.admin import Sandbox
from sandbox.api import Api
from sandbox.errors import StripeError
from sandbox.settings import Settings


class AbortableProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, whose requests can abort their own connection."""

    def on_message_begin(self) -> None:
        """Put the function that aborts the connection into the request's scope."""
        super().on_message_begin()
        self.scope["extensions"] = {"sandbox.cut": {"now": self.transport.abort}}


def create_app(sandbox: Sandbox) -> Starlette:
    """Return the whole sandbox as one application: ``/v1``, ``/_sandbox``, and the pages."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        sys.stdout.write(orjson.dumps({"url": sandbox.account.base_url}).decode() + "\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(sandbox.run())
            yield
            task.cancel()

    methods = ("GET", "POST", "DELETE", "PUT", "PATCH")
    api_routes = [
        Route("/v1/{path:path}", Api(sandbox).handle, methods=methods),
        Route("/_sandbox/{path:path}", sandbox.handle, methods=methods),
    ]
    routes, errors = [*api_routes, *pages.routes(sandbox)], {StripeError: pages.error_page}
    return Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    args = _arguments()
    settings = Settings(limits=not args.no_limits, latency=not args.no_latency, mode=args.limits)
    with _or_exit(f"The state file {args.state} cannot be used"):
        sandbox = Sandbox(settings, args.state, args.seed)
    with _or_exit(f"Nothing can listen on port {args.port} of {args.host}"):
        listener = socket.create_server((args.host, args.port), backlog=2048)
    sandbox.account.base_url = f"http://{args.host}:{listener.getsockname()[1]}"
    if args.webhook_url:
        sandbox.register_endpoint(url=args.webhook_url, secret=args.webhook_secret, lasting=True)
    if args.seed_file:
        with _or_exit(f"The seed file {args.seed_file} cannot be used"):
            sandbox.load_seed(args.seed_file)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, lambda *_: sys.exit(0)
        )  # uvicorn raises it again when it has finished
    config = uvicorn.Config(
        create_app(sandbox),
        http=AbortableProtocol,
        loop="uvloop",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=60,  # so that an idle client's next request does not meet a closed connection
        timeout_graceful_shutdown=2,
        lifespan="on",
    )
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _or_exit(problem: str) -> Iterator[None]:
    """End the process with *problem* and its cause as one sentence if the block fails."""
    try:
        yield
    except (OSError, ArithmeticError, ValueError, TypeError, LookupError, AttributeError) as error:
        sys.exit(f"{problem} ({type(error).__name__}: {error}).")
    except StripeError as error:
        sys.exit(f"{problem}: {error}")


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
