"""Simple fields: read directly off their object, without a path, an info object or awaitable checks.

Nearly all fields of a response are simple, and graphql-core's work per field would take most of its time.
A simple field is one that Strawberry reads off its object, an attribute or a method without arguments,
and that is marked as unguarded: a field without the mark, or whose resolver was replaced after it was
marked, is executed in full.
A value that is not as expected (a null in a non-null field, a value that its scalar rejects) raises
`NeedsFullExecution`: graphql-core executes it again, so that errors are its own.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from operator import attrgetter
from typing import Any, NamedTuple, cast

from graphql import (
    GraphQLBoolean,
    GraphQLField,
    GraphQLID,
    GraphQLLeafType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    GraphQLString,
    TypeNameMetaFieldDef,
    Undefined,
)
from strawberry.schema.schema_converter import CustomGraphQLEnumType
from strawberry.types.field import StrawberryField

from resolvers.permissions import is_unguarded

Reader = Callable[[Any], Any]
"""Returns a field's value, given its object."""
Completer = Callable[[Any], Any]
"""Completes a resolved value to its response value; any exception means that it needs full execution."""

PASSTHROUGH_TYPES: Mapping[Any, type] = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}
"""Scalars whose values need no completion when they are exactly of this Python type."""


class SimpleField(NamedTuple):
    """A field of *type* that *read* reads off its object."""

    read: Reader
    type: GraphQLOutputType


class SelectedField(NamedTuple):
    """A simple field with response name *name*; values exactly of *passthrough_type* need no completion."""

    name: str
    read: Reader
    complete: Completer
    passthrough_type: type | None


class NeedsFullExecution(Exception):
    """The value must be executed by graphql-core."""


def find_simple_fields(schema: GraphQLSchema) -> Mapping[str, Mapping[str, SimpleField]]:
    """Return the simple fields of *schema*, by type name and field name."""
    return {
        type_.name: _simple_fields(type_)
        for type_ in schema.type_map.values()
        if isinstance(type_, GraphQLObjectType)
    }


def read_values(fields: Sequence[SelectedField], source: Any) -> dict[str, Any]:
    """Return the values of *fields* of *source*, by response name."""
    values = {}
    for name, read, complete, passthrough_type in fields:
        value = read(source)
        values[name] = value if type(value) is passthrough_type else complete(value)
    return values


def passthrough_type_of(type_: GraphQLOutputType) -> type | None:
    """Return the Python type whose values *type_* takes without completion."""
    return PASSTHROUGH_TYPES.get(type_.of_type if isinstance(type_, GraphQLNonNull) else type_)


def complete_non_null(complete: Completer) -> Completer:
    """Return the completer of the non-null type around *complete*'s."""

    def completed(value: Any) -> Any:
        value = complete(value)
        if value is None:
            raise NeedsFullExecution
        return value

    return completed


def complete_list(complete: Completer) -> Completer:
    """Return the completer of a list whose items *complete* completes."""

    def completed(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not list:
            raise NeedsFullExecution
        return [complete(item) for item in value]

    return completed


def complete_leaf(type_: GraphQLLeafType) -> Completer:
    """Return the completer of a scalar or an enum."""
    coerce = type_.coerce_output_value
    if isinstance(type_, CustomGraphQLEnumType) and issubclass(type_.wrapped_cls, Enum):
        coerce = _enum_name_lookup(type_)

    def completed(value: Any) -> Any:
        if value is None:
            return None
        coerced = coerce(value)
        if coerced is None or coerced is Undefined or isinstance(value, Exception):
            raise NeedsFullExecution
        return coerced

    return completed


def complete_object(type_: GraphQLObjectType, fields: Sequence[SelectedField]) -> Completer | None:
    """Return the completer of an object; None when its type has a custom type check."""
    definition = type_.extensions.get("strawberry-definition")
    if definition is None or definition.is_type_of is not None:
        return None
    is_type_of: Any = type_.is_type_of or (lambda _value, _info: True)

    def completed(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, Exception) or not is_type_of(value, None):
            raise NeedsFullExecution
        return read_values(fields, value)

    return completed


def _enum_name_lookup(type_: CustomGraphQLEnumType) -> Completer:
    """Return a completer with a table of names, which Strawberry searches linearly."""
    enum = cast("type[Enum]", type_.wrapped_cls)
    names = {member: type_.coerce_output_value(member) for member in enum}
    return lambda value: names[value] if type(value) is enum else type_.coerce_output_value(value)


def _simple_fields(type_: GraphQLObjectType) -> Mapping[str, SimpleField]:
    fields = {"__typename": SimpleField(lambda _: type_.name, TypeNameMetaFieldDef.type)}
    for name, field in type_.fields.items():
        read = _reader(field)
        if read is not None:
            fields[name] = SimpleField(read, field.type)
    return fields


def _reader(field: GraphQLField) -> Reader | None:
    """Return the reader of *field*, if its object is all that it needs."""
    definition = field.extensions.get("strawberry-definition")
    if not isinstance(definition, StrawberryField) or definition.extensions:
        return None
    if not is_unguarded(field):
        return None
    method = definition.base_resolver
    if method is None:
        return attrgetter(definition.python_name)
    if method.is_async or method.arguments or method.info_parameter or not method.self_parameter:
        return None
    return cast("Reader", method.wrapped_func)
