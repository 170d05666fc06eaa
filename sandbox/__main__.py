"""``python -m sandbox``: serve the double; one JSON line on stdout says where, once it is ready."""

import argparse
import signal
import socket
import sys
from pathlib import Path

import orjson
import uvicorn

from sandbox.app import CuttingProtocol, create_app
from sandbox.settings import Settings
from sandbox.world import open_world, register, seed_from


class Server(uvicorn.Server):
    """Uvicorn, telling *url* on stdout when it listens."""

    url = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        sys.stdout.write(orjson.dumps({"url": self.url}).decode() + "\n")
        sys.stdout.flush()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    args = _arguments()
    settings = Settings(limits=not args.no_limits, latency=not args.no_latency, mode=args.limits)
    listener = socket.create_server((args.host, args.port), backlog=2048)
    url = f"http://{args.host}:{listener.getsockname()[1]}"
    world = open_world(args.state, args.seed, settings)
    world.account.base_url = args.public_url or url
    if args.webhook_url:
        register(world, args.webhook_url, args.webhook_secret)
    if args.seed_file:
        seed_from(world, args.seed_file)
    config = uvicorn.Config(
        create_app(world),
        http=CuttingProtocol,
        loop="uvloop",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        lifespan="on",
    )
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: sys.exit(0))  # uvicorn raises it again when it has finished
    server = Server(config)
    server.url = url
    server.run(sockets=[listener])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=12111, help="0 for any free one")
    parser.add_argument("--public-url", help="how a browser reaches us, for links in invoices")
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
