"""``python -m billing.ledger``: begin a ledger, distrust its memory, and decide after it has lost usage."""

import argparse
import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from urllib.parse import urlsplit

import structlog

from billing import erasure
from billing.audit import ActionIntent, AuditLog
from billing.errors import ErrorCode, LedgerUnavailable
from billing.invoicing import rewind
from billing.invoicing.snapshot import Snapshot
from billing.ledger import Ledger
from billing.ledger.keys import SHARDS
from billing.ledger.usage import CurrencySource
from billing.redis_clients import client_or_cluster, ledger_failure
from billing.settings import load_settings
from billing.usage import CustomerId
from billing.usage_validation import CUSTOMER

BEGIN_EPOCH = """\
Discard trust in the ledger's memory. For a server whose keys were restored or edited while it ran, which
nothing else detects. A restart, a failover and a restored backup are detected automatically.
"""
CONSEQUENCES = """\
Open periods of the ledger on {server}: {periods:,}. With a new epoch
  - every flush under way ends, and its requests are given up,
  - every open period is compared with Stripe before it is next written to: about two reads each,
  - nothing is finalized for BILLING_QUIET_TIME, and no month is cut for a quarter of an hour,
  - metering services are told to send the last quarter of an hour again.
No usage and no bill is lost by it.
"""
CREATE = """\
Begin a ledger on an empty server. In production a process refuses to start on a server without a ledger,
because an emptied or mistaken server looks like a ledger that has never billed anything.
"""
REWOUND = """\
List the months of which the ledger has lost usage that Stripe's invoices show, with the amount at stake.
Each hold ends by itself when metering services have sent the usage again.
"""
ACCEPT_LOSS = """\
Bill what the ledger has, and give back what Stripe's invoices show beyond it: drafts are lowered, and what
a final bill shows too much is credited on the next one. Lets go of every hold that was placed for lost usage.
"""
BOOKS = """\
List the months in which ledger and Stripe differ where they ought to agree, in minor units. "lost": Stripe showed
more than the ledger has. "unsent": a synced draft does not have what the ledger has. With --settle, after
somebody has looked at them and at the bills: removes the entries of a customer.
"""
SET_CURRENCY = """\
Bill a customer in another currency than that of its first delta. Possible while nothing is counted or billed
in that one: take its usage off with deltas of the opposite sign, and delete the draft in Stripe.
"""
ACTOR = "operator"

Run = Callable[[str, Ledger, AuditLog, argparse.Namespace], Awaitable[int]]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m billing.ledger", description="Tend the ledger.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Run, short: str, description: str) -> argparse.ArgumentParser:
        raw = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(
            name, help=short, description=description, formatter_class=raw
        )
        command.set_defaults(run=run)
        return command

    add("create", _create, "begin a ledger on an empty server", CREATE)
    add("rewound", _list_rewound, "list the customers whose usage the ledger has lost", REWOUND)
    books = add("books", _show_books, "list where ledger and Stripe differ", BOOKS)
    books.add_argument("--settle", metavar="cus_…", type=_customer, help="remove this customer's")
    books.add_argument("--reason", default="", help="of --settle, for the audit log")
    begin = add(
        "begin-epoch", _begin_epoch, "distrust what the ledger remembers of Stripe", BEGIN_EPOCH
    )
    accept = add(
        "accept-loss", _accept_loss, "bill what the ledger has after it has lost usage", ACCEPT_LOSS
    )
    accept.add_argument("--customer", metavar="cus_…", type=_customer, help="this customer only")
    currency = add(
        "set-currency", _set_currency, "bill a customer in another currency", SET_CURRENCY
    )
    currency.add_argument("customer", metavar="cus_…", type=_customer)
    currency.add_argument("currency", metavar="usd", type=_currency)
    erase = add("erase", erasure.run, "erase the person behind a customer", erasure.DESCRIPTION)
    erase.add_argument("customer", metavar="cus_…", type=_customer)
    for command in (accept, currency, erase):
        command.add_argument("--reason", required=True, help="for the audit log")
    for command in (begin, accept):
        command.add_argument("--yes", action="store_true", help="do not ask whether you mean it")
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    sys.exit(asyncio.run(_run(options)))


def _customer(text: str) -> CustomerId:
    """Parse a customer's id: a command for a mistyped one would do nothing and say that it is done."""
    if not CUSTOMER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a customer's id, cus_…")
    return CustomerId(text)


def _currency(text: str) -> str:
    """Parse an ISO 4217 code."""
    if not re.fullmatch("[a-zA-Z]{3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an ISO 4217 code such as usd")
    return text.lower()


async def _run(options: argparse.Namespace) -> int:
    url = load_settings().redis_url
    async with aclosing(client_or_cluster(url)) as redis:
        ledger, run = Ledger(redis), options.run
        try:
            await ledger.open(create=run is _create)
            status: int = await run(url, ledger, AuditLog(redis), options)
        except LedgerUnavailable as error:
            sys.stderr.write(f"BILLING_REDIS_URL: {ledger_failure(error)}\n")
            return 1
        return status


async def _create(url: str, ledger: Ledger, _: AuditLog, options: argparse.Namespace) -> int:
    del ledger, options  # opening it has created it
    sys.stdout.write(f"The ledger on {_server(url)} is ready.\n")
    return 0


