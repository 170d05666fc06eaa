"""Static query cost: an object costs 1 (the root as well), a scalar 0, a mutation field 10 more.

A list multiplies the cost of its items by its size: the value of ``first`` or ``last`` (on the
connection around ``edges`` and ``nodes``), of ``months``, the number of ``ids``, else ten. An answer that has more
than that is charged for more. Objects of the schema itself are counted one by one (`introspection`).
The cost of a document is analysed once and evaluated with each request's variables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLCompositeType,
    GraphQLField,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    value_from_ast_untyped,
)

from gateway.graphql.admission.lookups import Lookups
from gateway.graphql.errors import request_error

MUTATION_COST = 10
DEFAULT_LIST_SIZE = 10
SIZE_ARGUMENTS = ("first", "last", "months", "ids")  # of several, the last one given decides


@dataclass(frozen=True, slots=True)
class ListSize:
    """The size of a list: the value of *variable*, or else *value*; when that is null, *fallback*."""

    value: Any = DEFAULT_LIST_SIZE
    variable: str | None = None
    fallback: "ListSize | None" = None

    def evaluate(self, variables: Mapping[str, Any], page_size: int) -> int:
        """Return the size under *variables*; QUERY_TOO_COMPLEX when it exceeds *page_size*."""
        value = variables.get(self.variable, self.value) if self.variable else self.value
        size = len(value) if isinstance(value, list) else value
        if not isinstance(size, (int, float)):  # the resolver replaces null by its default
            return (
                self.fallback.evaluate(variables, page_size) if self.fallback else DEFAULT_LIST_SIZE
            )
        if size > page_size:
            raise request_error(
                "QUERY_TOO_COMPLEX", f"Ask for at most {page_size} items at a time."
            )
        return max(int(size), 0)


class AnswerSize(NamedTuple):
    """The number of *objects* in an answer, which are its cost, and of scalar *values*."""

    objects: int
    values: int


@dataclass(frozen=True, slots=True)
class QueryCost:
    """A *fixed* cost and number of *values*, plus the size of each list times those of one of its items."""

    fixed: int = 0
    lists: tuple[tuple[ListSize, "QueryCost"], ...] = ()
    values: int = 0

    def evaluate(self, variables: Mapping[str, Any], page_size: int) -> AnswerSize:
        """Return the size of the answer to one request."""
        objects, values = self.fixed, self.values
        for size, item in self.lists:
            number = size.evaluate(variables, page_size)
            of_item = item.evaluate(variables, page_size)
            objects += number * of_item.objects
            values += number * of_item.values
        return AnswerSize(objects, values)

    def __add__(self, other: "QueryCost") -> "QueryCost":
        return QueryCost(
            self.fixed + other.fixed, self.lists + other.lists, self.values + other.values
        )


def analyze_cost(
    operation: OperationDefinitionNode,
    fragments: Mapping[str, FragmentDefinitionNode],
    schema: GraphQLSchema,
) -> tuple[QueryCost, Lookups]:
    """Return the cost and the lookups of a valid *operation*, without what it reads of the schema itself.

    `limits` has bounded its size with *fragments* expanded.
    """
    defaults = {
        definition.variable.name.value: value_from_ast_untyped(definition.default_value)
        for definition in operation.variable_definitions or ()
        if definition.default_value
    }
    root = cast("GraphQLCompositeType", schema.get_root_type(operation.operation))
    analysis = _CostAnalysis(schema, fragments, Lookups(defaults))
    cost = QueryCost(1) + analysis.selection_set(operation.selection_set, root, ListSize())
    return cost, analysis.lookups


@dataclass(frozen=True, slots=True)
class _CostAnalysis:
    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    lookups: Lookups

    def selection_set(
        self, selected: SelectionSetNode | None, parent: GraphQLCompositeType, page: ListSize
    ) -> QueryCost:
        """Return the cost of *selected* on *parent*; lists in it without a size of their own have *page*'s."""
        nodes = selected.selections if selected else ()
        return sum((self._selection(node, parent, page) for node in nodes), QueryCost())

    def _selection(
        self, node: SelectionNode, parent: GraphQLCompositeType, page: ListSize
    ) -> QueryCost:
        if isinstance(node, FieldNode):
            return self._field(node, parent, page)
        if isinstance(node, FragmentSpreadNode):
            fragment: FragmentDefinitionNode | InlineFragmentNode = self.fragments[node.name.value]
        else:
            fragment = cast("InlineFragmentNode", node)
        if fragment.type_condition:
            named = self.schema.get_type(fragment.type_condition.name.value)
            parent = cast("GraphQLCompositeType", named)
        return self.selection_set(fragment.selection_set, parent, page)

    def _field(self, node: FieldNode, parent: GraphQLCompositeType, page: ListSize) -> QueryCost:
        if node.name.value.startswith("__"):
            return QueryCost(values=1)
        definition = cast("GraphQLField", self.schema.get_field(parent, node.name.value))
        self.lookups.add(node, definition)
        cost = self._answer(node, definition, page)
        return cost + QueryCost(MUTATION_COST) if parent is self.schema.mutation_type else cost

    def _answer(self, node: FieldNode, definition: GraphQLField, page: ListSize) -> QueryCost:
        named = get_named_type(definition.type)
        if is_leaf_type(named):
            return QueryCost(values=1)
        size = self._list_size(node, definition)
        of_type = cast("GraphQLCompositeType", named)
        if is_list_type(get_nullable_type(definition.type)):
            item = QueryCost(1) + self.selection_set(node.selection_set, of_type, ListSize())
            return QueryCost(0, ((size or page, item),))
        return QueryCost(1) + self.selection_set(node.selection_set, of_type, size or ListSize())

    def _list_size(self, node: FieldNode, definition: GraphQLField) -> ListSize | None:
        """Return the size that the field's arguments set; None when none of them sets one."""
        size: ListSize | None = None
        for name in SIZE_ARGUMENTS:
            argument = definition.args.get(name)
            if argument is None:
                continue
            value = next(
                (arg.value for arg in node.arguments or () if arg.name.value == name), None
            )
            if isinstance(value, VariableNode):
                variable = value.name.value
                default = self.lookups.defaults.get(variable, argument.default_value)
                size = ListSize(default, variable, size)
            elif value is not None:
                size = ListSize(value_from_ast_untyped(value), fallback=size)
            elif isinstance(argument.default_value, int):
                size = ListSize(argument.default_value, fallback=size)
        return size
