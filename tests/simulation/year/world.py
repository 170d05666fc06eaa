"""One schedule of up to a year: who acts next, what time it is, and what fails, all determined by one seed."""

from collections import Counter, deque
from datetime import UTC, datetime
from random import Random
from typing import Any

from redis.asyncio import Redis

from billing.invoicing.flush_schedule import FlushSchedule
from billing.invoicing.request_batch import StripeRequest
from billing.ledger import Ledger, LedgerPolicy, keys
from billing.usage import CustomerId, Period
from tests.simulation.wire import HOUR_MS, Fault
from tests.simulation.workers import Worker
from tests.simulation.world import MINUTE_MS, QUIET_MS, SETTLE_MS, START
from tests.simulation.year.account import Account
from tests.simulation.year.books import Books
from tests.simulation.year.crew import Crew
from tests.simulation.year.crons import Crons
from tests.simulation.year.dashboard import Dashboard
from tests.simulation.year.kinds import YEAR_MS, Kind
from tests.simulation.year.machine import LedgerServer, Loss
from tests.simulation.year.operator import Operator
from tests.simulation.year.oracle import YearOracle
from tests.simulation.year.producers import Memory, Producers
from tests.simulation.year.rest import rest
from tests.simulation.year.services import year_services
from tests.simulation.year.support import Support
from workers.flush.policy import FlushPolicy
from workers.poll_events import poll_events

HOMES = {CustomerId("cus_a"): "usd", CustomerId("cus_b"): "eur", CustomerId("cus_c"): "usd"}
SHARDS = tuple(sorted({keys.shard_of(customer) for customer in HOMES}))
MAX_LOSSES = 3
CRON_DEEDS = ("run_jobs", "deliver", "process")
SUPPORT_DEEDS = {"adjust", "finalize", "retry"}


