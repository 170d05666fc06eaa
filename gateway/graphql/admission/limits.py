"""How large a document may be: one bounded walk, done before validation.

Fragments are expanded as execution would expand them, and the walk stops at the first limit that is
passed, so its cost is bounded by the limits and not by the document: a chain of n fragments that
each spread the next one twice is refused after ``fields`` steps, not after 2ⁿ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
    """What one request may ask for.

    *fields*, *aliases*, *directives* and *spreads* count with fragments expanded; *overlaps* counts
    pairs of fields that answer under the same name in the same place, because validation compares
    each pair. *characters* and *tokens* bound the text, *cost* and *page* what running it takes,
    *seconds* how long that may last.
    """

    characters: int = 32_768
    tokens: int = 1_500
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
    page: int = 100
    seconds: float = 15.0


@dataclass(slots=True)
class _Shape:
    """A place in the answer: how many fields write to it, and the places under it by response name."""

    writers: int = 0
    under: dict[str, "_Shape"] = field(default_factory=dict)


def check_limits(document: DocumentNode, limits: Limits) -> None:
    """Raise a GraphQLError (QUERY_TOO_COMPLEX) when *document* passes one of *limits*."""
    operations = [
        node for node in document.definitions if isinstance(node, OperationDefinitionNode)
    ]
    fragments = fragments_of(document)
    walk = _Walk(limits, fragments)
    walk.count("operations", len(operations))
    walk.count("fragments", len(fragments))
    for operation in operations:
        walk.count("directives", len(operation.directives or ()))
        walk.selections(operation.selection_set, _Shape(), 1)
    # Validation looks at fragments that nothing spreads as well.
    for name in fragments.keys() - walk.spread:
        walk.selections(fragments[name].selection_set, _Shape(), 1)


def fragments_of(document: DocumentNode) -> Mapping[str, FragmentDefinitionNode]:
    """The fragments that *document* defines, by name."""
    return {
        node.name.value: node
        for node in document.definitions
        if isinstance(node, FragmentDefinitionNode)
    }


class _Walk:
    """Counts what a document comes to and stops at the first limit."""

    def __init__(self, limits: Limits, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self.spread: set[str] = set()
        self._limits = limits
        self._fragments = fragments
        self._counts: dict[str, int] = {}
        self._entered: set[str] = set()

    def count(self, what: str, more: int = 1) -> None:
        """Add *more* to the count of *what*, which is the name of a limit."""
        self._counts[what] = self._counts.get(what, 0) + more
        self._must_fit(what, self._counts[what])

    def selections(self, selection_set: SelectionSetNode | None, place: _Shape, depth: int) -> None:
        """Count everything under *selection_set*, which answers at *place*."""
        for selection in selection_set.selections if selection_set else ():
            self.count("directives", len(selection.directives or ()))
            if isinstance(selection, FieldNode):
                self._field(selection, place, depth)
            elif isinstance(selection, FragmentSpreadNode):
                self._spread(selection.name.value, place, depth)
            elif isinstance(selection, InlineFragmentNode):
                self.count("spreads")
                self.selections(selection.selection_set, place, depth)

    def _field(self, node: FieldNode, place: _Shape, depth: int) -> None:
        self._must_fit("depth", depth)
        self.count("fields")
        self.count("aliases", 1 if node.alias else 0)
        name = (node.alias or node.name).value
        written = place.under.setdefault(name, _Shape())
        self.count("overlaps", written.writers)
        written.writers += 1
        self.selections(node.selection_set, written, depth + 1)

    def _spread(self, name: str, place: _Shape, depth: int) -> None:
        self.count("spreads")
        self.spread.add(name)
        # Unknown fragments and cycles are validation's to report.
        if name not in self._fragments or name in self._entered:
            return
        self._entered.add(name)
        self.selections(self._fragments[name].selection_set, place, depth)
        self._entered.discard(name)

    def _must_fit(self, what: str, found: int) -> None:
        allowed: int = getattr(self._limits, what)
        if found > allowed:
            raise request_error(
                "QUERY_TOO_COMPLEX",
                f"The document passes a limit ({what}: {allowed}); ask for less at a time.",
            )
