"""What an operation costs before it runs: an object is 1 (the root, too), a scalar nothing, a mutation 10 more.

A list multiplies the price of its items by its length: the ``first`` or ``last`` asked for (on the
connection around ``edges`` and ``nodes``), ``months``, the number of ``ids``, else ten. Introspection
has a price of its own. A document is priced once; each request's variables are filled in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLCompositeType,
    GraphQLField,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    value_from_ast_untyped,
)

from gateway.graphql.errors import request_error

MUTATION = 10
INTROSPECTION = 50
UNSIZED = 10
SIZED_BY = ("first", "last", "months", "ids")  # a later one that is given counts


@dataclass(frozen=True, slots=True)
class Size:
    """How long a list gets: what *variable* says, or else *value*; null is for *otherwise* to say."""

    value: Any = UNSIZED
    variable: str | None = None
    otherwise: "Size | None" = None

    def of(self, variables: Mapping[str, Any], page: int) -> int:
        """The length under *variables*; QUERY_TOO_COMPLEX when it is more than *page*."""
        given = variables.get(self.variable, self.value) if self.variable else self.value
        length = len(given) if isinstance(given, list) else given
        if not isinstance(length, (int, float)):  # null is the resolver's to fill in
            return self.otherwise.of(variables, page) if self.otherwise else UNSIZED
        if length > page:
            raise request_error("QUERY_TOO_COMPLEX", f"Ask for at most {page} items at a time.")
        return max(int(length), 0)


@dataclass(frozen=True, slots=True)
class Price:
    """*fixed*, plus each list's length times the price of one of its items."""

    fixed: int = 0
    lists: tuple[tuple[Size, "Price"], ...] = ()

    def of(self, variables: Mapping[str, Any], page: int) -> int:
        """The cost of one request."""
        return self.fixed + sum(
            size.of(variables, page) * item.of(variables, page) for size, item in self.lists
        )

    def __add__(self, other: "Price") -> "Price":
        return Price(self.fixed + other.fixed, self.lists + other.lists)


def price_of(
    operation: OperationDefinitionNode,
    fragments: Mapping[str, FragmentDefinitionNode],
    schema: GraphQLSchema,
) -> Price:
    """What a valid *operation* costs; `limits` has bounded its size with *fragments* expanded."""
    defaults = {
        each.variable.name.value: value_from_ast_untyped(each.default_value)
        for each in operation.variable_definitions or ()
        if each.default_value
    }
    root = cast("GraphQLCompositeType", schema.get_root_type(operation.operation))
    pricing = _Pricing(schema, fragments, defaults)
    price = Price(1) + pricing.selections(operation.selection_set, root, Size())
    if operation.operation is OperationType.MUTATION:
        price += Price(MUTATION * len(operation.selection_set.selections))
    return price


@dataclass(frozen=True, slots=True)
class _Pricing:
    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    defaults: Mapping[str, Any]

    def selections(
        self, chosen: SelectionSetNode | None, parent: GraphQLCompositeType, page: Size
    ) -> Price:
        """The price of what is *chosen* on *parent*; a list there that says no size is *page* long."""
        nodes = chosen.selections if chosen else ()
        return sum((self._selection(node, parent, page) for node in nodes), Price())

    def _selection(self, node: SelectionNode, parent: GraphQLCompositeType, page: Size) -> Price:
        if isinstance(node, FieldNode):
            return self._field(node, parent, page)
        if isinstance(node, FragmentSpreadNode):
            fragment: FragmentDefinitionNode | InlineFragmentNode = self.fragments[node.name.value]
        else:
            fragment = cast("InlineFragmentNode", node)
        if fragment.type_condition:
            named = self.schema.get_type(fragment.type_condition.name.value)
            parent = cast("GraphQLCompositeType", named)
        return self.selections(fragment.selection_set, parent, page)

    def _field(self, node: FieldNode, parent: GraphQLCompositeType, page: Size) -> Price:
        name = node.name.value
        if name.startswith("__"):
            return Price(0 if name == "__typename" else INTROSPECTION)
        definition = cast("GraphQLField", self.schema.get_field(parent, name))
        named = get_named_type(definition.type)
        if is_leaf_type(named):
            return Price()
        size = self._size(node, definition)
        of_type = cast("GraphQLCompositeType", named)
        if is_list_type(get_nullable_type(definition.type)):
            item = Price(1) + self.selections(node.selection_set, of_type, Size())
            return Price(0, ((size or page, item),))
        return Price(1) + self.selections(node.selection_set, of_type, size or Size())

    def _size(self, node: FieldNode, definition: GraphQLField) -> Size | None:
        """The length that the field's arguments ask for; None when none of them is about length."""
        size: Size | None = None
        for name in SIZED_BY:
            argument = definition.args.get(name)
            if argument is None:
                continue
            given = next(
                (each.value for each in node.arguments or () if each.name.value == name), None
            )
            if isinstance(given, VariableNode):
                variable = given.name.value
                size = Size(self.defaults.get(variable, argument.default_value), variable, size)
            elif given is not None:
                size = Size(value_from_ast_untyped(given), otherwise=size)
            elif isinstance(argument.default_value, int):
                size = Size(argument.default_value, otherwise=size)
        return size
