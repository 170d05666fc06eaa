"""A world of two customers and a few months with random failures, all determined by one seed.

The world decides which worker runs next, the time, which requests are lost and which worker dies. Only
Redis and the code under test are real.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from redis.asyncio import Redis

from billing.invoicing.request_batch import RequestKind, StripeRequest
from billing.ledger import DeltaOutcome, Ledger, LedgerPolicy, keys
from billing.usage import CustomerId, Period, Price, UsageDelta
from tests.simulation.machine import SHARDS, Machine
from tests.simulation.oracle import Oracle
from tests.simulation.people import CUSTOMERS, People
from tests.simulation.stripe_model import StripeModel
from tests.simulation.wire import DAY_MS, HOUR_MS, Fault
from tests.simulation.workers import Worker
from workers.flush.closing import close_ended_periods
from workers.flush.outcome import FlushResult
from workers.flush.policy import FlushPolicy

START = datetime(2026, 10, 30, tzinfo=UTC)
MINUTE_MS = 60_000
SPREAD_S = 3 * 86_400
SETTLE_MS = HOUR_MS
# Longer than the longest delivery, as it must be in production.
QUIET_MS = 65 * MINUTE_MS


@dataclass(frozen=True)
class Mode:
    """The failures of a schedule besides crashes, network failures and Stripe's errors."""

    edits: bool = False
    rewinds: bool = False
    cramped: bool = False
    refusals: bool = False

    def __str__(self) -> str:
        return ", ".join(name for name, on in vars(self).items() if on) or "plain"


@dataclass(frozen=True)
class Prices:
    """Prices that never fail; the catalog has its own tests."""

    known: dict[str, Price]

    async def by_id(self, ids: Iterable[str]) -> dict[str, Price]:
        """Return the prices with these ids."""
        return {id_: self.known[id_] for id_ in ids}


