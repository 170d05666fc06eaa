"""Execution plans: what the executor learns about an operation, computed once and not per request."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cachetools import LRUCache
from graphql import (
    DirectiveNode,
    FragmentDefinitionNode,
    GraphQLField,
    OperationDefinitionNode,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList, GroupedFieldSet

from gateway.graphql.execution.simple_fields import SelectedField

MAX_OPERATIONS = 256
MAX_PLANS = 16  # of one operation


@dataclass(frozen=True, slots=True)
class SelectionPlan:
    """The fields selected of an object: all of them, the *simple* ones, and those that need *full* execution."""

    selection: GroupedFieldSet
    simple: Sequence[SelectedField]
    full: GroupedFieldSet


class ConstantCall(NamedTuple):
    """An asynchronous *field* whose *arguments* contain no variable, so that they are coerced once."""

    field: GraphQLField
    arguments: Mapping[str, Any]


@dataclass(slots=True)
class ExecutionPlan:
    """The plan of one operation; its entries are keyed by type name and by the identity of a selection.

    The selection is stored with its entry, so that no other object can get the same identity.
    """

    root: GroupedFieldSet | None = None
    collected: dict[tuple[str, int], tuple[FieldDetailsList, CollectedFields]] = field(
        default_factory=dict
    )
    selections: dict[tuple[str, int], SelectionPlan] = field(default_factory=dict)
    calls: dict[tuple[str, int], ConstantCall | None] = field(default_factory=dict)


class OperationPlans:
    """The plans of *operation*, one for each combination of values of its condition variables.

    Those are the variables in directives (`@skip`, `@include`), which decide what is left out.
    """

    def __init__(
        self, operation: OperationDefinitionNode, fragments: Iterable[FragmentDefinitionNode]
    ) -> None:
        self.operation = operation
        collector = _DirectiveVariables()
        for node in (operation, *fragments):
            visit(node, collector)
        self._condition_variables = tuple(collector.names)
        self._plans: dict[tuple[bool | None, ...], ExecutionPlan] = {}

    def for_variables(self, variables: Mapping[str, Any]) -> ExecutionPlan:
        """Return the plan for these values; beyond `MAX_PLANS`, a new one that is not stored."""
        conditions = tuple(variables.get(name) for name in self._condition_variables)
        plan = self._plans.get(conditions)
        if plan is None:
            plan = ExecutionPlan()
            if len(self._plans) < MAX_PLANS:
                self._plans[conditions] = plan
        return plan


class PlanCache:
    """The plans of the last used operations, by the identity of the operation, which each entry stores."""

    def __init__(self) -> None:
        self._plans: LRUCache[int, OperationPlans] = LRUCache(MAX_OPERATIONS)

    def plans_of(
        self, operation: OperationDefinitionNode, fragments: Iterable[FragmentDefinitionNode]
    ) -> OperationPlans:
        """Return the plans of *operation*, whose document has these *fragments*."""
        plans = self._plans.get(id(operation))
        if plans is None:
            plans = self._plans[id(operation)] = OperationPlans(operation, fragments)
        return plans


class _DirectiveVariables(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_directive(self, node: DirectiveNode, *_: Any) -> None:
        values = [argument.value for argument in node.arguments or ()]
        self.names |= {value.name.value for value in values if isinstance(value, VariableNode)}
