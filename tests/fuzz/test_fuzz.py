"""The plan executor answers as graphql-core's own does, and the comparison would notice if it did not.

``python -m tests.fuzz --schemas 300`` compares as many as wanted.
"""

from collections.abc import Callable

import pytest

from gateway.graphql.execution import executor
from gateway.graphql.execution.plan import OperationPlans
from tests.fuzz.comparison import Figures, compare_schema

DOCUMENTS = 8
# Nulls propagate past fields that have begun, and their coroutines are dropped by either executor.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.mark.parametrize("seed", range(1, 6))
async def test_random_operations_are_executed_as_by_graphql_core(seed: int) -> None:
    """Data, order of keys, messages, paths, locations and order of errors, for queries, mutations and subscriptions."""
    figures = Figures()
    await compare_schema(seed, DOCUMENTS, figures)

    assert figures.differences == []
    assert figures.counts["documents"] == DOCUMENTS


def _null_where_none_may_be(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(executor, "complete_non_null", lambda complete: complete)


def _plans_blind_to_variables(patch: pytest.MonkeyPatch) -> None:
    known = OperationPlans.for_variables
    patch.setattr(OperationPlans, "for_variables", lambda self, _: known(self, {}))


def _keys_in_another_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(executor, "_merge", lambda _, read, executed: {**read, **executed})


def _lists_of_any_kind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        executor,
        "complete_list",
        lambda complete: (
            lambda value: None if value is None else [complete(item) for item in value]
        ),
    )


def _arguments_of_the_first_call(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(executor, "VARIABLE_NODES", ())


@pytest.mark.parametrize(
    ("plant", "seed"),
    [
        (_null_where_none_may_be, 5),
        (_plans_blind_to_variables, 1),
        (_keys_in_another_order, 1),
        (_lists_of_any_kind, 26),
        (_arguments_of_the_first_call, 3),
    ],
)
async def test_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None], seed: int
) -> None:
    """In a single schema."""
    plant(monkeypatch)
    figures = Figures()
    await compare_schema(seed, DOCUMENTS, figures)

    assert figures.differences
