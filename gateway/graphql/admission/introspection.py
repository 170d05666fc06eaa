"""The size of an answer about the schema: counted before it is made, because the schema is known."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
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
    SelectionSetNode,
    VariableNode,
    get_named_type,
    is_leaf_type,
    value_from_ast_untyped,
)

from gateway.graphql.admission.limits import Limits
from gateway.graphql.errors import request_error

META_FIELDS = frozenset({"__schema", "__type"})


@dataclass(slots=True)
class IntrospectionCount:
    """Counts what an operation reads of *schema*; QUERY_TOO_COMPLEX when it is more than *limits* allow."""

    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    limits: Limits
    objects: int = 0
    values: int = 0

    def count(self, operation: OperationDefinitionNode) -> bool:
        """Count those of *operation*; return True if it reads nothing but the schema."""
        root = cast("GraphQLCompositeType", self.schema.get_root_type(operation.operation))
        nodes = list(self._fields(operation.selection_set))
        for node in nodes:
            if node.name.value in META_FIELDS:
                self._field(node, root, None)
        return all(node.name.value.startswith("__") for node in nodes)

    def _field(self, node: FieldNode, parent: GraphQLCompositeType, source: object) -> None:
        definition = cast("GraphQLField", self.schema.get_field(parent, node.name.value))
        type_ = get_named_type(definition.type)
        if is_leaf_type(type_):
            return
        value = self._resolve(node, definition, source)
        children = list(self._fields(node.selection_set))
        for item in value if isinstance(value, Iterable) else [value]:
            if item is not None:
                self.objects += 1
                self.values += len(children)
                self._check()
                for child in children:
                    self._field(child, cast("GraphQLCompositeType", type_), item)

    def _check(self) -> None:
        if self.objects > self.limits.cost or self.values > self.limits.values:
            raise request_error(
                "QUERY_TOO_COMPLEX", "This reads too much of the schema; ask for less at a time."
            )

    def _resolve(self, node: FieldNode, definition: GraphQLField, source: object) -> Any:
        arguments: dict[str, Any] = {
            argument.name.value: value_from_ast_untyped(argument.value)
            for argument in node.arguments or ()
            if not isinstance(argument.value, VariableNode)
        }
        if "includeDeprecated" in definition.args:
            arguments["includeDeprecated"] = True
        elif definition.args and not arguments:  # the name of a type comes in a variable
            return max(self.schema.type_map.values(), key=lambda t: len(getattr(t, "fields", ())))
        return cast("Any", definition.resolve)(
            source, SimpleNamespace(schema=self.schema), **arguments
        )

    def _fields(self, selected: SelectionSetNode | None) -> Iterator[FieldNode]:
        for node in selected.selections if selected else ():
            if isinstance(node, FieldNode):
                yield node
            elif isinstance(node, FragmentSpreadNode):
                yield from self._fields(self.fragments[node.name.value].selection_set)
            elif isinstance(node, InlineFragmentNode):
                yield from self._fields(node.selection_set)
