"""The audit after the run: everything is at rest, and every bill equals the books, by arithmetic of its own."""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import httpx

from billing.invoicing.snapshot import PeriodState
from billing.ledger import Ledger, keys
from billing.ledger.syncs import SyncStatus
from billing.redis_clients import awaited
from billing.usage import CustomerId
from tests.chaos.installation import LOOK_SECONDS, Installation
from tests.chaos.producers import CENTS, CUSTOMERS, FEW, SUMS, Books, query
from tests.support.wait import wait_until

STEPS = {"invoiceitem.created": 1, "invoiceitem.deleted": -1}
UNDERWAY = (SyncStatus.QUEUED, SyncStatus.RUNNING, SyncStatus.RETRYING)


@dataclass
class Audit:
    """Reads Stripe, the ledger's keys and the panel's numbers."""

    town: Installation
    books: Books
    ledger: Ledger

    async def unrest_after(self, seconds: float) -> list[str]:
        """The work that is not finished within *seconds*."""
        found: list[str] = []

        async def rests() -> bool:
            await asyncio.sleep(LOOK_SECONDS)
            found[:] = await self._unrest()
            return not found

        with contextlib.suppress(AssertionError):
            await wait_until(rests, "everything is at rest", seconds)
        return found

    async def mistakes(self) -> list[str]:
        """The mistakes in the bills; empty if there is none."""
        found = list(self.books.wrong)
        async with (
            httpx.AsyncClient(base_url=self.town.stripe.url) as http,
            self.town.system.caller("support") as support,
        ):
            for customer in CUSTOMERS:
                invoices = [
                    invoice async for invoice in _listed(http, "/v1/invoices", customer=customer)
                ]
                lines = {
                    invoice["id"]: [
                        line async for line in _listed(http, f"/v1/invoices/{invoice['id']}/lines")
                    ]
                    for invoice in invoices
                }
                found += self._quantities(customer, lines)
                found += _amounts(lines)
                found += await self._drafts(customer, invoices)
                found += await _numbers(support.http, customer)
        return found

    async def _unrest(self) -> list[str]:
        """Unfinished work: due periods, leases, request batches, syncs under way, parked periods."""
        redis = self.town.ledger
        now = (await redis.time())[0] * 1000
        places = [keys.due(shard) for shard in range(keys.SHARDS)]
        places += [
            keys.syncs_by_status(shard, status)
            for shard in range(keys.SHARDS)
            for status in UNDERWAY
        ]
        async with redis.pipeline(transaction=False) as pipeline:
            for place in places:
                pipeline.zrange(place, 0, -1)
            waiting = await pipeline.execute()
        found = [
            f"{place}: {member.decode()}"
            for place, members in zip(places, waiting, strict=True)
            for member in members
        ]
        for name in CUSTOMERS:
            customer = CustomerId(name)
            for period in await self.ledger.periods.list_retained(customer):
                snapshot = await self.ledger.periods.snapshot(customer, period)
                lease = await awaited(redis.hget(keys.period(customer, period), "lease_ms"))
                facts = {
                    "flight": snapshot.batch is not None,
                    "stuck": snapshot.parked_reason is not None,
                    "lease": int(lease or 0) > now,
                    "not told": not snapshot.up_to_date
                    and snapshot.state is not PeriodState.SEALED,
                }
                found += [f"{what}: {name} {period}" for what, so in facts.items() if so]
        return found

    async def doubles(self) -> int:
        """The number of times that a line stood twice on a draft, even briefly, by Stripe's events."""
        standing: Counter[tuple[str, str]] = Counter()
        times = 0
        async with httpx.AsyncClient(base_url=self.town.stripe.url) as http:
            events = [event async for event in _listed(http, "/v1/events")]
        for event in reversed(events):
            item = event["data"]["object"]
            if event["type"] in STEPS:
                key = item["invoice"], item["metadata"]["gw_line"]
                standing[key] += STEPS[event["type"]]
                times += event["type"] == "invoiceitem.created" and standing[key] > 1
        return times

    def _quantities(self, customer: str, lines: dict[str, list[dict[str, Any]]]) -> list[str]:
        billed: defaultdict[str, Decimal] = defaultdict(Decimal)
        found = []
        for invoice, its in lines.items():
            keys_seen = Counter(line["metadata"]["gw_line"] for line in its)
            found += [f"{invoice} doubles {key}" for key, count in keys_seen.items() if count > 1]
            for line in its:
                billed[line["metadata"]["gw_line"].split("~")[0]] += _quantity(line)
        owed = {
            sku: quantity for (owner, sku), quantity in self.books.owed.items() if owner == customer
        }
        found += [
            f"{customer} {sku}: owed {owed.get(sku, 0)}, billed {billed.get(sku, 0)}"
            for sku in sorted({*owed, *billed})
            if owed.get(sku, 0) != billed.get(sku, 0)
        ]
        return found

    async def _drafts(self, customer: str, invoices: list[dict[str, Any]]) -> list[str]:
        """One invoice a month, and a draft only for a month that is open."""
        months = Counter(invoice["metadata"]["gw_period"] for invoice in invoices)
        found = [f"{customer} has {n} invoices for {month}" for month, n in months.items() if n > 1]
        states = {
            str(period): (await self.ledger.periods.snapshot(CustomerId(customer), period)).state
            for period in await self.ledger.periods.list_retained(CustomerId(customer))
        }
        for invoice in invoices:
            month = invoice["metadata"]["gw_period"]
            is_draft = invoice["status"] == "draft"
            if is_draft != (states.get(month) is PeriodState.OPEN):
                found.append(
                    f"{invoice['id']} of {month} is {invoice['status']}, {states.get(month)}"
                )
        return found


def _quantity(line: dict[str, Any]) -> Decimal:
    return Decimal(
        line["metadata"]["gw_quantity"] if line["pricing"] is None else line["quantity_decimal"]
    )


def _amounts(lines: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Each line's amount is quantity times price, rounded half away from zero to whole cents."""
    found = []
    for invoice, its in lines.items():
        for line in its:
            key = line["metadata"]["gw_line"].split("~")[0]
            unit = Decimal(CENTS[FEW[3] if key.startswith("adj:") else key])
            cents = (_quantity(line) * unit).quantize(Decimal(1), rounding=ROUND_HALF_UP)
            if cents != line["amount"]:
                found.append(f"{invoice} {key}: {line['amount']} cents, not {cents}")
    return found


async def _numbers(http: httpx.AsyncClient, customer: str) -> list[str]:
    """The panel must show that Stripe has everything."""
    data = await query(http, SUMS, id=customer)
    if not data or not data["customer"]:
        return [f"the panel of {customer} does not answer"]
    four = {
        name: Decimal(money["amount"]) for name, money in data["customer"]["currentPeriod"].items()
    }
    agreed = four["inStripe"] == four["total"] and not four["claimed"] and not four["pending"]
    return [] if agreed else [f"the panel of {customer} shows {four}"]


async def _listed(
    http: httpx.AsyncClient, path: str, **query: str
) -> AsyncIterator[dict[str, Any]]:
    """All objects of a Stripe list."""
    headers = {"Authorization": "Bearer sk_test_0123456789abcdef"}
    params: dict[str, Any] = {"limit": 100, **query}
    while True:
        answer = await http.get(path, params=params, headers=headers)
        page = answer.raise_for_status().json()
        for item in page["data"]:
            yield item
        if not page["has_more"]:
            return
        params["starting_after"] = page["data"][-1]["id"]
