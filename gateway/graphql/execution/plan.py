"""What was found out about an operation, kept as long as its document: it is worked out once, not for each request."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graphql import DirectiveNode, DocumentNode, GraphQLField, VariableNode, Visitor, visit
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList, GroupedFieldSet

from gateway.graphql.execution.simple_fields import Step

MOST_PLANS = 16


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was *chosen* of an object: *steps* to its plain fields, and *others* to execute."""

    chosen: GroupedFieldSet
    steps: Sequence[Step]
    others: GroupedFieldSet


class Call(NamedTuple):
    """An asynchronous *field* that was asked for with the same *arguments* each time: no variable is among them."""

    field: GraphQLField
    arguments: Mapping[str, Any]


@dataclass(slots=True)
class Plan:
    """What was found out about one operation, by type and by the identity of what was chosen of it.

    What an identity stands for is kept with it, so that nothing else can come to have the same.
    """

    root: GroupedFieldSet | None = None
    collected: dict[tuple[str, int], tuple[FieldDetailsList, CollectedFields]] = field(
        default_factory=dict
    )
    chosen: dict[tuple[str, int], Chosen] = field(default_factory=dict)
    calls: dict[tuple[str, int], Call | None] = field(default_factory=dict)


class Plans:
    """An operation's plans: one for each way in which its *deciding* variables may stand.

    Those are what `@skip` and `@include` look at: true, false, or not there.
    """

    def __init__(self, deciding: Collection[str]) -> None:
        self._deciding = tuple(deciding)
        self._plans: dict[tuple[bool | None, ...], Plan] = {}

    def under(self, variables: Mapping[str, Any]) -> Plan:
        """The plan for these values; one too many is made for this time only."""
        standing = tuple(variables.get(name) for name in self._deciding)
        plan = self._plans.get(standing)
        if plan is None:
            plan = Plan()
            if len(self._plans) < MOST_PLANS:
                self._plans[standing] = plan
        return plan


def deciding_variables(document: DocumentNode) -> Collection[str]:
    """The variables on which it depends what of *document* is left out."""
    found = _Deciding()
    visit(document, found)
    return found.names


class _Deciding(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_directive(self, node: DirectiveNode, *_: Any) -> None:
        values = [each.value for each in node.arguments or ()]
        self.names |= {each.name.value for each in values if isinstance(each, VariableNode)}
