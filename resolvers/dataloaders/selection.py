"""What a query asks for further down, seen before it is executed."""

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

from billing.pagination import Page, Window

T = TypeVar("T")
Fragments = Mapping[str, FragmentDefinitionNode]


def asks_for(info: strawberry.Info[Any, Any], name: str) -> bool:
    """Whether a field called *name* is asked for at any depth below the one being resolved."""
    raw = info._raw_info  # noqa: SLF001 Strawberry's own form of the selection costs more than the answer
    return _occurs(name, raw.field_nodes, raw.fragments, info.variable_values)


async def page_of(
    info: strawberry.Info[Any, Any], window: Window, load: Callable[[Window], Awaitable[Page[T]]]
) -> Page[T]:
    """What *load* has for *window*; of a page of nothing only whether something follows, if that is asked."""
    if window.size or not asks_for(info, "pageInfo"):
        return await load(window)
    page = await load(window._replace(size=1))
    return Page((), has_more=bool(page.items))


def _occurs(
    name: str, nodes: Iterable[SelectionNode], fragments: Fragments, variables: dict[str, Any]
) -> bool:
    for node in nodes:
        if node.directives and _left_out(node, variables):
            continue
        if isinstance(node, FieldNode) and node.name.value == name:
            return True
        if _occurs(name, _below(node, fragments), fragments, variables):
            return True
    return False


def _left_out(node: SelectionNode, variables: dict[str, Any]) -> bool:
    """Whether `@skip` or `@include` say so."""
    said = {
        directive.name.value: value_from_ast_untyped(each.value, variables)
        for directive in node.directives or ()
        for each in directive.arguments or ()
        if each.name.value == "if"
    }
    return bool(said.get("skip")) or said.get("include") is False


def _below(node: SelectionNode, fragments: Fragments) -> tuple[SelectionNode, ...]:
    if isinstance(node, FragmentSpreadNode):
        return fragments[node.name.value].selection_set.selections
    chosen = cast("FieldNode | InlineFragmentNode", node).selection_set
    return chosen.selections if chosen else ()
