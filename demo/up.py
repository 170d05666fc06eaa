"""Start the processes in order, load the demo data, print the addresses, wait for the signal to stop."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import time
from dataclasses import dataclass
from types import FrameType

import httpx
import structlog

from billing.services import open_services
from billing.settings import load_settings
from demo import home, live_usage
from demo.history import write_history
from demo.load import LoadResult, load
from demo.processes import Processes
from demo.stripe_objects import write_seed
from demo.tokens import jwt_secret, token

OK = 200
SAMPLE = "fly-1"  # the name of the showcase's data; another name cannot use data that exist
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 to listen on, and to reach it at
LOOPBACK = ("127.0.0.1", "localhost", "::1")
PORT = re.compile(r"[0-9]{1,5}")
HIGHEST_PORT = 65_535


@dataclass(frozen=True)
class Addresses:
    """The address of each process; None where the environment names a server that the demo does not run."""

    host: str
    port: int
    valkey_port: int | None
    sandbox_port: int | None

    @property
    def gateway(self) -> str:
        """The gateway's base address."""
        host = ANY_ADDRESS.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def up() -> None:
    """Run until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, _interrupt)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    owner = os.getppid()
    with home.single_instance(), contextlib.suppress(KeyboardInterrupt):
        home.check_sample(SAMPLE)
        addresses = _choose_addresses()
        os.environ.update(_environment(addresses))
        load_settings()  # refuses here, with a sentence, before anything is started
        with Processes(home.HOME / "logs") as processes:
            _start(processes, addresses)
            loaded = asyncio.run(_load_watching(processes, addresses))
            _print_summary(addresses, loaded)
            while not _make_was_killed(owner):
                processes.check_alive()
                live_usage.send(addresses.gateway, loaded.most_used)
                time.sleep(live_usage.SECONDS)
    print("Stopped; the data stay in", home.HOME)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _make_was_killed(owner: int) -> bool:
    """Return True if the `make` that started this process was killed."""
    return "MAKELEVEL" in os.environ and os.getppid() != owner


def _choose_addresses() -> Addresses:
    return Addresses(
        *_gateway_address(),
        valkey_port=None if os.environ.get("BILLING_REDIS_URL") else home.port("valkey"),
        sandbox_port=None if os.environ.get("BILLING_STRIPE_API_KEY") else home.port("sandbox"),
    )


def _gateway_address() -> tuple[str, int]:
    """Return the gateway's host and port from the environment; DemoError when they cannot be used."""
    host = os.environ.get("BILLING_HOST") or "127.0.0.1"
    port = os.environ.get("BILLING_PORT") or "8000"
    if not PORT.fullmatch(port) or not 0 < int(port) <= HIGHEST_PORT:
        raise home.DemoError(
            f"BILLING_PORT is {port!r}, not a port; give a number from 1024 to 65535, or unset it for 8000."
        )
    try:
        free = home.wait_until_free(host, int(port))
    except (OSError, UnicodeError) as error:
        raise home.DemoError(
            f"Nothing can listen on port {port} of BILLING_HOST {host!r} ({error}); "
            "give an address of this machine and a port from 1024, or unset both for 127.0.0.1 and 8000."
        ) from None
    if not free:
        raise home.DemoError(
            f"Port {port} is taken; choose another, for example: BILLING_PORT=8010 make up"
        )
    return host, int(port)


def _environment(addresses: Addresses) -> dict[str, str]:
    """Return the settings of all processes that the environment does not set."""
    defaults = {
        "BILLING_JWT_SECRET": jwt_secret(),
        "BILLING_STRIPE_WEBHOOK_SECRETS": home.secret("webhook_secret", "whsec_"),
        "BILLING_FLUSH_INTERVAL": "5",
    }
    if addresses.valkey_port is not None:
        defaults["BILLING_REDIS_URL"] = f"redis://127.0.0.1:{addresses.valkey_port}/0"
    if addresses.sandbox_port is not None:
        defaults["BILLING_STRIPE_API_KEY"] = home.secret("stripe_api_key", "sk_test_")
        defaults["BILLING_STRIPE_API_BASE"] = f"http://127.0.0.1:{addresses.sandbox_port}"
    return {name: value for name, value in defaults.items() if not os.environ.get(name)}


