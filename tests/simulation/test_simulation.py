"""A few hundred random schedules and all directed ones; ``make simulate`` runs thousands."""

import pytest

from tests.simulation.directed import DIRECTED, play
from tests.simulation.mutation import Mutation
from tests.simulation.mutations import MUTATIONS, schedules_until_noticed
from tests.simulation.oracle import Violation
from tests.simulation.run import MODES, Figures, open_simulation
from tests.simulation.year.kinds import KINDS as YEAR_KINDS
from tests.simulation.year.kinds import Kind

SCHEDULES, YEAR_SCHEDULES = 24, 2
FIRST_SEED = 20_261_122 // len(MODES) * len(MODES)

# Noticed within a few schedules; the others take hundreds (docs/proof.md has the figures).
QUICK = {
    "an id counts once",
    "counting marks as due in the same step",
    "clean means: the version that was told is the one recorded",
    "a request keeps its key",
    "no key is sent after 20 hours",
    "an error that is replayed is final",
    "a period is sealed by what its invoice says",
    "A2: a ledger that has lost usage gives nothing back by itself",
    "A7: the ledger's own clock must agree that a month is over",
    "B1: an archived price is read by its id",
    "C1: the words of a credit change with it",
    "F3: a price of an archived product is not sold",
}


@pytest.mark.parametrize("mode", range(len(MODES)), ids=map(str, MODES))
async def test_failures_never_lose_or_duplicate_usage(mode: int) -> None:
    """Workers die, requests are lost, duplicated and late, people edit, Redis is restored: invoices are exact."""
    figures = Figures()
    async with open_simulation() as simulation:
        for n in range(SCHEDULES):
            await simulation.schedule(FIRST_SEED + n * len(MODES) + mode, figures, MODES[mode])

    assert figures.failures == {}
    assert figures.schedules == SCHEDULES
    assert figures.counts["worker deaths"] > 0


@pytest.mark.parametrize("kind", YEAR_KINDS, ids=str)
async def test_a_year_of_trouble_ends_with_exact_bills(kind: Kind) -> None:
    """Prices change, customers go, the ledger is lost, people and Support act on anything of any age."""
    figures = Figures()
    async with open_simulation() as simulation:
        for seed in range(YEAR_SCHEDULES):
            await simulation.schedule(seed, figures, kind)

    assert figures.failures == {}
    assert figures.counts["deltas accepted"] > 0


@pytest.mark.parametrize(
    "mutation", [mutation for mutation in MUTATIONS if mutation.name in QUICK], ids=str
)
async def test_missing_protection_is_noticed(mutation: Mutation) -> None:
    """Otherwise the simulation would prove nothing."""
    async with open_simulation() as simulation:
        assert await schedules_until_noticed(simulation, mutation, 60) is not None


@pytest.mark.parametrize("protection", DIRECTED)
async def test_directed_schedule_passes(protection: str) -> None:
    """With all protections on."""
    async with open_simulation() as simulation:
        await play(simulation, protection)


@pytest.mark.parametrize(
    "mutation", [mutation for mutation in MUTATIONS if mutation.name in DIRECTED], ids=str
)
async def test_directed_schedule_fails_without_its_protection(mutation: Mutation) -> None:
    """Random schedules need hundreds to notice these, or never do, because another protection covers them."""
    async with open_simulation() as simulation:
        with mutation.off(), pytest.raises(Violation):
            await play(simulation, mutation.name)


async def test_seed_determines_the_schedule() -> None:
    """The same seed runs the same schedule, so that a failure can be debugged."""
    runs = [Figures(), Figures()]
    async with open_simulation() as simulation:
        for figures in runs:
            for seed in range(len(MODES)):
                await simulation.schedule(seed, figures)

    assert runs[0].counts == runs[1].counts
