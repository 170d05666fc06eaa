"""Reading plain attributes without the ceremony of resolvers: two thirds of an answer's fields, then most of its time.

graphql-core makes a path, an info object and three checks for an awaitable for every field. A field that
Strawberry reads off an attribute needs none of them, and neither does an object made of such fields
alone. Whatever is not as plain as it should be (a null where there may be none, a value that its scalar
refuses) is executed again in full, so that errors come out as graphql-core words them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

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


@dataclass(frozen=True, slots=True)
class Plain:
    """A field that is an attribute: a leaf to *coerce*, or an object of type *of*, whose *fields* all are plain."""

    attribute: str
    nullable: bool
    coerce: Callable[[Any], Any]
    of: GraphQLObjectType | None = None
    fields: Mapping[str, "Plain"] = field(default_factory=dict)


class NotPlain(Exception):
    """The value has to be executed in full."""


class PlainFieldsExecutor(StrawberryGraphQLCoreExecutionContext):
    """Reads the *plain* fields (by the names of type and field) and executes the others."""

    plain: ClassVar[Mapping[str, Mapping[str, Plain]]]

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """The values of the fields chosen of *source_value*."""
        read, others = self._read_plain(parent_type, source_value, grouped_field_set)
        if not others:
            return read
        executed = super().execute_fields(parent_type, source_value, path, others, position_context)
        if not read:
            return executed
        if isinstance(executed, dict):
            return _in_order(grouped_field_set, read, executed)
        return _merged(grouped_field_set, read, executed)

    def _read_plain(
        self, parent_type: GraphQLObjectType, source: Any, chosen: GroupedFieldSet
    ) -> tuple[dict[str, Any], GroupedFieldSet]:
        """The values that could be read, and the fields that have to be executed."""
        plain = self.plain[parent_type.name]
        read: dict[str, Any] = {}
        others: GroupedFieldSet = {}
        for name, details in chosen.items():
            known = plain.get(details[0].node.name.value)
            if known is None:
                others[name] = details
                continue
            try:
                read[name] = self._read(known, source, details)
            except Exception:  # noqa: BLE001 executing it says what is wrong
                others[name] = details
        return read, others

    def _read(self, known: Plain, source: Any, details: FieldDetailsList) -> Any:
        value = getattr(source, known.attribute)
        if value is None:
            if known.nullable:
                return None
            raise NotPlain
        if known.of is not None:
            chosen = self.collect_subfields(known.of, details).grouped_field_set
            return {
                name: self._read(known.fields[each[0].node.name.value], value, each)
                for name, each in chosen.items()
            }
        value = known.coerce(value)
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


def _plain_fields(type_: GraphQLObjectType) -> Mapping[str, Plain]:
    plain = {name: _plain(field) for name, field in type_.fields.items()}
    return {name: field for name, field in plain.items() if field is not None}


def _plain(field: GraphQLField) -> Plain | None:
    definition = field.extensions.get("strawberry-definition")
    if not (
        isinstance(definition, StrawberryField)
        and definition.is_basic_field
        and getattr(field.resolve, "_is_default", False)  # nothing stands in front of it
    ):
        return None
    nullable = not isinstance(field.type, GraphQLNonNull)
    type_ = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
    name = definition.python_name
    if is_leaf_type(type_):
        return Plain(name, nullable, type_.coerce_output_value)
    if is_object_type(type_) and type_.is_type_of is None:
        fields = _plain_fields(type_)
        if len(fields) == len(type_.fields):
            return Plain(name, nullable, _object, type_, fields)
    return None
