"""Lookups: the ids and cursors among an operation's arguments, which may be invented."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLID,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    ValueNode,
    value_from_ast_untyped,
)

CURSOR_ARGUMENTS = frozenset({"after", "before"})
MAX_COUNTED = 10


@dataclass(frozen=True, slots=True)
class Lookups:
    """The arguments of an operation that look something up, and its variables' *defaults*."""

    defaults: Mapping[str, Any]
    arguments: list[tuple[GraphQLInputType, ValueNode]] = field(default_factory=list)

    def add(self, node: FieldNode, definition: GraphQLField) -> None:
        """Add the arguments of *node* that are cursors, or in whose types ids are."""
        for argument in node.arguments or ():
            name = argument.name.value
            type_ = GraphQLID if name in CURSOR_ARGUMENTS else definition.args[name].type
            if _has_ids(type_):
                self.arguments.append((type_, argument.value))

    def count(self, variables: Mapping[str, Any], own_ids: frozenset[str]) -> int:
        """Return how many ids and cursors are not *own_ids*; `MAX_COUNTED` stands for more."""
        given = {**self.defaults, **variables}
        found = (
            any_id
            for type_, value in self.arguments
            for any_id in _ids(type_, value_from_ast_untyped(value, given))
            if any_id not in own_ids
        )
        return sum(1 for _ in islice(found, MAX_COUNTED))


def _ids(type_: GraphQLInputType, value: Any) -> Iterator[str]:
    if isinstance(type_, GraphQLNonNull):
        yield from _ids(type_.of_type, value)
    elif isinstance(type_, GraphQLList):
        for item in value if isinstance(value, list) else [value]:
            yield from _ids(type_.of_type, item)
    elif isinstance(type_, GraphQLInputObjectType) and isinstance(value, dict):
        for name in type_.fields.keys() & value.keys():
            yield from _ids(type_.fields[name].type, value[name])
    elif type_ is GraphQLID and isinstance(value, str | int):
        yield str(value)


def _has_ids(type_: GraphQLInputType) -> bool:
    if isinstance(type_, GraphQLNonNull | GraphQLList):
        return _has_ids(type_.of_type)
    if isinstance(type_, GraphQLInputObjectType):
        return any(_has_ids(field.type) for field in type_.fields.values())
    return type_ is GraphQLID
