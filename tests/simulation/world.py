"""A world of two customers and a few months, in which everything goes wrong, by one seed.

The world alone decides who moves next, what time it is, which requests are lost and who dies. Only
Redis and the code under proof are real.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

from redis.asyncio import Redis

from billing.invoicing.snapshot import Op, OpKind
from billing.ledger import DeltaOutcome, Ledger, LedgerPolicy, keys
from billing.usage import CustomerId, Period, Price, UsageDelta
from tests.simulation.machine import SHARDS, Machine
from tests.simulation.oracle import Oracle
from tests.simulation.people import CUSTOMERS, People
from tests.simulation.stripe_model import DAY_MS, HOUR_MS, Fault, StripeModel
from tests.simulation.workers import Worker
from workers.flush.closing import close_ended
from workers.flush.outcome import Ending

START = datetime(2026, 10, 30, tzinfo=UTC)
MINUTE_MS = 60_000
SPREAD_S = 3 * 86_400
SETTLE_MS = HOUR_MS
# Longer than the longest delivery, as production has to choose it.
QUIET_MS = 65 * MINUTE_MS


@dataclass(frozen=True)
class Mode:
    """Which accidents a schedule has besides crashes, a bad network and a bad Stripe."""

    edits: bool = False
    rewinds: bool = False
    cramped: bool = False
    refusals: bool = False

    def __str__(self) -> str:
        return ", ".join(name for name, on in vars(self).items() if on) or "plain"


class World:
    """One schedule. ``await run()`` raises Violation at the first thing that must never be."""

    def __init__(self, seed: int, mode: Mode, redis: Redis, epochs: dict[int, bytes]) -> None:
        self.rng = Random(seed)
        self._nonces = Random(~seed)
        self.mode = mode
        self.redis = redis
        self._epochs = epochs
        # October ends two days in, or soon, or now.
        self.now = int(START.timestamp() * 1000) + self.rng.choice([0, 40, 47]) * HOUR_MS
        self.quiet_ms = QUIET_MS
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
        self.prices_by_id = {price.id: price for price in self.prices.values()}
        units = {price.id: price.unit_amount for price in self.prices.values()}
        self.stripe = StripeModel(self.rng, lambda: self.now, units)
        self.oracle = Oracle(self)
        self.workers: list[Worker] = []
        self.endings: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.fault_rate = self.rng.choice([0.1, 0.3, 0.5])
        self.crash_rate = self.rng.choice([0, 0.01, 0.02, 0.05])
        self.healed = False
        self.unsent = [self._event(n) for n in range(100)]
        self.sent: list[UsageDelta] = []
        self.people = People(self)
        self.machine = Machine(self, redis)

    async def run(self) -> None:
        """Trouble first, then peace; the oracle looks on all the time."""
        await self._begin()
        try:
            for _ in range(self.rng.randrange(200, 700)):
                await self._accident()
        finally:
            for worker in self.workers:
                await worker.die()
        await self._heal()

    # What the ports ask

    def next_fault(self) -> Fault | None:
        """What happens to the next write."""
        if self.healed or self.rng.random() >= self.fault_rate:
            return None
        if self.mode.refusals and self.rng.random() < 0.85:
            # The worst pair: a request that comes late, and its repetition refused.
            return self.rng.choice([Fault.LATE, Fault.REFUSED])
        out = (Fault.READ_FAILED, Fault.REFUSED)
        return self.rng.choice([each for each in Fault if each not in out])

    def next_read_fails(self) -> bool:
        """What happens to the next read."""
        fails = not self.healed and self.rng.random() < self.fault_rate / 4
        self.counts[Fault.READ_FAILED] += fails
        return fails

    async def look_at_invoices(self, op: Op, *, since: int) -> None:
        """Right after a write reached Stripe, by a worker that began after *since* rewinds."""
        knowing = since == self.counts["rewinds"]
        if not knowing:
            self.oracle.arrived_late |= set(op.path.split("/")[3:4])
        self.oracle.look(knowing=knowing)
        if op.kind is OpKind.FINALIZE:
            await self.oracle.finalized(op.path.split("/")[3])

    # Accidents

    async def _accident(self) -> None:
        chance = self.rng.random()
        if self.workers and chance < 0.58:
            await self._work(self.rng.choice(self.workers), self.rng.choice([1, 1, 2, 4, 12]))
            self.workers = [each for each in self.workers if not each.done]
        elif chance < 0.70:
            await self._produce()
        elif chance < 0.82:
            await self._dispatch()
        elif chance < 0.90:
            await self._pass(self.rng.randrange(20_000))
        elif chance < 0.925:
            await self._pass(self.rng.choice([2, 10, 40]) * MINUTE_MS)
        elif chance < 0.935:
            await self._pass(self.rng.randrange(2 * HOUR_MS, 26 * HOUR_MS))
        else:
            await self._somebody()

    async def _work(self, worker: Worker, steps: int) -> None:
        """A worker gets some way, or dies on it."""
        for _ in range(steps):
            if worker.done:
                return
            if self.rng.random() < self.crash_rate:
                self.counts["worker deaths"] += 1
                await worker.die()
            else:
                await worker.step()

    async def _somebody(self) -> None:
        """Crons, webhooks, Support, people in the Dashboard, and the machine that Redis runs on."""
        deeds = [self._cron, self._cron, self.people.webhook, self.people.support]
        if self.mode.edits:
            deeds += [self.people.edit] * 6
        if self.mode.rewinds:
            deeds += [self.machine.back_up, self.machine.rewind, self.machine.rewind]
        await self.rng.choice(deeds)()

    async def _pass(self, ms: int) -> None:
        until = self.now + ms
        while (arrival := self.stripe.next_arrival()) is not None and arrival <= until:
            self.now = max(self.now, arrival)
            self.oracle.arrived_late |= self.stripe.deliver_late()
            self.oracle.look()
        self.now = until

    def _event(self, n: int) -> UsageDelta:
        fine = ["1", "2.5", "0.000000000001", "7", "-3", "120.25", "-0.5"]
        # Where lines are rolled up only money can be compared, so it must not be rounded.
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

    async def _produce(self) -> None:
        """A batch of new and repeated reports; one whose answer is lost is sent again."""
        happened = [each for each in self.unsent if self.moment() >= each.occurred_at]
        fresh = self.rng.sample(happened, min(len(happened), self.rng.randrange(1, 4)))
        again = self.rng.sample(self.sent, min(len(self.sent), self.rng.randrange(3)))
        batch = fresh + again
        self.rng.shuffle(batch)
        await self.report(batch)
        if self.rng.random() < 0.8:
            self.unsent = [each for each in self.unsent if each not in fresh]

    async def report(self, batch: list[UsageDelta]) -> None:
        """Record usage; the books of the oracle follow what was acknowledged."""
        kept = {customer: await self.ledger.periods(customer) for customer in CUSTOMERS}
        recorded = await self.ledger.record(batch, self.prices)
        for delta, answer in zip(batch, recorded, strict=True):
            self.oracle.must(
                answer.outcome in (DeltaOutcome.ACCEPTED, DeltaOutcome.DUPLICATE),
                f"{delta.id}: {answer.outcome}",
            )
            if answer.period is not None and answer.period not in kept[delta.customer]:
                self.oracle.began(answer.period)
            if delta not in self.sent:
                self.sent.append(delta)
                self.oracle.used(delta)
            self.counts["deltas" if answer.outcome is DeltaOutcome.ACCEPTED else "repeats"] += 1

    async def _dispatch(self) -> None:
        for shard in SHARDS:
            for customer, period in await self.ledger.claim(shard, 3, 30_000):
                if len(self.workers) < 4:
                    worker = Worker(self, customer, period)
                    await worker.settle()
                    self.workers.append(worker)

    async def _cron(self) -> None:
        self.counts["periods cut"] += await close_ended(
            self.ledger, SHARDS, now_ms=self.now, settle_ms=SETTLE_MS
        )

    # Peace

    async def _begin(self) -> None:
        await self.redis.flushdb()
        for shard, value in self._epochs.items():
            await self.redis.restore(keys.epoch(shard), 0, value)
        for customer in CUSTOMERS:
            await self.ledger.register(customer, "usd")

    async def _heal(self) -> None:
        """No more accidents: everything has to come to rest, and every unit has to be billed once."""
        self.healed = True
        self.workers = []
        await self._pass(2 * HOUR_MS)
        await self._drain("when the last late request has arrived")
        await self._pass(max(0, int(START.timestamp() * 1000) + SPREAD_S * 1000 - self.now))
        await self.report(self.unsent)
        await self._drain("after the trouble")
        period = Period(2026, 10)
        while period <= await self._last_period():
            end = int(period.end.timestamp() * 1000) + 2 * HOUR_MS
            await self._pass(max(0, end - self.now))
            await self._drain(f"after {period}")
            period = period.next()
        await self.oracle.settle()

    async def _last_period(self) -> Period:
        """Whoever finalizes one draft after the other by hand moves usage ahead, month by month."""
        return max([each for customer in CUSTOMERS for each in await self.ledger.periods(customer)])

    async def _drain(self, when: str) -> None:
        for _ in range(60):
            await self._cron()
            for customer in CUSTOMERS:
                await self.ledger.release_hold(customer)
            for shard in SHARDS:
                for customer, period in await self.ledger.claim(shard, 100, 30_000):
                    worker = Worker(self, customer, period)
                    await worker.run()
                    await self._ask_a_person(customer, period, worker.result)
            if not await self._due():
                await self.oracle.at_rest()
                return
            await self._pass(12 * MINUTE_MS)
        self.oracle.must(False, f"still due {when}: {await self._due()}")

    async def _ask_a_person(self, customer: CustomerId, period: Period, result: Ending) -> None:
        """What is parked waits for somebody to make room or to move their lines."""
        if result.failure is None:
            return
        self.counts[f"parked: {result.failure.code}"] += 1
        if result.failure.code in ("two_drafts", "no_room"):
            for invoice in self.stripe.invoices.values():
                if invoice["customer"] == customer and invoice["status"] == "draft":
                    self.oracle.somebody_deleted(invoice["id"])
                    invoice["lines"] = [each for each in invoice["lines"] if each["metadata"]]
        await self.ledger.wake(customer, period)

    async def _due(self) -> list[bytes]:
        return [
            each for shard in SHARDS for each in await self.redis.zrange(keys.due(shard), 0, -1)
        ]

    def moment(self) -> datetime:
        """What time it is."""
        return datetime.fromtimestamp(self.now / 1000, UTC)

    def nonce(self) -> str:
        """As random as a seed allows, and never the same again, also after a rewind."""
        return f"{self._nonces.getrandbits(64):016x}"
