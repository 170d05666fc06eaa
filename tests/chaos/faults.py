"""The faults: processes are killed or suspended, Stripe fails, webhooks are lost."""

import asyncio
import contextlib
import signal
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import httpx

from tests.chaos.installation import LEASE_SECONDS, SLOW_SECONDS, Installation

VICTIMS = {
    "worker 1": 4,
    "worker 2": 4,
    "gateway": 2,
    "stripe": 3,
    "ledger": 2,
    "queue and cache": 2,
}
WRITES = (
    "POST /v1/invoices",
    "POST /v1/invoices/{invoice}/add_lines",
    "POST /v1/invoices/{invoice}/update_lines",
    "POST /v1/invoices/{invoice}/remove_lines",
    "POST /v1/invoices/{invoice}/finalize",
    "*",
)
ON_REQUEST: tuple[dict[str, object], ...] = (
    {"kind": "answer_lost_before"},
    {"kind": "answer_lost_after"},
    {"kind": "late_delivery", "seconds": 1.5},
    {"kind": "error_500_before"},
    {"kind": "error_500_after"},
    {"kind": "partial_500_after"},
    {"kind": "rate_limited", "times": 12},
    {"kind": "rate_limited", "times": 12, "reason": "global-rate"},
    {"kind": "lock_timeout"},
    {"kind": "slow", "seconds": SLOW_SECONDS},
)
ON_WEBHOOK: tuple[dict[str, object], ...] = (
    {"kind": "webhook_drop", "times": 3},
    {"kind": "webhook_duplicate", "times": 5},
    {"kind": "webhook_delay", "times": 3, "seconds": 2},
    {"kind": "webhook_reorder", "times": 4},
    {"kind": "webhook_forge"},
)
GAP = (0.1, 1.0)  # seconds between two deaths
LIFE = 4  # times as long as everything took to start, at most, before somebody may die again
DOWN = (0.0, 1.0)  # and until a supervisor starts the dead again
FAULT_GAP = (0.05, 0.4)


@dataclass
class Trouble:
    """Injects faults until it is stopped; *struck* counts those that took effect, by kind."""

    town: Installation
    dice: Random
    seconds: float
    ordered: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)

    async def kill(self, ending: asyncio.Event) -> None:
        """Kill each process once in random order, then random ones; sometimes only suspend a worker.

        Lives are as long as the machine's own starts are slow, or it would do nothing but start.
        """
        first = self.dice.sample(sorted(VICTIMS), len(VICTIMS))
        while not await _within(ending, self._gap(early=bool(first))) or first:
            chosen = self.dice.choices(list(VICTIMS), list(VICTIMS.values()))[0]
            life = self.dice.uniform(0, LIFE * self.town.start_seconds)
            if first:
                await self._kill(first.pop())
            elif self.dice.random() < 0.1:
                await self._freeze(self.dice.choice(["worker 1", "worker 2"]))
            elif self.town.parts[chosen].age() > life:
                await self._kill(chosen)

    async def err(self, ending: asyncio.Event) -> None:
        """Inject one Stripe fault after the other."""
        while not await _within(ending, self.dice.uniform(*FAULT_GAP)):
            if self.dice.random() < 0.75:
                fault = {"match": self.dice.choice(WRITES), **self.dice.choice(ON_REQUEST)}
            else:
                fault = dict(self.dice.choice(ON_WEBHOOK))
            with contextlib.suppress(httpx.HTTPError):
                await self.town.stripe.fault(**fault)  # type: ignore[arg-type]
                self.ordered[str(fault["kind"])] += int(str(fault.get("times", 1)))

    async def heal(self) -> None:
        """Remove all Stripe faults, so that the audit need not wait for them."""
        await self._count()
        await self.town.stripe.clear_faults()
        await self.town.stripe.settings(limits=False, latency=False)

    def _gap(self, *, early: bool) -> float:
        """Seconds until the next kill: each process is killed once in the first half."""
        return (
            self.dice.uniform(0, self.seconds / len(VICTIMS)) if early else self.dice.uniform(*GAP)
        )

    async def _kill(self, victim: str) -> None:
        if victim == "stripe":
            await self._count()  # what it has counted dies with it
            self.town.counted = await self.town.stripe_calls()
        self.town.parts[victim].kill(self.dice.uniform(*DOWN))

    async def _freeze(self, victim: str) -> None:
        """Suspend it until others have taken over, then resume it: a zombie."""
        part = self.town.parts[victim]
        part.signal(signal.SIGSTOP)
        part.frozen += 1
        await asyncio.sleep(LEASE_SECONDS + 0.5)
        part.signal(signal.SIGCONT)

    async def _count(self) -> None:
        """Record which faults have taken effect."""
        try:
            left = await self.town.stripe.control("GET", "faults")
        except httpx.HTTPError:
            return
        self.struck += self.ordered
        for task in left:
            self.struck[task["kind"]] -= int(task["times"])  # type: ignore[index]
        self.ordered.clear()


async def _within(ending: asyncio.Event, seconds: float) -> bool:
    """True if the run ends within *seconds*."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ending.wait(), seconds)
    return ending.is_set()
