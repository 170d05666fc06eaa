"""Direct calls of simple resolvers, without Strawberry's argument conversion.

For every call Strawberry maps the argument names, converts each value, and wraps the resolver in two coroutines.
graphql-core already delivers scalars and enums converted, so a resolver that takes only those is called directly.
"""

from collections.abc import Callable
from typing import Any

import strawberry
from graphql import GraphQLField, GraphQLObjectType, get_nullable_type, is_leaf_type
from strawberry.types.field import StrawberryField


def install(schema: strawberry.Schema) -> None:
    """Replace the resolvers of *schema* that take only scalars and enums with direct calls."""
    core = schema._schema  # noqa: SLF001 Strawberry shows graphql-core's schema nowhere else
    for type_ in core.type_map.values():
        if isinstance(type_, GraphQLObjectType):
            for field in type_.fields.values():
                field.resolve = _fast_resolver(schema, field) or field.resolve


def _fast_resolver(schema: strawberry.Schema, field: GraphQLField) -> Callable[..., Any] | None:
    definition = field.extensions.get("strawberry-definition")
    if not isinstance(definition, StrawberryField) or not _takes_only_leaves(definition, field):
        return None
    method: Any = definition.base_resolver
    function, info = method.wrapped_func, method.info_parameter
    name_of = schema.config.name_converter.from_argument
    names = {name_of(argument): str(argument.python_name) for argument in definition.arguments}

    def resolve(source: Any, raw: Any, **given: Any) -> Any:
        arguments = {names[name]: value for name, value in given.items()}
        if info:
            arguments[info.name] = strawberry.Info(_raw_info=raw, _field=definition)
        return function(source, **arguments)

    return resolve


def _takes_only_leaves(definition: StrawberryField, field: GraphQLField) -> bool:
    """True if the resolver takes only its object, its info, scalars and enums, and has no extension around it."""
    method = definition.base_resolver
    return (
        method is not None
        and not definition.is_subscription
        and not definition.extensions
        and method.self_parameter is not None
        and not (method.parent_parameter or method.root_parameter)
        and all(is_leaf_type(get_nullable_type(argument.type)) for argument in field.args.values())
    )
