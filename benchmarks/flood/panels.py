"""Support reading panels at a steady pace, each right after its customer has changed."""

import asyncio
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx

from benchmarks.flood.sender import Bodies
from benchmarks.flood.stripe_account import People, side_by_side
from billing.budget import Lane
from billing.services import Services

READS_A_SECOND = 10
PANEL = """query Panel($id: ID!) { customer(id: $id) { name
  currentPeriod { total { amount } } invoices(first: 1) { nodes { id status total { amount } } } } }"""


class Times(list[float | None]):
    """Response times of panels in ms; None for one that was answered with an error."""

    def __str__(self) -> str:
        answered = [answer for answer in self if answer is not None]
        cuts = statistics.quantiles(answered, n=100)
        percentiles = ", ".join(f"p{n} {cuts[n - 1]:.0f} ms" for n in (50, 90, 99))
        return f"{percentiles} of {len(self)} ({len(self) - len(answered)} refused)"


@dataclass
class Panels:
    """Panels of the gateway at *url*; *http* brings a token."""

    people: People
    url: str
    http: httpx.AsyncClient
    numbers: Iterator[int] = field(default_factory=count)

    async def keep_reading(self, taken: Times) -> None:
        """Panels at a steady pace until cancelled, however long each takes; *taken* grows.

        Each is read cold, because its customer was changed a moment ago: as most are in a flood. The pace is
        not that of the answers to what announced it: a door that answers many at once would have panels
        begin at once, and wait for each other.
        """
        changed: asyncio.Queue[int] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            for number in self.numbers:
                group.create_task(self._tell(number * 7, changed))
                if not changed.empty():
                    group.create_task(self._time(changed.get_nowait(), taken))
                await asyncio.sleep(1 / READS_A_SECOND)

    async def _tell(self, number: int, changed: "asyncio.Queue[int]") -> None:
        customer, _ = self._bodies[number % len(self._bodies)]
        await self.people.tell("customer.updated", customer)
        changed.put_nowait(number)

    async def _time(self, number: int, taken: Times) -> None:
        began = time.perf_counter()
        answered = await self.read(number) is not None
        taken.append((time.perf_counter() - began) * 1000 if answered else None)

    async def read(self, number: int) -> dict[str, Any] | None:
        """One panel; None when it was not answered."""
        variables = {"id": self._bodies[number % len(self._bodies)][0]["id"]}
        answer = await self.http.post(
            f"{self.url}/graphql", json={"query": PANEL, "variables": variables}
        )
        body: dict[str, Any] = answer.json()
        return None if "errors" in body else body["data"]["customer"]

    async def differing(self, services: Services) -> int:
        """Count the panels that differ from Stripe."""
        differences = (self._differs(services, number) for number in range(len(self._bodies)))
        return sum(await side_by_side(differences))

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