class YearWorld:
    """One schedule. ``await run()`` raises Violation as soon as something is wrong; *trace* says what happened."""

    def __init__(self, seed: int, kind: Kind, redis: Redis, epochs: dict[int, bytes]) -> None:
        self.seed, self.rng = seed, Random(seed)
        rng = self.rng
        self._nonces = Random(~seed)
        self.kind, self.redis, self._epochs = kind, redis, epochs
        self.now = int(START.timestamp() * 1000) + rng.randrange(60 * 24) * HOUR_MS
        self.customers, self.home = list(HOMES), dict(HOMES)
        self.own_currency = dict(list(HOMES.items())[:-1])  # at Stripe; the last was never billed
        interval = rng.choice([MINUTE_MS, 6 * HOUR_MS, 12 * HOUR_MS])
        policy = LedgerPolicy(
            flush_interval_ms=interval, settle_ms=SETTLE_MS, quiet_ms=QUIET_MS, sync_history=30
        )
        delay = rng.choice([FlushSchedule(), FlushSchedule(12 * HOUR_MS, 1000, HOUR_MS, 0.2)])
        self.flush_policy = FlushPolicy(quiet_ms=QUIET_MS, schedule=delay)
        self.ledger = Ledger(redis, policy=policy, nonce=self.nonce, clock=lambda: self.now)
        self.stripe = Account(rng, lambda: self.now, rng.choice([2, 100]))
        self.counts: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=400)
        self.losses = 0
        self.oracle = YearOracle(self)
        self.books = Books(lambda: self.now, self.oracle.check_counted)
        self.services = year_services(self, redis)
        self.price_catalog = self.services.price_catalog
        self.producers = Producers(self, rng.choice(list(Memory)))
        self.dashboard, self.support = Dashboard(self), Support(self)
        self.operator, self.server = Operator(self), LedgerServer(self, redis, SHARDS)
        self.span_ms = rng.choice(kind.spans_ms)
        self.haste = (
            0.1 * self.span_ms / YEAR_MS
        )  # a year takes more leaps, not as many more events
        self.fault_rate = rng.choice([0.05, 0.2, 0.4])
        self.refusals = rng.random() < 0.3  # with repetitions that are refused a draft may be wrong
        self.recovering = False
        self.crons, self.crew = Crons(self, SHARDS), Crew(self, SHARDS)

    # What workers ask

    def next_fault(self) -> Fault | None:
        """Return the fault of the next write."""
        if self.recovering or self.rng.random() >= self.fault_rate:
            return None
        out = {Fault.READ_FAILED} if self.refusals else {Fault.READ_FAILED, Fault.REFUSED}
        return self.rng.choice([fault for fault in Fault if fault not in out])

    def next_read_fails(self) -> bool:
        """Return True if the next read fails."""
        return not self.recovering and self.rng.random() < self.fault_rate / 8

    async def check_write(self, request: StripeRequest, worker: Worker) -> None:
        """Check right after a write of *worker*."""
        zombie = "" if worker.began_after == self.counts["rewinds"] else " (zombie)"
        target = [*request.path.split("/"), ""][3]
        self.note(f"{worker.customer}: {request.kind} {target} {_quantities(request)}{zombie}")
        await self.oracle.check_write(request, worker)

    # The schedule

    async def run(self) -> None:
        """Run the whole schedule."""
        await self.begin()
        await self.play()
        try:
            await rest(self)
        finally:
            await self.crew.stop()

    async def begin(self) -> None:
        """Begin with an empty ledger, and an account with customers and prices."""
        await self.redis.flushdb()
        await self.redis.set(keys.shards(), keys.SHARDS)
        for shard, value in self._epochs.items():
            await self.redis.restore(keys.epoch(shard), 0, value)
        self.stripe.catalog.fill(self.rng)
        for customer in self.customers:
            self.stripe.add_customer(customer, self.own_currency.get(customer))
        for shard in set(range(keys.SHARDS)) - set(SHARDS):
            await self.ledger.periods.record_reconciled(shard, 1 << 50)
        self.recovering = True
        await poll_events(self.services)
        self.recovering = False

    async def play(self) -> None:
        """Play the schedule with all its troubles; `rest` ends it."""
        try:
            if "correct_currency" in self.kind.deeds and self.rng.random() < 0.5:
                await self.operator.correct_currency(self.customers[-1])
            end = self.now + self.span_ms
            while self.now < end:
                await self._random_event()
        finally:
            await self.crew.stop()

    async def _random_event(self) -> None:
        chance = self.rng.random()
        if self.crew.running and chance < 0.45:
            await self.crew.run(self.rng.choice(self.crew.running), self.rng.choice([1, 2, 4, 12]))
        elif chance < 0.6:
            await self.producers.report()
        elif chance < 0.7:
            await self.crew.dispatch(hidden_ms=30_000)
        elif chance < 0.76:
            await self.advance(self.rng.choice([5_000, 5_000, 70_000, 20 * MINUTE_MS]))
        elif chance < 0.8 + self.haste:
            await self._leap()
        else:
            await self._intervene()

    async def _intervene(self) -> None:
        deeds = {**self.kind.deeds, **dict.fromkeys(CRON_DEEDS, 2)}
        [deed] = self.rng.choices(list(deeds), list(deeds.values()))
        if deed == "support":
            await self.support.act()
        elif deed in SUPPORT_DEEDS:
            await getattr(self.support, deed)()
        elif deed == "lose_ledger":
            await self._lose_ledger()
        elif deed == "correct_currency":
            await self.operator.correct_currency(self.customers[-1])
        elif deed in CRON_DEEDS:
            await getattr(self.crons, deed)()
        else:
            getattr(self.dashboard, deed)()
            await self.advance(2_000)  # the price catalog is as old as a second
        self.oracle.check_lines()

    async def _lose_ledger(self) -> None:
        if self.server.is_elsewhere:
            await self.server.come_back()
        elif self.losses < MAX_LOSSES:
            await self.server.lose(self.rng.choice(list(Loss)))
        if self.rng.random() < 0.7:
            await self.producers.replay()

    def begin_loss(self) -> None:
        """Note that the ledger has other data from now on."""
        self.losses += 1
        self.producers.lost_at_ms = self.now
        self.oracle.begin_loss()

    async def _leap(self) -> None:
        """Let days pass; in between things are as on any day, and at the end of a month everything is due."""
        rest = int(self.rng.expovariate(12 / self.span_ms)) % (20 * 24 * HOUR_MS)
        until = self.now + rest
        while self.now < until:
            month_end = int(self.current_month().end.timestamp() * 1000) + HOUR_MS + 2 * MINUTE_MS
            await self.advance(min(until, max(month_end, self.now + 1)) - self.now)
            await self.tick()

    async def tick(self) -> None:
        """Run crons, deliver what waits, and flush what is due; some of it is left under way."""
        await self.server.back_up()
        await self.producers.replay()
        for _ in range(self.rng.choice([1, 2, 3])):
            await self.crons.run_jobs()
            await self.crons.deliver()
            await self.crons.process()
            await self.crew.dispatch(hidden_ms=30_000)
            for worker in list(self.crew.running):
                if self.recovering or self.rng.random() < 0.8:
                    await self.crew.run(worker, 10_000)
            await self.advance(self.rng.choice([MINUTE_MS, 12 * MINUTE_MS, 70 * MINUTE_MS]))
        await self.oracle.losses.look()

    async def advance(self, ms: int) -> None:
        """Let time pass; late requests arrive and Stripe's own timers run on the way."""
        until = self.now + ms
        await self.server.pass_time(ms)
        while (arrival := self.stripe.next_arrival()) is not None and arrival <= until:
            self.now = max(self.now, arrival)
            self.stripe.deliver_late()
            self.oracle.check_lines()
        self.now = until
        for invoice in self.stripe.run_timers():
            self.oracle.record_edit(self.stripe.invoices[invoice])

    # Time

    def current_time(self) -> datetime:
        """Return the current time."""
        return datetime.fromtimestamp(self.now / 1000, UTC)

    def current_month(self) -> Period:
        """Return the current month."""
        return Period.containing(self.current_time())

    def nonce(self) -> str:
        """Return a nonce that the seed determines and that never repeats."""
        return f"{self._nonces.getrandbits(64):016x}"

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.current_time():%Y-%m-%d %H:%M:%S} {what}")

    async def due(self) -> list[Any]:
        """Return what is due at any time."""
        return [
            member for shard in SHARDS for member in await self.redis.zrange(keys.due(shard), 0, -1)
        ]


def _quantities(request: StripeRequest) -> str:
    """The lines of a request, for the trace: key=quantity (or amount)."""
    lines = [line for line in request.params.get("lines", ()) if "metadata" in line]
    named = {line["metadata"]["gw_line"]: line["metadata"]["gw_quantity"] for line in lines}
    return " ".join(f"{key}={quantity}" for key, quantity in named.items())
