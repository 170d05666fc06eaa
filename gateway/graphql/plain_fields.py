"""Reading plain fields without the ceremony of resolvers: two thirds of an answer's fields, then most of its time.

graphql-core makes a path, an info object and three checks for an awaitable for every field. A field that
Strawberry reads off its object (an attribute, or a method that needs nothing else) wants none of them,
and neither does an object made of such fields alone. What was chosen of an object is looked up once for
all objects of a list. Whatever is not as plain as it should be (a null where there may be none, a value
that its scalar refuses) is executed again in full, so that errors come out as graphql-core words them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar, cast

from graphql import (
    GraphQLField,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
    is_leaf_type,
    is_object_type,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from graphql.pyutils import AwaitableOrValue, Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.field import StrawberryField

Read = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Plain:
    """A field that *read* gets of its object: a leaf to *coerce*, or an object of type *of*, whose *fields* all are plain."""

    read: Read
    nullable: bool
    coerce: Callable[[Any], Any]
    of: GraphQLObjectType | None = None
    fields: Mapping[str, "Plain"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """A *plain* field that was chosen as *name*, with the *steps* into its object."""

    name: str
    plain: Plain
    steps: Sequence["Step"] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was *chosen* of an object: *steps* to its plain fields, and *others* to execute."""

    chosen: GroupedFieldSet
    steps: Sequence[Step]
    others: GroupedFieldSet


class NotPlain(Exception):
    """The value has to be executed in full."""


class PlainFieldsExecutor(StrawberryGraphQLCoreExecutionContext):
    """Reads the *plain* fields (by the names of type and field) and executes the others."""

    plain: ClassVar[Mapping[str, Mapping[str, Plain]]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._chosen: dict[tuple[str, int], Chosen] = {}

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """The values of the fields chosen of *source_value*."""
        read, others = _read(self._choice(parent_type, grouped_field_set), source_value)
        if not others:
            return read
        executed = super().execute_fields(parent_type, source_value, path, others, position_context)
        if not read:
            return executed
        if isinstance(executed, dict):
            return _in_order(grouped_field_set, read, executed)
        return _merged(grouped_field_set, read, executed)

    def _choice(self, parent_type: GraphQLObjectType, chosen: GroupedFieldSet) -> Chosen:
        """How to read *chosen*, which graphql-core makes once for all objects of a list."""
        key = (parent_type.name, id(chosen))
        known = self._chosen.get(key)
        if known is None:
            plain = self.plain[parent_type.name]
            steps = [self._step(plain, name, details) for name, details in chosen.items()]
            others = {
                name: chosen[name] for name, step in zip(chosen, steps, strict=True) if not step
            }
            known = Chosen(chosen, [step for step in steps if step], others)
            self._chosen[key] = known
        return known

    def _step(
        self, fields: Mapping[str, Plain], name: str, details: FieldDetailsList
    ) -> Step | None:
        plain = fields.get(details[0].node.name.value)
        if plain is None:
            return None
        if plain.of is None:
            return Step(name, plain)
        chosen = self.collect_subfields(plain.of, details).grouped_field_set
        steps = [self._step(plain.fields, inner, each) for inner, each in chosen.items()]
        return Step(name, plain, [step for step in steps if step]) if all(steps) else None


def _read(chosen: Chosen, source: Any) -> tuple[dict[str, Any], GroupedFieldSet]:
    """The values that could be read of *source*, and the fields that have to be executed."""
    read: dict[str, Any] = {}
    others = chosen.others
    for step in chosen.steps:
        try:
            read[step.name] = _value(step, source)
        except Exception:  # noqa: BLE001 executing it says what is wrong
            others = {**others, step.name: chosen.chosen[step.name]}
    return read, others


def _value(step: Step, source: Any) -> Any:
    plain = step.plain
    value = plain.read(source)
    if value is None:
        if plain.nullable:
            return None
        raise NotPlain
    if plain.of is not None:
        return {inner.name: _value(inner, value) for inner in step.steps}
    value = plain.coerce(value)
    if value is None or value is Undefined:
        raise NotPlain
    return value


def plain_of(schema: GraphQLSchema) -> Mapping[str, Mapping[str, Plain]]:
    """The plain fields of *schema*, by the names of type and field."""
    return {
        type_.name: _plain_fields(type_)
        for type_ in schema.type_map.values()
        if isinstance(type_, GraphQLObjectType)
    }


async def _merged(
    order: GroupedFieldSet, read: dict[str, Any], executed: Awaitable[dict[str, Any]]
) -> dict[str, Any]:
    return _in_order(order, read, await executed)


def _in_order(
    order: GroupedFieldSet, read: dict[str, Any], executed: dict[str, Any]
) -> dict[str, Any]:
    return {name: read[name] if name in read else executed[name] for name in order}


def _object(value: Any) -> Any:
    return value


def _plain_fields(
    type_: GraphQLObjectType, within: frozenset[str] = frozenset()
) -> Mapping[str, Plain]:
    inside = within | {type_.name}
    plain = {name: _plain(field, inside) for name, field in type_.fields.items()}
    return {name: field for name, field in plain.items() if field is not None}


def _plain(field: GraphQLField, inside: frozenset[str]) -> Plain | None:
    read = _reader(field)
    if read is None:
        return None
    nullable = not isinstance(field.type, GraphQLNonNull)
    type_ = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
    if is_leaf_type(type_):
        return Plain(read, nullable, type_.coerce_output_value)
    if is_object_type(type_) and type_.is_type_of is None and type_.name not in inside:
        fields = _plain_fields(type_, inside)
        if len(fields) == len(type_.fields):
            return Plain(read, nullable, _object, type_, fields)
    return None


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
