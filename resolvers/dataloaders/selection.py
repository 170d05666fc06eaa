"""Inspection of the fields selected below the current one, before they are executed."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import strawberry
from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    SelectionNode,
    value_from_ast_untyped,
)

from billing.pagination import Page, PageRequest

T = TypeVar("T")
Fragments = Mapping[str, FragmentDefinitionNode]


def selects(info: strawberry.Info[Any, Any], name: str) -> bool:
    """True if a field called *name* is selected at any depth below the current field."""
    raw = info._raw_info  # noqa: SLF001 Strawberry's `selected_fields` costs more than the whole response
    return _contains(name, raw.field_nodes, raw.fragments, info.variable_values)


async def load_page(
    info: strawberry.Info[Any, Any],
    window: PageRequest,
    load: Callable[[PageRequest], Awaitable[Page[T]]],
) -> Page[T]:
    """Load the page; for size 0, find out only if something follows, and only if `pageInfo` is selected."""
    if window.size or not selects(info, "pageInfo"):
        return await load(window)
    page = await load(window._replace(size=1))
    return Page((), has_more=bool(page.items))


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
