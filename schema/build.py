"""The schema, assembled from its types, with permissions and fast resolvers installed."""

from collections.abc import Iterable

import strawberry
from graphql import (
    GraphQLArgument,
    GraphQLDirective,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
    get_named_type,
)
from graphql.type.directives import GraphQLDisableErrorPropagationDirective
from strawberry.schema.config import StrawberryConfig

from resolvers import permissions
from schema import fast_resolvers
from schema.mutation import Mutation
from schema.query import Query
from schema.scalars import SCALARS
from schema.subscription import Subscription

DISABLE_ERROR_PROPAGATION = GraphQLDirective(
    name=GraphQLDisableErrorPropagationDirective.name,
    locations=GraphQLDisableErrorPropagationDirective.locations,
    description="Disables null propagation: a failed field is null, with its error, even if its type is non-null.",
)


def build_schema() -> strawberry.Schema:
    """The schema as the gateway serves it; PermissionTableMismatch if a field has no permissions."""
    schema = strawberry.Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    core: GraphQLSchema = schema._schema  # noqa: SLF001 Strawberry shows graphql-core's schema nowhere else
    fast_resolvers.install(schema)
    permissions.apply(core)
    core.directives = (*core.directives, DISABLE_ERROR_PROPAGATION)
    _normalize_arguments(core)
    return schema


def _normalize_arguments(schema: GraphQLSchema) -> None:
    """Print `after: String` where Strawberry prints `after: String = null`, which means the same.

    A mutation's `input` gets the description of its type.
    """
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLInputObjectType):
            _drop_null_defaults(type_.fields.values())
        elif isinstance(type_, GraphQLObjectType):
            for field in type_.fields.values():
                _drop_null_defaults(field.args.values())
                _describe_inputs(field.args.values())


def _drop_null_defaults(arguments: Iterable[GraphQLArgument | GraphQLInputField]) -> None:
    for argument in arguments:
        if argument.default_value is None:
            argument.default_value = Undefined


def _describe_inputs(arguments: Iterable[GraphQLArgument]) -> None:
    for argument in arguments:
        if argument.description is None:
            argument.description = get_named_type(argument.type).description