def _start(processes: Processes, addresses: Addresses) -> None:
    if addresses.valkey_port is not None:
        folder = home.HOME / "valkey"
        processes.start("valkey", "demo.valkey", str(addresses.valkey_port), str(folder))
        processes.wait_until(lambda: _listens(addresses.valkey_port), "Valkey")
    if addresses.sandbox_port is not None:
        write_seed(home.HOME / "seed.json")
        processes.start("sandbox", "sandbox", *_sandbox_arguments(addresses))
        processes.wait_until(lambda: _listens(addresses.sandbox_port), "The Stripe sandbox")
    processes.start("worker", "arq", "workers.main.WorkerSettings")
    processes.start(
        "gateway",
        *("uvicorn", "--factory", "gateway.app:create_app", "--no-access-log"),
        *("--timeout-graceful-shutdown", "30", "--ws-max-size", "262144"),
        *("--ws-per-message-deflate", "false"),
        *("--host", addresses.host, "--port", str(addresses.port)),
    )
    processes.wait_until(lambda: _gateway_ready(addresses), "The gateway")


def _sandbox_arguments(addresses: Addresses) -> list[str]:
    secret = os.environ["BILLING_STRIPE_WEBHOOK_SECRETS"].split(",")[0]
    return [
        *("--port", str(addresses.sandbox_port), "--state", str(home.HOME / "sandbox.state")),
        *("--seed-file", str(home.HOME / "seed.json")),
        *("--webhook-url", f"{addresses.gateway}/webhooks/stripe", "--webhook-secret", secret),
    ]


def _listens(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port or 0)) == 0


def _gateway_ready(addresses: Addresses) -> bool:
    try:
        return httpx.get(f"{addresses.gateway}/readyz", timeout=2).status_code == OK
    except httpx.HTTPError:
        return False


async def _load_watching(processes: Processes, addresses: Addresses) -> LoadResult:
    """Load the demo data; DemoError as soon as a process has ended."""
    loading = asyncio.create_task(_load(addresses))
    while not (await asyncio.wait({loading}, timeout=1))[0]:
        processes.check_alive()
    return loading.result()


async def _load(addresses: Addresses) -> LoadResult:
    settings = load_settings()
    async with open_services(settings) as services:
        loaded = await load(services, addresses.gateway)
        if addresses.sandbox_port is not None and addresses.valkey_port is not None:
            stripe = settings.stripe_api_base
            await write_history(services, addresses.gateway, stripe, loaded.most_used)
        return loaded


def _print_summary(addresses: Addresses, loaded: LoadResult) -> None:
    customer = loaded.most_used[0]
    customer_token = token("customer", [customer])
    # A token in an address ends up in histories and logs; on this machine alone that does no harm.
    signed_in = f"#token={customer_token}" if addresses.host in LOOPBACK else ""
    stripe = os.environ.get("BILLING_STRIPE_API_BASE", "https://dashboard.stripe.com")
    query = f'{{customer(id:"{customer}"){{name currentPeriod{{start total{{rounded}} inStripe{{rounded}} pending{{rounded}} invoice{{id status}}}} freshness{{source}}}}}}'
    body = query.replace('"', '\\"')
    print(
        f"""
{len(loaded.customers)} customers, {loaded.deltas:,} usage deltas counted, a draft invoice for each customer.

Open a customer's bill, signed in:

  {addresses.gateway}/{signed_in}

  GraphiQL   {addresses.gateway}/graphiql
  Stripe     {stripe}/
  Logs       {home.HOME / "logs"}

  export SUPPORT={token("support")}
  export METERING={token("metering")}
  export CUSTOMER={customer_token}

Support's token opens every customer, in the panel and in GraphiQL. Paste the three lines above, then this one, to
see the bill in a shell:

  curl -s {addresses.gateway}/graphql -H "Authorization: Bearer $CUSTOMER" -H 'Content-Type: application/json' -d '{{"query":"{body}"}}'

Ctrl-C stops everything.""",
        flush=True,
    )
