"""Limits on the size of a document, checked by one bounded walk before validation.

The walk expands fragments as execution would, and stops at the first limit that is exceeded. Its cost
is bounded by the limits and not by the document: a chain of n fragments that each spread the next one
twice is rejected after ``fields`` steps, not after 2ⁿ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

from gateway.graphql.errors import request_error


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request.

    *fields*, *aliases*, *directives* and *spreads* count with fragments expanded. *overlaps* counts
    pairs of fields with the same response name in the same place, because validation compares each
    pair. *characters*, *tokens* and *lines* bound the text, because each error is located by counting lines.
    *name_length* bounds names, because the answer repeats them for each object. *cost*, *values* (scalars in the
    answer), *page_size* and *timeout_seconds* bound execution; *variable_values*, and *keys* of an object among them,
    bound what is coerced before.
    """

    characters: int = 32_768
    tokens: int = 1_500
    lines: int = 2_000
    name_length: int = 255
    operations: int = 10
    fragments: int = 100
    depth: int = 16
    fields: int = 1_000
    spreads: int = 500
    aliases: int = 50
    directives: int = 50
    overlaps: int = 1_500
    errors: int = 5
    cost: int = 5_000
    values: int = 20_000
    variable_values: int = 25_000
    keys: int = 100
    page_size: int = 100
    timeout_seconds: float = 15.0


@dataclass(slots=True)
class _ResponseField:
    """A place in the response: the number of fields that write to it, and its children by response name."""

    fields: int = 0
    children: dict[str, "_ResponseField"] = field(default_factory=dict)


def check_limits(document: DocumentNode, limits: Limits) -> None:
    """Raise a GraphQLError (QUERY_TOO_COMPLEX) when *document* exceeds one of *limits*."""
    operations = [
        node for node in document.definitions if isinstance(node, OperationDefinitionNode)
    ]
    fragments = fragments_of(document)
    walk = _Walk(limits, fragments)
    walk.count("operations", len(operations))
    walk.count("fragments", len(fragments))
    for operation in operations:
        walk.count("directives", len(operation.directives or ()))
        walk.selection_set(operation.selection_set, _ResponseField(), 1)
    # Validation also visits fragments that are never spread.
    for name in fragments.keys() - walk.spread_names:
        walk.selection_set(fragments[name].selection_set, _ResponseField(), 1)


def check_text(text: str, limits: Limits) -> None:
    """Raise a GraphQLError (QUERY_TOO_COMPLEX) when *text* has too many lines."""
    _check_limit(limits, "lines", text.count("\n") + text.count("\r"))


def count_variable_values(variables: Mapping[str, Any], limits: Limits) -> int:
    """Return the number of values in *variables*; raise a GraphQLError (QUERY_TOO_COMPLEX) when they are too many."""
    count = 0
    containers: list[Any] = [variables]
    while containers:
        container = containers.pop()
        count += len(container)
        _check_limit(limits, "variable_values", count)
        if isinstance(container, dict):
            _check_limit(limits, "keys", len(container))
            container = container.values()
        containers += [value for value in container if isinstance(value, dict | list)]
    return count


def fragments_of(document: DocumentNode) -> Mapping[str, FragmentDefinitionNode]:
    """Return the fragments that *document* defines, by name."""
    return {
        node.name.value: node
        for node in document.definitions
        if isinstance(node, FragmentDefinitionNode)
    }


class _Walk:
    """Counts the parts of a document and raises at the first limit that is exceeded."""

    def __init__(self, limits: Limits, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self.spread_names: set[str] = set()
        self._limits = limits
        self._fragments = fragments
        self._counts: dict[str, int] = {}
        self._active_fragments: set[str] = set()

    def count(self, limit: str, amount: int = 1) -> None:
        """Add *amount* to the count for *limit*, a field name of `Limits`."""
        self._counts[limit] = self._counts.get(limit, 0) + amount
        self._check(limit, self._counts[limit])

    def selection_set(
        self, selected: SelectionSetNode | None, parent: _ResponseField, depth: int
    ) -> None:
        """Count everything under *selected*, whose fields are children of *parent*."""
        for selection in selected.selections if selected else ():
            self.count("directives", len(selection.directives or ()))
            if isinstance(selection, FieldNode):
                self._field(selection, parent, depth)
            elif isinstance(selection, FragmentSpreadNode):
                self._spread(selection.name.value, parent, depth)
            elif isinstance(selection, InlineFragmentNode):
                self.count("spreads")
                self.selection_set(selection.selection_set, parent, depth)

    def _field(self, node: FieldNode, parent: _ResponseField, depth: int) -> None:
        self._check("depth", depth)
        self.count("fields")
        self.count("aliases", 1 if node.alias else 0)
        response_name = (node.alias or node.name).value
        self._check("name_length", len(response_name))
        child = parent.children.setdefault(response_name, _ResponseField())
        self.count("overlaps", child.fields)
        child.fields += 1
        self.selection_set(node.selection_set, child, depth + 1)

    def _spread(self, name: str, parent: _ResponseField, depth: int) -> None:
        self.count("spreads")
        self.spread_names.add(name)
        # Validation reports unknown fragments and cycles.
        if name not in self._fragments or name in self._active_fragments:
            return
        self._active_fragments.add(name)
        self.selection_set(self._fragments[name].selection_set, parent, depth)
        self._active_fragments.discard(name)

    def _check(self, limit: str, found: int) -> None:
        _check_limit(self._limits, limit, found)


def _check_limit(limits: Limits, limit: str, found: int) -> None:
    allowed: int = getattr(limits, limit)
    if found > allowed:
        raise request_error(
            "QUERY_TOO_COMPLEX",
            f"The request passes a limit ({limit}: {allowed}); ask for less at a time.",
        )