async def _begin_epoch(url: str, ledger: Ledger, _: AuditLog, options: argparse.Namespace) -> int:
    periods = await ledger.periods.count_open()
    sys.stdout.write(CONSEQUENCES.format(server=_server(url), periods=periods))
    if not (options.yes or await _confirmed("Begin a new epoch?")):
        return 1
    before = (await ledger.health.durability())[1]
    await ledger.begin_epoch()
    after = (await ledger.health.durability())[1]
    sys.stdout.write(f"A new epoch has begun: {before} was followed by {after}.\n")
    return 0


async def _list_rewound(_: str, ledger: Ledger, __: AuditLog, options: argparse.Namespace) -> int:
    del options
    _show(await ledger.periods.list_rewound())
    return 0


async def _show_books(_: str, ledger: Ledger, audit: AuditLog, options: argparse.Namespace) -> int:
    shards = [await ledger.books.differences(shard) for shard in range(SHARDS)]
    differences = [found for shard in shards for found in shard]
    for found in differences:
        place = f"{found.customer} {found.period}"
        sys.stdout.write(f"{place} {found.kind}: {found.amount:,} minor units\n")
    sys.stdout.write(f"Differences: {len(differences):,}.\n")
    settled = [found for found in differences if found.customer == options.settle]
    if settled:
        before = {f"{found.period} {found.kind}": str(found.amount) for found in settled}
        intent = ActionIntent(options.settle, ACTOR, "settleBooks", options.reason, before)
        started = await audit.begin(intent)
        await ledger.books.record([replace(found, amount=0) for found in settled])
        await audit.complete(started, dict.fromkeys(before, "0"))
        sys.stdout.write(f"{len(settled):,} of {options.settle} settled.\n")
    return 0


async def _accept_loss(_: str, ledger: Ledger, audit: AuditLog, options: argparse.Namespace) -> int:
    rewound = [
        snapshot
        for snapshot in await ledger.periods.list_rewound()
        if options.customer in (None, snapshot.customer)
    ]
    _show(rewound)
    if not rewound:
        return 0
    if not (options.yes or await _confirmed("Bill what the ledger has, and give the rest back?")):
        return 1
    for customer in dict.fromkeys(snapshot.customer for snapshot in rewound):
        months = [snapshot for snapshot in rewound if snapshot.customer == customer]
        await _release(ledger, audit, customer, months, options.reason)
    return 0


async def _release(
    ledger: Ledger, audit: AuditLog, customer: CustomerId, months: list[Snapshot], reason: str
) -> None:
    """Release the holds for lost usage of *months*; another hold in front of them stays, and is named."""
    hold = await ledger.holds.get(customer)
    while hold and any(rewind.is_for_lost_usage(hold, month.period) for month in months):
        before = {"hold": f"{hold.reason} ({hold.by})"}
        started = await audit.begin(ActionIntent(customer, ACTOR, "acceptLoss", reason, before))
        hold = await ledger.holds.release(customer, hold)
        await audit.complete(started, {"hold": f"{hold.reason} ({hold.by})" if hold else None})
    if hold:
        sys.stdout.write(f"{customer} stays on hold by {hold.by}: {hold.reason}\n")
    else:
        sys.stdout.write(f"{customer} is billed again.\n")


async def _set_currency(
    _: str, ledger: Ledger, audit: AuditLog, options: argparse.Namespace
) -> int:
    customer, currency = options.customer, options.currency
    before = await ledger.usage.registered_currencies([customer])
    if customer not in before:
        sys.stdout.write(f"The ledger knows no customer {customer}.\n")
        return 1
    known = {"currency": before[customer]}
    started = await audit.begin(
        ActionIntent(customer, ACTOR, "setCurrency", options.reason, known, parameters=currency)
    )
    if not await ledger.usage.register_customer(customer, currency, CurrencySource.OPERATOR):
        await audit.refuse(started, ErrorCode.INVALID_INPUT)
        billed = before[customer]
        sys.stdout.write(f"{customer} has usage or an invoice in {billed}; nothing was done.\n")
        return 1
    await audit.complete(started, {"currency": currency})
    sys.stdout.write(f"{customer} is billed in {currency}.\n")
    return 0


def _show(rewound: list[Snapshot]) -> None:
    """Write a line for each month: the customer, the invoice, and the amount that the ledger lacks."""
    for snapshot in rewound:
        lost = rewind.lost_usage(snapshot, snapshot.lines.items(), {})
        amount = rewind.money_at_stake(snapshot, lost).formatted
        month = f"{snapshot.customer} {snapshot.period} {snapshot.state}"
        sys.stdout.write(f"{month} {snapshot.invoice}: {amount} in {len(lost)} lines\n")
    sys.stdout.write(f"Customers with lost usage: {len({one.customer for one in rewound}):,}.\n")


async def _confirmed(question: str) -> bool:
    sys.stdout.write(f"{question} Type yes: ")
    sys.stdout.flush()
    if (await asyncio.to_thread(sys.stdin.readline)).strip() == "yes":
        return True
    sys.stdout.write("Nothing was done.\n")
    return False


def _server(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2] or "its socket"