class World:
    """One schedule. ``await run()`` raises Violation as soon as an invariant is broken."""

    def __init__(self, seed: int, mode: Mode, redis: Redis, epochs: dict[int, bytes]) -> None:
        self.rng = Random(seed)
        self._nonces = Random(~seed)
        self.mode = mode
        self.redis = redis
        self._epochs = epochs
        # October ends two days in, or soon, or now.
        self.now = int(START.timestamp() * 1000) + self.rng.choice([0, 40, 47]) * HOUR_MS
        self.flush_policy = FlushPolicy(quiet_ms=QUIET_MS)
        interval = self.rng.choice([MINUTE_MS, 6 * HOUR_MS])
        policy = LedgerPolicy(
            flush_interval_ms=interval,
            retention_ms=400 * DAY_MS,
            settle_ms=SETTLE_MS,
            quiet_ms=QUIET_MS,
        )
        self.ledger = Ledger(redis, policy=policy, nonce=self.nonce, clock=lambda: self.now)
        self.prices = {
            sku: Price(f"price_{sku}", sku, "usd", Decimal(unit))
            for sku, unit in (("a", "0.5"), ("b", "25"), ("c", "4"), ("d", "12.5"))
        }
        self.price_catalog = Prices({price.id: price for price in self.prices.values()})
        units = {price.id: price.unit_amount for price in self.prices.values()}
        self.stripe = StripeModel(self.rng, lambda: self.now, units)
        self.oracle = Oracle(self)
        self.workers: list[Worker] = []
        self.outcomes: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.fault_rate = self.rng.choice([0.1, 0.3, 0.5])
        self.crash_rate = self.rng.choice([0, 0.01, 0.02, 0.05])
        self.recovering = False
        self.unreported = [self._usage_event(n) for n in range(100)]
        self.reported: list[UsageDelta] = []
        self.people = People(self)
        self.machine = Machine(self, redis)

    async def run(self) -> None:
        """Run failures first, then recovery; the oracle checks all the time."""
        await self._begin()
        try:
            for _ in range(self.rng.randrange(200, 700)):
                await self._random_event()
        finally:
            for worker in self.workers:
                await worker.die()
        await self._recover()

    # Faults of the dependencies

    def next_fault(self) -> Fault | None:
        """Return the fault of the next write."""
        if self.recovering or self.rng.random() >= self.fault_rate:
            return None
        if self.mode.refusals and self.rng.random() < 0.85:
            # The worst pair: a request that comes late, and its repetition refused.
            return self.rng.choice([Fault.LATE, Fault.REFUSED])
        out = (Fault.READ_FAILED, Fault.REFUSED)
        return self.rng.choice([fault for fault in Fault if fault not in out])

    def next_read_fails(self) -> bool:
        """Return True if the next read fails."""
        fails = not self.recovering and self.rng.random() < self.fault_rate / 4
        self.counts[Fault.READ_FAILED] += fails
        return fails

    async def check_write(self, request: StripeRequest, worker: Worker) -> None:
        """Check right after a write of *worker*, which may not know of the last rewind."""
        knowing = worker.began_after == self.counts["rewinds"]
        if not knowing:
            self.oracle.arrived_late |= set(request.path.split("/")[3:4])
        self.oracle.check_lines(knowing=knowing)
        if request.kind is RequestKind.FINALIZE:
            await self.oracle.check_finalized(request.path.split("/")[3])

    # Accidents

    async def _random_event(self) -> None:
        chance = self.rng.random()
        if self.workers and chance < 0.58:
            await self._run_worker(self.rng.choice(self.workers), self.rng.choice([1, 1, 2, 4, 12]))
            self.workers = [worker for worker in self.workers if not worker.done]
        elif chance < 0.70:
            await self._report_usage()
        elif chance < 0.82:
            await self._dispatch()
        elif chance < 0.90:
            await self._advance(self.rng.randrange(20_000))
        elif chance < 0.925:
            await self._advance(self.rng.choice([2, 10, 40]) * MINUTE_MS)
        elif chance < 0.935:
            await self._advance(self.rng.randrange(2 * HOUR_MS, 26 * HOUR_MS))
        else:
            await self._intervene()

    async def _run_worker(self, worker: Worker, steps: int) -> None:
        """Run up to *steps* calls of a worker; it may die."""
        for _ in range(steps):
            if worker.done:
                return
            if self.rng.random() < self.crash_rate:
                self.counts["worker deaths"] += 1
                await worker.die()
            else:
                await worker.step()

    async def _intervene(self) -> None:
        """Run a cron, a webhook, an action of Support or of a person in the Dashboard, or a rewind of Redis."""
        deeds = [self._cron, self._cron, self.people.webhook, self.people.support]
        if self.mode.edits:
            deeds += [self.people.edit] * 6
        if self.mode.rewinds:
            deeds += [self.machine.back_up, self.machine.rewind, self.machine.rewind]
        await self.rng.choice(deeds)()

    async def _advance(self, ms: int) -> None:
        until = self.now + ms
        while (arrival := self.stripe.next_arrival()) is not None and arrival <= until:
            self.now = max(self.now, arrival)
            self.oracle.arrived_late |= self.stripe.deliver_late()
            self.oracle.check_lines()
        self.now = until

    def _usage_event(self, n: int) -> UsageDelta:
        fine = ["1", "2.5", "0.000000000001", "7", "-3", "120.25", "-0.5"]
        # Rolled-up lines can only be compared by amount, so the amount must not be rounded.
        quantity = self.rng.choice(["2", "14", "-6", "120"] if self.mode.cramped else fine)
        ago = timedelta(seconds=self.rng.randrange(SPREAD_S))
        return UsageDelta(
            id=f"event-{n}",
            customer=self.rng.choice(CUSTOMERS),
            sku=self.rng.choice(sorted(self.prices)),
            quantity=Decimal(quantity) * self.rng.choice([1, 1, 1, -1]),
            occurred_at=START + ago,
            app=self.rng.choice([None, "web", "worker"]),
        )

    async def _report_usage(self) -> None:
        """Report a batch of new and repeated usage; a report whose response is lost is sent again."""
        happened = [delta for delta in self.unreported if self.current_time() >= delta.occurred_at]
        fresh = self.rng.sample(happened, min(len(happened), self.rng.randrange(1, 4)))
        again = self.rng.sample(self.reported, min(len(self.reported), self.rng.randrange(3)))
        batch = fresh + again
        self.rng.shuffle(batch)
        await self.report(batch)
        if self.rng.random() < 0.8:
            self.unreported = [delta for delta in self.unreported if delta not in fresh]

    async def report(self, batch: list[UsageDelta]) -> None:
        """Record usage; the oracle counts what was acknowledged."""
        periods = {
            customer: await self.ledger.periods.list_retained(customer) for customer in CUSTOMERS
        }
        recorded = await self.ledger.usage.record(batch, self.prices)
        for delta, answer in zip(batch, recorded, strict=True):
            self.oracle.require(
                answer.outcome in (DeltaOutcome.ACCEPTED, DeltaOutcome.DUPLICATE),
                f"{delta.id}: {answer.outcome}",
            )
            if answer.period is not None and answer.period not in periods[delta.customer]:
                self.oracle.record_opened_period(answer.period)
            if delta not in self.reported:
                self.reported.append(delta)
                self.oracle.record_usage(delta)
            self.counts["deltas" if answer.outcome is DeltaOutcome.ACCEPTED else "repeats"] += 1

    def archive_price(self, sku: str) -> None:
        """Archive the price of *sku* at Stripe; usage that was counted at it stays."""
        price = self.prices[sku]
        self.price_catalog.known[price.id] = replace(price, billable=False)
        self.stripe.archived.add(price.id)

    async def _dispatch(self) -> None:
        for shard in SHARDS:
            for customer, period in await self.ledger.due.claim(shard, 3, 30_000):
                if len(self.workers) < 4:
                    worker = Worker(self, customer, period)
                    await worker.wait_idle()
                    self.workers.append(worker)

    async def _cron(self) -> None:
        self.counts["periods cut"] += await close_ended_periods(
            self.ledger, SHARDS, now_ms=self.now, settle_ms=SETTLE_MS
        )

    # Recovery

    async def _begin(self) -> None:
        await self.redis.flushdb()
        for shard, value in self._epochs.items():
            await self.redis.restore(keys.epoch(shard), 0, value)
        for customer in CUSTOMERS:
            await self.ledger.usage.register_customer(customer, "usd")

    async def _recover(self) -> None:
        """Stop all failures: everything must become idle, and every unit must be billed once."""
        self.recovering = True
        self.workers = []
        await self._advance(2 * HOUR_MS)
        await self._drain("when the last late request has arrived")
        await self._advance(max(0, int(START.timestamp() * 1000) + SPREAD_S * 1000 - self.now))
        await self.report(self.unreported)
        await self._drain("after the trouble")
        period = Period(2026, 10)
        while period <= await self._last_period():
            end = int(period.end.timestamp() * 1000) + 2 * HOUR_MS
            await self._advance(max(0, end - self.now))
            await self._drain(f"after {period}")
            period = period.next()
        await self.oracle.check_end()

    async def _last_period(self) -> Period:
        """Return the last period: a person who finalizes draft after draft moves usage into later months."""
        return max(
            [
                period
                for customer in CUSTOMERS
                for period in await self.ledger.periods.list_retained(customer)
            ]
        )

    async def _drain(self, when: str) -> None:
        for _ in range(60):
            await self._cron()
            for customer in CUSTOMERS:
                await self.ledger.holds.release(customer)
            for shard in SHARDS:
                for customer, period in await self.ledger.due.claim(shard, 100, 30_000):
                    worker = Worker(self, customer, period)
                    await worker.run()
                    await self._call_a_person(customer, period, worker.result)
            if not await self._due():
                await self.oracle.check_idle()
                return
            await self._advance(12 * MINUTE_MS)
        self.oracle.require(False, f"still due {when}: {await self._due()}")

    async def _call_a_person(
        self, customer: CustomerId, period: Period, result: FlushResult
    ) -> None:
        """Act as a person on a parked period: make room or remove foreign lines, then wake it."""
        if result.failure is None:
            return
        self.counts[f"parked: {result.failure.code}"] += 1
        if result.failure.code in ("two_drafts", "no_room"):
            for invoice in self.stripe.invoices.values():
                if invoice["customer"] == customer and invoice["status"] == "draft":
                    self.oracle.record_deleted_draft(invoice["id"])
                    invoice["lines"] = [line for line in invoice["lines"] if line["metadata"]]
        await self.ledger.due.wake(customer, period)

    async def _due(self) -> list[bytes]:
        return [
            member for shard in SHARDS for member in await self.redis.zrange(keys.due(shard), 0, -1)
        ]

    def current_time(self) -> datetime:
        """Return the current time."""
        return datetime.fromtimestamp(self.now / 1000, UTC)

    def nonce(self) -> str:
        """Return a nonce that is determined by the seed and never repeats, even after a rewind."""
        return f"{self._nonces.getrandbits(64):016x}"
