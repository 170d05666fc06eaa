"""The senders of usage and corrections, and the books of acknowledged amounts."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import httpx
import orjson

from billing.usage import Period
from tests.support.queries import SYNC
from tests.support.system import System

CUSTOMERS = tuple(f"cus_chaos{n}" for n in range(8))
# Cents; the first customer uses them all, which takes more than one bulk call.
CENTS = {f"sku-{n}": f"{n * n}.{n:04d}" for n in range(60)} | {"sku-0": "0.000000000001"}
FEW = tuple(CENTS)[:6]
SUMS = """query Sums($id: ID!) { customer(id: $id) { currentPeriod {
  inStripe { amount } claimed { amount } pending { amount } total { amount } } } }"""
ADJUST = """mutation Adjust($id: ID!, $sku: String!, $quantity: Decimal!, $key: String!) {
  adjustUsage(input: {customerId: $id, sku: $sku, quantity: $quantity, reason: "chaos", idempotencyKey: $key}) {
    adjustment { id } errors { code } } }"""
PAUSE = 0.05
LATER = ("STRIPE_UNAVAILABLE", "OVERLOADED")  # codes of lines that are to be sent again


@dataclass
class Books:
    """Amounts *owed* by customer and SKU (corrections by their id); *wrong* has the broken promises."""

    owed: defaultdict[tuple[str, str], Decimal] = field(
        default_factory=lambda: defaultdict(Decimal)
    )
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass
class Reporter:
    """A metering service: sends each batch until it is acknowledged, and some again later."""

    name: str
    system: System
    books: Books
    dice: Random
    ending: asyncio.Event
    sent: list[list[dict[str, str]]] = field(default_factory=list)

    async def run(self) -> None:
        """Until *ending*; the last batch is sent until it is acknowledged."""
        async with self.system.caller("metering") as caller:
            while not self.ending.is_set():
                batch = self._batch()
                if await self._acknowledged(caller.http, batch) is not None:
                    self._book(batch)
                if self.sent and self.dice.random() < 0.2:
                    accepted = await self._acknowledged(caller.http, self.dice.choice(self.sent))
                    if accepted:
                        self.books.wrong.append(f"{accepted} repeated deltas were counted again")
                await asyncio.sleep(self.dice.uniform(0, PAUSE))

    def _batch(self) -> list[dict[str, str]]:
        return [self._delta() for _ in range(self.dice.randrange(1, 100))]

    def _delta(self) -> dict[str, str]:
        customer = self.dice.choice(CUSTOMERS)
        skus = tuple(CENTS) if customer == CUSTOMERS[0] else FEW
        now = datetime.now(UTC)
        last_month = Period.containing(now).start - timedelta(hours=self.dice.randrange(1, 20))
        self.books.counts["deltas made"] += 1
        # At the highest price no delta is above the largest amount that Stripe charges.
        quantity = Decimal(self.dice.randrange(-(10**14), 10**15)).scaleb(
            self.dice.randrange(-12, -10)
        )
        return {
            "id": f"{self.name}-{self.books.counts['deltas made']}",
            "customerId": customer,
            "sku": self.dice.choice(skus),
            "quantity": f"{quantity:f}",
            "occurredAt": (last_month if self.dice.random() < 0.15 else now).isoformat(),
            "app": self.dice.choice(["web", "worker"]),
        }

    async def _acknowledged(self, http: httpx.AsyncClient, batch: Sequence[Any]) -> int | None:
        """The number of new deltas; None for a refused batch, which is a mistake."""
        content = b"\n".join(orjson.dumps(delta) for delta in batch)
        while True:
            self.books.counts["reports sent"] += 1
            try:
                answer = await http.post("/usage", content=content)
            except httpx.HTTPError:
                self.books.counts["reports without an answer"] += 1
                await asyncio.sleep(PAUSE)
                continue
            if answer.status_code >= 500:
                self.books.counts["reports answered 5xx"] += 1
                await asyncio.sleep(PAUSE)
                continue
            answer_body = answer.json()
            if any(rejection["error"]["code"] in LATER for rejection in answer_body["rejected"]):
                self.books.counts["reports to be sent again"] += 1
                await asyncio.sleep(PAUSE)
                continue
            if answer.status_code != 200 or answer_body["rejected"]:
                self.books.wrong.append(f"a batch was refused: {answer_body}")
                return None
            self.books.counts["deltas known already"] += answer_body["duplicates"]
            return int(answer_body["accepted"])

    def _book(self, batch: list[dict[str, str]]) -> None:
        self.sent.append(batch)
        self.books.counts["deltas acknowledged"] += len(batch)
        for delta in batch:
            self.books.owed[delta["customerId"], delta["sku"]] += Decimal(delta["quantity"])


@dataclass
class Support:
    """Support: requests syncs, corrects bills and reads the four amounts."""

    system: System
    books: Books
    dice: Random
    ending: asyncio.Event

    async def run(self) -> None:
        """Until *ending*; a correction that was begun is sent until it is answered."""
        async with self.system.caller("support") as caller:
            while not self.ending.is_set():
                customer = self.dice.choice(CUSTOMERS)
                deed = self.dice.choice([self._sync, self._sync, self._look, self._adjust])
                await deed(caller.http, customer)
                await asyncio.sleep(self.dice.uniform(0, 8 * PAUSE))

    async def _sync(self, http: httpx.AsyncClient, customer: str) -> None:
        answered = await query(http, SYNC, id=customer)
        self.books.counts["syncs asked for" if answered else "syncs without an answer"] += 1

    async def _look(self, http: httpx.AsyncClient, customer: str) -> None:
        data = await query(http, SUMS, id=customer)
        if data and data["customer"]:
            four = {
                name: Decimal(money["amount"])
                for name, money in data["customer"]["currentPeriod"].items()
            }
            self.books.counts["sums looked at"] += 1
            if four["inStripe"] + four["claimed"] + four["pending"] != four["total"]:
                self.books.wrong.append(f"the four numbers do not add up: {four}")

    async def _adjust(self, http: httpx.AsyncClient, customer: str) -> None:
        quantity = Decimal(self.dice.randrange(-500, 500) or 1).scaleb(-2)
        key = f"adjust-{self.books.counts['corrections']}"
        given = {"id": customer, "sku": FEW[3], "quantity": f"{quantity:f}", "key": key}
        while True:
            data = await query(http, ADJUST, **given)
            payload = data and data["adjustUsage"]
            if payload and payload["adjustment"]:
                break
            codes = {error["code"] for error in payload["errors"]} if payload else set()
            if "NOT_FOUND" in codes:  # no usage of theirs has come in yet
                return
            await asyncio.sleep(PAUSE)
        self.books.counts["corrections"] += 1
        self.books.owed[customer, f"adj:{payload['adjustment']['id']}"] += quantity


async def query(http: httpx.AsyncClient, query: str, **variables: Any) -> Any:
    """The data of an answer without errors; None otherwise."""
    try:
        answer = await http.post("/graphql", json={"query": query, "variables": variables})
        body = answer.json()
    except (httpx.HTTPError, ValueError):
        return None
    return None if body.get("errors") else body["data"]
