"""Calling resolvers without Strawberry's ceremony, where there is nothing for it to do.

For every call Strawberry spells the arguments' names anew, looks for what each value has to become, and wraps
the resolver in two coroutines. Leaves are what they have to be when they leave graphql-core, so a resolver
that takes nothing else can be called with them as they are.
"""

from collections.abc import Callable
from typing import Any

import strawberry
from graphql import GraphQLField, GraphQLObjectType, get_nullable_type, is_leaf_type
from strawberry.types.field import StrawberryField


def call_directly(schema: strawberry.Schema) -> None:
    """Have the resolvers of *schema* called directly that take only leaves."""
    core = schema._schema  # noqa: SLF001 Strawberry shows graphql-core's schema nowhere else
    for type_ in core.type_map.values():
        if isinstance(type_, GraphQLObjectType):
            for field in type_.fields.values():
                field.resolve = _direct(schema, field) or field.resolve


def _direct(schema: strawberry.Schema, field: GraphQLField) -> Callable[..., Any] | None:
    definition = field.extensions.get("strawberry-definition")
    if not isinstance(definition, StrawberryField) or not _is_simple(definition, field):
        return None
    method: Any = definition.base_resolver
    function, info = method.wrapped_func, method.info_parameter
    name_of = schema.config.name_converter.from_argument
    names = {name_of(each): str(each.python_name) for each in definition.arguments}

    def resolve(source: Any, raw: Any, **given: Any) -> Any:
        arguments = {names[name]: value for name, value in given.items()}
        if info:
            arguments[info.name] = strawberry.Info(_raw_info=raw, _field=definition)
        return function(source, **arguments)

    resolve._is_default = False  # type: ignore[attr-defined]  # noqa: SLF001 as Strawberry marks its own
    return resolve


def _is_simple(definition: StrawberryField, field: GraphQLField) -> bool:
    """Whether the resolver takes its object, its info and leaves, and nothing stands around it."""
    method = definition.base_resolver
    return (
        method is not None
        and not definition.is_subscription
        and not definition.extensions
        and method.self_parameter is not None
        and not (method.parent_parameter or method.root_parameter)
        and all(is_leaf_type(get_nullable_type(each.type)) for each in field.args.values())
    )
