"""Execution plans: what the executor learns about an operation, computed once per document, not per request."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graphql import DirectiveNode, DocumentNode, GraphQLField, VariableNode, Visitor, visit
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList, GroupedFieldSet

from gateway.graphql.execution.simple_fields import SelectedField

MAX_PLANS = 16


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
    """The plans of an operation, one for each combination of values of its *condition_variables*."""

    def __init__(self, condition_variables: Collection[str]) -> None:
        self._condition_variables = tuple(condition_variables)
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


def condition_variables(document: DocumentNode) -> Collection[str]:
    """Return the variables in directives (`@skip`, `@include`), which decide what is left out of *document*."""
    collector = _DirectiveVariables()
    visit(document, collector)
    return collector.names


class _DirectiveVariables(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_directive(self, node: DirectiveNode, *_: Any) -> None:
        values = [argument.value for argument in node.arguments or ()]
        self.names |= {value.name.value for value in values if isinstance(value, VariableNode)}
