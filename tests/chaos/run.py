"""One run: usage and faults for some seconds, then none, then the audit."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from types import MappingProxyType

from billing.errors import LedgerUnavailable
from billing.ledger import Ledger
from billing.usage import CustomerId, Period
from tests.chaos.audit import Audit
from tests.chaos.faults import Trouble
from tests.chaos.installation import Installation, installed
from tests.chaos.producers import CENTS, CUSTOMERS, Books, Reporter, Support, query
from tests.support.queries import SYNC
from tests.support.wait import wait_until

REPORTERS = 4
REST_SECONDS = 60


@dataclass
class Report:
    """The counts of a run and the mistakes found at its end."""

    mistakes: list[str]
    deaths: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    load: Counter[str] = field(default_factory=Counter)
    stripe: dict[str, int] = field(default_factory=dict)
    rest_seconds: float = 0
    doubles: int = 0

    def text(self) -> str:
        """The report as text for a terminal."""
        calls, deltas = sum(self.stripe.values()), self.load["deltas acknowledged"]
        lines = [
            f"{n:>9,} {name}"
            for part in (self.deaths, self.faults, self.load)
            for name, n in part.items()
            if n
        ]
        lines += [f"{n:>9,} {name}" for name, n in sorted(self.stripe.items())]
        lines += [
            f"{calls:>9,} calls to Stripe, {1000 * calls / max(deltas, 1):.1f} for 1,000 deltas",
            f"{self.doubles:>9,} times a line stood twice on a draft for a while",
            f"{self.rest_seconds:>9.1f} s until everything was at rest",
            *(f"WRONG: {mistake}" for mistake in self.mistakes),
        ]
        return "\n".join(lines)


async def chaos(
    folder: Path, *, seconds: float, seed: int, checkouts: Mapping[str, Path] = MappingProxyType({})
) -> Report:
    """Inject faults for *seconds*; report the mistakes once all is at rest, or after a minute."""
    async with installed(folder, _objects(), checkouts) as town:
        ledger = Ledger(town.ledger)
        await ledger.open()
        books, trouble = Books(), Trouble(town, Random(f"trouble {seed}"), seconds)
        await _live(town, books, trouble, ledger, seconds=seconds, seed=seed)
        await trouble.heal()
        await _end_last_month(ledger, CUSTOMERS)
        await _try_again(town, ledger)
        audit, began = Audit(town, books, ledger), time.monotonic()
        unrest = await audit.unrest_after(REST_SECONDS)
        seconds_to_rest, calls = time.monotonic() - began, await town.stripe_calls()
        return Report(
            mistakes=unrest + await audit.mistakes(),
            deaths=_deaths(town),
            faults=Counter({f"faults: {kind}": n for kind, n in trouble.struck.items()}),
            load=books.counts,
            stripe=calls,
            rest_seconds=seconds_to_rest,
            doubles=await audit.doubles(),
        )


async def _live(
    town: Installation, books: Books, trouble: Trouble, ledger: Ledger, *, seconds: float, seed: int
) -> None:
    """Run usage and faults; halfway, close last month for half of the customers."""
    ending, peace = asyncio.Event(), asyncio.Event()
    workers = [
        Reporter(f"r{n}", town.system, books, Random(f"reporter {n} {seed}"), ending)
        for n in range(REPORTERS)
    ]
    loads = [asyncio.create_task(worker.run()) for worker in workers]
    loads.append(
        asyncio.create_task(Support(town.system, books, Random(f"support {seed}"), ending).run())
    )
    troubles = [asyncio.create_task(trouble.kill(peace)), asyncio.create_task(trouble.err(peace))]
    await asyncio.sleep(seconds / 2)
    await _end_last_month(ledger, CUSTOMERS[::2])
    await asyncio.sleep(seconds / 2)
    peace.set()
    await asyncio.gather(*troubles)
    await wait_until(town.ready, "everything has been started again", seconds=60)
    ending.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*loads)


def _deaths(town: Installation) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, part in town.parts.items():
        counts[f"times {name} was killed"] = part.killed
        counts[f"times {name} ended"] = part.ended
        counts[f"times {name} stood still"] = part.frozen
    return counts


async def _end_last_month(ledger: Ledger, customers: Iterable[str]) -> None:
    """Close last month as the cron job does, without its pause after a replaced server."""
    for customer in customers:

        async def ended(customer: str = customer) -> bool:
            with contextlib.suppress(LedgerUnavailable):
                await ledger.periods.close(CustomerId(customer), _last_month())
                return True
            return False

        await wait_until(ended, "last month is cut", seconds=60)


async def _try_again(town: Installation, ledger: Ledger) -> None:
    """Retry the customers that are parked or were refused repeatedly, and no others."""
    async with town.system.caller("support") as caller:
        for customer in CUSTOMERS:
            periods = await ledger.periods.list_retained(CustomerId(customer))
            seen = [
                await ledger.periods.snapshot(CustomerId(customer), period) for period in periods
            ]
            if not any(snapshot.attempts or snapshot.parked_reason for snapshot in seen):
                continue

            async def answered(customer: str = customer) -> object:
                return await query(caller.http, SYNC, id=customer)

            await wait_until(answered, "a sync is asked for")


def _last_month() -> Period:
    this = Period.containing(datetime.now(UTC))
    return Period(this.year, this.month - 1) if this.month > 1 else Period(this.year - 1, 12)


def _objects() -> dict[str, object]:
    """The price catalog and the customers, as the sandbox takes them at its start."""
    prices = [
        {
            "id": f"price_{sku.replace('-', '')}",
            "currency": "usd",
            "unit_amount_decimal": cents,
            "lookup_key": sku,
            "product_data": {"name": sku},
        }
        for sku, cents in CENTS.items()
    ]
    customers = [
        {"id": customer, "name": customer, "metadata": {"organization": customer}}
        for customer in CUSTOMERS
    ]
    return {"prices": prices, "customers": customers}
