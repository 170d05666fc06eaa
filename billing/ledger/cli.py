"""``python -m billing.ledger begin-epoch``: discard trust in the ledger's memory.

For a server whose keys were restored or edited while it ran, which nothing else detects. A restart,
a failover and a restored backup are detected automatically.
"""

import argparse
import asyncio
import sys
from contextlib import aclosing
from urllib.parse import urlsplit

import structlog

from billing.errors import LedgerUnavailable
from billing.ledger import Ledger
from billing.redis_clients import client_or_cluster
from billing.settings import load_settings

CONSEQUENCES = """\
Open periods of the ledger on {server}: {periods:,}. With a new epoch
  - every flush under way ends, and its requests are given up,
  - every open period is compared with Stripe before it is next written to: about two reads each,
  - nothing is finalized for BILLING_QUIET_TIME, and no month is cut for a quarter of an hour,
  - metering services are told to send the last quarter of an hour again.
No usage and no bill is lost by it.
"""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m billing.ledger", description="Tend the ledger.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    begin = commands.add_parser(
        "begin-epoch",
        help="distrust what the ledger remembers of Stripe, after its keys were restored or edited",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    begin.add_argument("--yes", action="store_true", help="do not ask whether you mean it")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.exit(asyncio.run(_begin_epoch(sure=options.yes)))


async def _begin_epoch(*, sure: bool) -> int:
    url = load_settings().redis_url
    async with aclosing(client_or_cluster(url)) as redis:
        ledger = Ledger(redis)
        try:
            await ledger.open()
            return await _confirm_and_begin(url, ledger, sure=sure)
        except LedgerUnavailable as error:
            sys.stderr.write(f"{error.message}\n")
            return 1


async def _confirm_and_begin(url: str, ledger: Ledger, *, sure: bool) -> int:
    server = urlsplit(url).netloc.rpartition("@")[2] or "its socket"
    periods = await ledger.periods.count_open()
    sys.stdout.write(CONSEQUENCES.format(server=server, periods=periods))
    if not sure:
        sys.stdout.write("Begin a new epoch? Type yes: ")
        sys.stdout.flush()
        if (await asyncio.to_thread(sys.stdin.readline)).strip() != "yes":
            sys.stdout.write("Nothing was done.\n")
            return 1
    _, before = await ledger.health.durability()
    await ledger.begin_epoch()
    _, after = await ledger.health.durability()
    sys.stdout.write(f"A new epoch has begun: {before} was followed by {after}.\n")
    return 0
