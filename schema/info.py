"""The `info` argument of resolvers, and inspection of the fields selected below the current one."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import strawberry
from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    SelectionNode,
    value_from_ast_untyped,
)

from resolvers.context import Context

Info = strawberry.Info[Context, None]
Fragments = Mapping[str, FragmentDefinitionNode]


def selects(info: Info, name: str) -> bool:
    """True if a field called *name* is selected at any depth below the current field."""
    raw = info._raw_info  # noqa: SLF001 Strawberry's `selected_fields` costs more than the whole response
    return _contains(name, raw.field_nodes, raw.fragments, info.variable_values)


def note_selection(info: Info) -> None:
    """Note the fields selected below the current one that the same GET of Stripe can include."""
    info.context.loaders.with_cards |= selects(info, "defaultPaymentMethod")


def _contains(
    name: str, nodes: Iterable[SelectionNode], fragments: Fragments, variables: dict[str, Any]
) -> bool:
    for node in nodes:
        if node.directives and _is_skipped(node, variables):
            continue
        if isinstance(node, FieldNode) and node.name.value == name:
            return True
        if _contains(name, _children(node, fragments), fragments, variables):
            return True
    return False


def _is_skipped(node: SelectionNode, variables: dict[str, Any]) -> bool:
    """True if `@skip` or `@include` exclude *node*."""
    conditions = {
        directive.name.value: value_from_ast_untyped(argument.value, variables)
        for directive in node.directives or ()
        for argument in directive.arguments or ()
        if argument.name.value == "if"
    }
    return bool(conditions.get("skip")) or conditions.get("include") is False


def _children(node: SelectionNode, fragments: Fragments) -> tuple[SelectionNode, ...]:
    if isinstance(node, FragmentSpreadNode):
        return fragments[node.name.value].selection_set.selections
    chosen = cast("FieldNode | InlineFragmentNode", node).selection_set
    return chosen.selections if chosen else ()
