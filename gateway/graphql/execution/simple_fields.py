"""Which fields are read off their objects, and how: nearly all of an answer's fields, and then most of its time.

graphql-core makes a path, an info object and three checks for an awaitable for every field. A field that
Strawberry reads off its object (an attribute, or a method that needs nothing else) wants none of them.
Whatever is not as plain as it should be (a null where there may be none, a value that its scalar refuses)
is `NotPlain`: it has to be executed in full, so that errors come out as graphql-core words them.
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

Read = Callable[[Any], Any]
Complete = Callable[[Any], Any]
"""From what a resolver would return to what is answered; raises, NotPlain or anything, for what is not plain."""

AS_THEY_ARE: Mapping[Any, type] = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}
"""Scalars whose values, when they are exactly of this type, are answered as they are."""


class Plain(NamedTuple):
    """A field of *type* that *read* gets of its object."""

    read: Read
    type: GraphQLOutputType


class Step(NamedTuple):
    """A plain field chosen as *name*; a value that is exactly *as_is* needs no completing."""

    name: str
    read: Read
    complete: Complete
    as_is: type | None


class NotPlain(Exception):
    """The value has to be executed in full."""


def plain_of(schema: GraphQLSchema) -> Mapping[str, Mapping[str, Plain]]:
    """The plain fields of *schema*, by the names of type and field."""
    return {
        type_.name: _plain_fields(type_)
        for type_ in schema.type_map.values()
        if isinstance(type_, GraphQLObjectType)
    }


def values_of(steps: Sequence[Step], source: Any) -> dict[str, Any]:
    """What *steps* come to on *source*."""
    values = {}
    for name, read, complete, as_is in steps:
        value = read(source)
        values[name] = value if type(value) is as_is else complete(value)
    return values


def as_is(type_: GraphQLOutputType) -> type | None:
    """Of which Python type exactly values are answered as they are."""
    return AS_THEY_ARE.get(type_.of_type if isinstance(type_, GraphQLNonNull) else type_)


def never_null(complete: Complete) -> Complete:
    """How a value is completed that may not be null."""

    def completed(value: Any) -> Any:
        value = complete(value)
        if value is None:
            raise NotPlain
        return value

    return completed


def each(complete: Complete) -> Complete:
    """How a list is completed."""

    def completed(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not list:
            raise NotPlain
        return [complete(item) for item in value]

    return completed


def leaf(type_: GraphQLLeafType) -> Complete:
    """How a scalar or an enum is completed."""
    coerce = type_.coerce_output_value
    if isinstance(type_, CustomGraphQLEnumType) and issubclass(type_.wrapped_cls, Enum):
        coerce = _named(type_)

    def completed(value: Any) -> Any:
        if value is None:
            return None
        coerced = coerce(value)
        if coerced is None or coerced is Undefined or isinstance(value, Exception):
            raise NotPlain
        return coerced

    return completed


def object_(type_: GraphQLObjectType, steps: Sequence[Step]) -> Complete | None:
    """How an object is completed; None when its type has a check of its own making."""
    definition = type_.extensions.get("strawberry-definition")
    if definition is None or definition.is_type_of is not None:
        return None
    is_one: Any = type_.is_type_of or (lambda _value, _info: True)

    def completed(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, Exception) or not is_one(value, None):
            raise NotPlain
        return values_of(steps, value)

    return completed


def _named(type_: CustomGraphQLEnumType) -> Complete:
    """Looks up what Strawberry searches through the names for."""
    enum = cast("type[Enum]", type_.wrapped_cls)
    names = {member: type_.coerce_output_value(member) for member in enum}
    return lambda value: names[value] if type(value) is enum else type_.coerce_output_value(value)


def _plain_fields(type_: GraphQLObjectType) -> Mapping[str, Plain]:
    fields = {"__typename": Plain(lambda _: type_.name, TypeNameMetaFieldDef.type)}
    for name, field in type_.fields.items():
        read = _reader(field)
        if read is not None:
            fields[name] = Plain(read, field.type)
    return fields


def _reader(field: GraphQLField) -> Read | None:
    """How *field* is read when its object is all that it needs."""
    definition = field.extensions.get("strawberry-definition")
    if not isinstance(definition, StrawberryField) or definition.extensions:
        return None
    if not hasattr(field.resolve, "_is_default"):  # something stands in front of Strawberry's
        return None
    method = definition.base_resolver
    if method is None:
        return attrgetter(definition.python_name)
    if method.is_async or method.arguments or method.info_parameter or not method.self_parameter:
        return None
    return cast("Read", method.wrapped_func)
