"""Customers who read their panels beside an attacker, mostly from the cache, and sometimes open Stripe's portal."""

import asyncio
import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from benchmarks.attack.attacks import PORTAL, error_code
from billing.cache.redis_backend import CacheUnavailable
from billing.services import Services
from tests.support.system import System, http_client

READS_A_SECOND = 20
COLD_EVERY = 8  # so many panels, one is read from Stripe, as after a change
PORTAL_EVERY = 21
PANEL = """query Panel($id: ID!) { customer(id: $id) {
  id name email creditBalance { amount } defaultPaymentMethod { brand last4 }
  paymentMethods(first: 5) { nodes { brand last4 } }
  invoices(first: 10) { nodes { id number status total { amount } } }
  currentPeriod { total { amount } pending { amount } usage { key amount { amount } } } } }"""


@dataclass
class Readings:
    """Milliseconds of the panels that were answered, portal *sessions*, and the errors of the others by code."""

    taken: list[float] = field(default_factory=list)
    sessions: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def percentile(self, percent: int) -> float:
        """A percentile in ms."""
        if len(self.taken) < 2:  # noqa: PLR2004 what quantiles needs
            return math.inf
        return statistics.quantiles(self.taken, n=100)[percent - 1]


class Neighbours:
    """The *customers*, each with a token and a client of its own."""

    def __init__(self, services: Services, system: System, customers: Sequence[str]) -> None:
        self._services = services
        self._customers = customers
        self._url = f"{system.url}/graphql"
        self._clients: list[httpx.AsyncClient] = [
            http_client(
                headers={"Authorization": f"Bearer {system.token('customer', [customer])}"},
                timeout=60,
            )
            for customer in customers
        ]

    async def read_for(self, seconds: float) -> Readings:
        """Read panels at a steady pace for *seconds*, however long each takes; wait for all of them."""
        readings, ends = Readings(), time.perf_counter() + seconds
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                group.create_task(self._read(number, readings))
                if not number % PORTAL_EVERY:
                    group.create_task(self._open_portal(number, readings))
                await asyncio.sleep(1 / READS_A_SECOND)
                if time.perf_counter() > ends:
                    break
        return readings

    async def _read(self, number: int, readings: Readings) -> None:
        if not number % COLD_EVERY:
            with suppress(CacheUnavailable):
                await self._services.cache.invalidate(self._customer(number))
        began = time.perf_counter()
        if await self._request(number, PANEL, readings):
            readings.taken.append((time.perf_counter() - began) * 1000)

    async def _open_portal(self, number: int, readings: Readings) -> None:
        readings.sessions += bool(await self._request(number, PORTAL, readings))

    def _customer(self, number: int) -> str:
        return self._customers[number % len(self._customers)]

    async def _request(self, number: int, query: str, readings: Readings) -> bool:
        """True if *query* was answered; otherwise its error is counted."""
        body = {"query": query, "variables": {"id": self._customer(number)}}
        client = self._clients[number % len(self._clients)]
        try:
            answer = (await client.post(self._url, json=body)).json()
        except httpx.HTTPError as error:
            readings.refused[type(error).__name__] += 1
            return False
        code = error_code(answer)
        readings.refused.update([code] if code else [])
        return not code

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            await client.aclose()
