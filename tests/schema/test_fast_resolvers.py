"""Direct calls of resolvers: the same results without Strawberry's wrappers."""

from typing import Any

import pytest
import strawberry
from graphql import GraphQLSchema, graphql

from schema.fast_resolvers import install


@strawberry.input
class Range:
    """An input object, which Strawberry converts."""

    start: int


@strawberry.type
class Query:
    """Fields that can be called directly and one that cannot."""

    @strawberry.field
    async def double(self, info: strawberry.Info, long_name: int = 2) -> str:
        """A resolver with its info and a scalar argument."""
        return f"{info.field_name}: {long_name * 2}"

    @strawberry.field
    def first(self, of: Range) -> int:
        """A resolver with an input object."""
        return of.start


@pytest.fixture
def core() -> GraphQLSchema:
    """The schema with direct calls."""
    schema = strawberry.Schema(Query)
    install(schema)
    core: GraphQLSchema = schema._schema
    return core


def test_resolvers_of_scalars_are_called_directly(core: GraphQLSchema) -> None:
    """Others stay Strawberry's."""
    fields: dict[str, Any] = core.query_type.fields  # type: ignore[union-attr]

    direct = {name for name, f in fields.items() if f.resolve.__module__ == install.__module__}

    assert direct == {"double"}


async def test_direct_calls_get_info_and_python_argument_names(core: GraphQLSchema) -> None:
    """As through Strawberry, defaults included."""
    result = await graphql(
        core, "{ double again: double(longName: 4) first(of: {start: 7}) }", context_value=None
    )

    assert result.errors is None
    assert result.data == {"double": "double: 4", "again": "double: 8", "first": 7}
