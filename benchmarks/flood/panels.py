"""Support reading panels at a steady pace, each right after its customer has changed."""

import asyncio
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx

from benchmarks.flood.sending import Bodies
from benchmarks.flood.shop import People, side_by_side
from billing.budget import Lane
from billing.services import Services

READS_A_SECOND = 10
PANEL = """query Panel($id: ID!) { customer(id: $id) { name
  invoices(first: 1) { nodes { id status total { amount } } } } }"""


@dataclass
class Panels:
    """How long each took, in ms; *refused* were answered with an error. *http* brings a token."""

    people: People
    http: httpx.AsyncClient
    taken: list[float] = field(default_factory=list)
    refused: int = 0
    numbers: Iterator[int] = field(default_factory=count)

    async def keep_reading(self) -> None:
        """One after another until cancelled, however long each takes.

        Each is read cold, because its customer was changed a moment ago: as most are in a flood.
        """
        async with asyncio.TaskGroup() as group:
            for number in self.numbers:
                group.create_task(self._read_changed(number * 7))
                await asyncio.sleep(1 / READS_A_SECOND)

    async def _read_changed(self, number: int) -> None:
        customer, _ = self._bodies[number % len(self._bodies)]
        await self.people.tell("customer.updated", customer)
        await self.read(number)

    async def read(self, number: int) -> dict[str, Any] | None:
        """One panel, over one of the gateways; None when it was not answered."""
        urls = self.people.urls
        variables = {"id": self._bodies[number % len(self._bodies)][0]["id"]}
        began = time.perf_counter()
        answer = await self.http.post(
            f"{urls[number % len(urls)]}/graphql", json={"query": PANEL, "variables": variables}
        )
        self.taken.append((time.perf_counter() - began) * 1000)
        body = answer.json()
        if "errors" in body:
            self.refused += 1
            return None
        found: dict[str, Any] = body["data"]["customer"]
        return found

    def percentiles(self) -> str:
        """The figures since the last call."""
        taken, self.taken = self.taken, []
        refused, self.refused = self.refused, 0
        cuts = statistics.quantiles(taken, n=100)
        return f"p50 {cuts[49]:4.0f} ms, p99 {cuts[98]:4.0f} ms of {len(taken)} ({refused} refused)"

    async def differing(self, services: Services) -> int:
        """How many show something else than Stripe has."""
        each = (self._differs(services, number) for number in range(len(self._bodies)))
        return sum(await side_by_side(each))

    async def _differs(self, services: Services, number: int) -> bool:
        customer, invoice = self._bodies[number]
        shown = await self.read(number)
        assert shown is not None
        there = [
            await services.stripe.read(path, lane=Lane.SUPPORT)
            for path in (f"/v1/customers/{customer['id']}", f"/v1/invoices/{invoice['id']}")
        ]
        cents = round(float(shown["invoices"]["nodes"][0]["total"]["amount"]) * 100)
        return (shown["name"], cents) != (there[0]["name"], there[1]["total"])

    @property
    def _bodies(self) -> Bodies:
        return self.people.bodies
