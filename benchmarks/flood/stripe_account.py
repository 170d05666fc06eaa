"""The Stripe account: customers with one draft each, and people who keep changing them."""

import asyncio
import random
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import httpx

from benchmarks.flood.sender import PATH, Bodies, event, signature
from billing.budget import Lane
from billing.services import Services
from tests.support.stripe_sandbox import StripeSandbox

T = TypeVar("T")
CHANGE_SECONDS = 0.5
AT_ONCE = 16
FIRST = 1_000_000_000  # beyond what the flood counts to


async def open_shop(services: Services, customers: int) -> Bodies:
    """So many customers, each with a draft of five lines."""

    async def one(n: int) -> tuple[dict[str, Any], dict[str, Any]]:
        customer = await _write(services, "/v1/customers", {"name": f"Customer {n}"})
        invoice = await _write(services, "/v1/invoices", {"customer": customer["id"]})
        lines = [{"amount": 100 + n, "description": f"By hand {number}"} for number in range(5)]
        filled = await _write(services, f"/v1/invoices/{invoice['id']}/add_lines", {"lines": lines})
        return customer, filled

    return await side_by_side(one(n) for n in range(customers))


async def side_by_side(doing: Iterable[Awaitable[T]]) -> list[T]:
    """All of it, a few at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def placed(one: Awaitable[T]) -> T:
        async with places:
            return await one

    return await asyncio.gather(*map(placed, doing))


@dataclass
class People:
    """They change customers and invoices at Stripe; Stripe tells one of the gateways at *urls* each time.

    *numbers* name these events.
    """

    services: Services
    sandbox: StripeSandbox
    bodies: Bodies
    urls: list[str]
    http: httpx.AsyncClient
    numbers: Iterator[int] = field(default_factory=lambda: count(FIRST))
    changes: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(8))

    async def keep_changing(self) -> None:
        """One change after another until cancelled."""
        while True:
            await self.change(self.dice.randrange(len(self.bodies)))
            await asyncio.sleep(CHANGE_SECONDS)

    async def change_everybody(self) -> None:
        """One last change of every customer."""
        await side_by_side(self.change(place) for place in range(len(self.bodies)))

    async def change(self, place: int) -> None:
        """Change a customer or an invoice, and tell of it."""
        customer, invoice = self.bodies[place]
        self.changes += 1
        if self.dice.choice([True, False]):
            path = f"/v1/customers/{customer['id']}"
            await _write(self.services, path, {"name": f"Renamed {self.changes}"})
            await self.tell("customer.updated", customer)
        else:
            added = {"amount": self.changes % 1000 + 1, "description": "More"}
            await self.sandbox.dashboard("add_line", invoice["id"], **added)
            await self.tell("invoice.updated", invoice)

    async def tell(self, kind: str, subject: dict[str, Any]) -> None:
        """Deliver an event."""
        body = event(next(self.numbers), kind, subject)
        url = self.dice.choice(self.urls) + PATH
        headers = {"Stripe-Signature": signature(body)}
        (await self.http.post(url, content=body, headers=headers)).raise_for_status()


async def _write(services: Services, path: str, params: dict[str, Any]) -> dict[str, Any]:
    key = f"bench {random.getrandbits(64)}"
    return (await services.stripe.write(path, params, key=key, lane=Lane.CUSTOMER)).body
