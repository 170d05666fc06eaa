"""Decorators that use docstrings as the schema's descriptions."""

import inspect
from collections.abc import Callable
from enum import EnumType
from typing import Any, TypeVar, dataclass_transform

import strawberry
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.enum import StrawberryEnumDefinition

T = TypeVar("T")
E = TypeVar("E", bound=EnumType)


@dataclass_transform(kw_only_default=True, field_specifiers=(strawberry.field,))
def graphql_type(cls: type[T]) -> type[T]:
    """Make *cls* an object type; its docstring and those of its resolvers are their descriptions."""
    return _with_descriptions(strawberry.type(cls, description=inspect.getdoc(cls)))


@dataclass_transform(kw_only_default=True, field_specifiers=(strawberry.field,))
def graphql_input(cls: type[T]) -> type[T]:
    """Make *cls* an input type; its docstring is its description."""
    return _with_descriptions(strawberry.input(cls, description=inspect.getdoc(cls)))


@dataclass_transform(kw_only_default=True, field_specifiers=(strawberry.field,))
def graphql_interface(cls: type[T]) -> type[T]:
    """Make *cls* an interface; its docstring is its description."""
    return _with_descriptions(strawberry.interface(cls, description=inspect.getdoc(cls)))


def graphql_enum(called: str | None = None, /, **descriptions: str) -> Callable[[E], E]:
    """Make an enum of the decorated class, with a description for each of its names, no more and no fewer.

    *called* is its name in the schema where the class has another.
    """

    def decorate(cls: E) -> E:
        strawberry.enum(cls, name=called, description=inspect.getdoc(cls))
        definition: StrawberryEnumDefinition = cls.__strawberry_definition__  # type: ignore[attr-defined]
        if {value.name for value in definition.values} != set(descriptions):
            raise TypeError(f"{cls.__name__}: its names and the described ones differ")
        for value in definition.values:
            value.description = descriptions[value.name]
        return cls

    return decorate


def _with_descriptions(cls: type[T]) -> type[T]:
    definition: StrawberryObjectDefinition = cls.__strawberry_definition__  # type: ignore[attr-defined]
    for field in definition.fields:
        resolver: Any = field.base_resolver
        if resolver is not None and field.description is None:
            field.description = inspect.getdoc(resolver.wrapped_func)
    return cls
