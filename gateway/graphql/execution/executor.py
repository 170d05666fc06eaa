"""Executing by a plan: what is plain is read, what is not is graphql-core's to execute.

graphql-core collects the fields of every selection, and reads the arguments of every field, again for every
request. Under a `Plan` that is done once, and so is finding out what of it is plain.
"""

from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, cast

from graphql import (
    Executor,
    GraphQLError,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfoHelpers,
    ListValueNode,
    ObjectValueNode,
    VariableNode,
    get_argument_values,
    get_nullable_type,
    is_leaf_type,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList, GroupedFieldSet
from graphql.pyutils import AwaitableOrValue, Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.field import StrawberryField

from gateway.graphql.execution.plan import Call, Chosen, Plan, Plans
from gateway.graphql.execution.simple_fields import (
    Complete,
    Plain,
    Step,
    as_is,
    each,
    leaf,
    never_null,
    object_,
    values_of,
)

VARYING = (VariableNode, ListValueNode, ObjectValueNode)
"""Values that a variable may stand in."""


class PlannedExecutor(Executor[Any]):
    """Reads the *plain* fields (by the names of type and field), as *plan* knows, and executes the others."""

    plain: ClassVar[Mapping[str, Mapping[str, Plain]]]
    # Strawberry's own executor is one for @defer, of which all that resolvers need is this.
    build_resolve_info: Any = StrawberryGraphQLCoreExecutionContext.build_resolve_info
    operation_extensions = None

    def __init__(self, *args: Any, plans: Plans | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plan = plans.under(self.variable_values.coerced) if plans else Plan()

    @property
    def async_helpers(self) -> GraphQLResolveInfoHelpers:
        """Made for whoever asks: graphql-core keeps one, which keeps the executor, and neither would go."""
        return GraphQLResolveInfoHelpers(self.gather_async_work, self.track_async_work)

    @async_helpers.setter
    def async_helpers(self, _: GraphQLResolveInfoHelpers) -> None:
        pass

    def execute_collected_root_fields(
        self,
        root_type: GraphQLObjectType,
        root_value: Any,
        grouped_field_set: GroupedFieldSet,
        *others: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """The root's fields, as the plan's first execution collected them."""
        root = self._plan.root = self._plan.root or grouped_field_set
        return super().execute_collected_root_fields(root_type, root_value, root, *others)

    def collect_subfields(
        self, return_type: GraphQLObjectType, field_details_list: FieldDetailsList
    ) -> CollectedFields:
        """What is chosen of an object of this type."""
        key = (return_type.name, id(field_details_list))
        known = self._plan.collected.get(key)
        if known is None:
            collected = super().collect_subfields(return_type, field_details_list)
            known = self._plan.collected[key] = (field_details_list, collected)
        return known[1]

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """The values of the fields chosen of *source_value*."""
        choice = self._choice(parent_type, grouped_field_set)
        read, others = _read(choice, source_value)
        if not others:
            return read
        executed = super().execute_fields(parent_type, source_value, path, others, position_context)
        if not choice.steps:
            return executed
        if isinstance(executed, dict):
            return _in_order(grouped_field_set, read, executed)
        return _merged(grouped_field_set, read, executed)

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_details_list: FieldDetailsList,
        path: Path,
        position_context: Any,
    ) -> AwaitableOrValue[Any]:
        """The value of a field that is resolved; its arguments are read once, if they can be."""
        key = (parent_type.name, id(field_details_list))
        if key not in self._plan.calls:
            self._plan.calls[key] = self._call(parent_type, field_details_list)
        call = self._plan.calls[key]
        if call is None:
            return super().execute_field(
                parent_type, source, field_details_list, path, position_context
            )
        field, arguments = call
        nodes = [each.node for each in field_details_list]
        info = self.build_resolve_info(field, nodes, parent_type, path)
        try:
            result = cast("Any", field.resolve)(source, info, **arguments)
        except Exception as error:  # noqa: BLE001 graphql-core's to place
            self.handle_field_error(error, field.type, field_details_list, path)
            return None
        return self.complete_awaitable_value(
            field.type, field_details_list, info, path, result, position_context
        )

    def _call(self, parent_type: GraphQLObjectType, details: FieldDetailsList) -> Call | None:
        node = details[0].node
        field = self.schema.get_field(parent_type, node.name.value)
        definition = field and field.extensions.get("strawberry-definition")
        if field is None or not isinstance(definition, StrawberryField) or not definition.is_async:
            return None
        constant = not any(isinstance(each.value, VARYING) for each in node.arguments or ())
        leaves = all(is_leaf_type(get_nullable_type(each.type)) for each in field.args.values())
        if definition.is_subscription or self.middleware_manager or not (constant and leaves):
            return None
        try:
            arguments = get_argument_values(field, node)
        except GraphQLError:
            return None
        return Call(field, arguments)

    def _choice(self, parent_type: GraphQLObjectType, chosen: GroupedFieldSet) -> Chosen:
        key = (parent_type.name, id(chosen))
        known = self._plan.chosen.get(key)
        if known is None:
            found = [self._step(parent_type, name, details) for name, details in chosen.items()]
            steps = [step for step in found if step]
            read = {step.name for step in steps}
            others = {name: details for name, details in chosen.items() if name not in read}
            known = self._plan.chosen[key] = Chosen(chosen, steps, others)
        return known

    def _step(
        self, parent_type: GraphQLObjectType, name: str, details: FieldDetailsList
    ) -> Step | None:
        plain = self.plain[parent_type.name].get(details[0].node.name.value)
        complete = plain and self._completing(plain.type, details)
        return Step(name, plain.read, complete, as_is(plain.type)) if plain and complete else None

    def _completing(self, type_: GraphQLOutputType, details: FieldDetailsList) -> Complete | None:
        """How a value of *type_* is completed; None when something below it is not plain."""
        if isinstance(type_, GraphQLNonNull):
            nullable = self._completing(type_.of_type, details)
            return nullable and never_null(nullable)
        if isinstance(type_, GraphQLList):
            item = self._completing(type_.of_type, details)
            return item and each(item)
        if is_leaf_type(type_):
            return leaf(type_)
        if not isinstance(type_, GraphQLObjectType):
            return None
        chosen = self._choice(type_, self.collect_subfields(type_, details).grouped_field_set)
        return None if chosen.others else object_(type_, chosen.steps)


def _read(choice: Chosen, source: Any) -> tuple[dict[str, Any], GroupedFieldSet]:
    """The values that could be read of *source*, and the fields that have to be executed."""
    try:
        return values_of(choice.steps, source), choice.others
    except Exception:  # noqa: BLE001 executing it says what is wrong
        return _what_can_be_read(choice, source)


def _what_can_be_read(choice: Chosen, source: Any) -> tuple[dict[str, Any], GroupedFieldSet]:
    read: dict[str, Any] = {}
    for step in choice.steps:
        with suppress(Exception):
            read |= values_of([step], source)
    # In the order in which they were chosen, so that of several errors the same one comes first.
    return read, {name: details for name, details in choice.chosen.items() if name not in read}


async def _merged(
    order: GroupedFieldSet, read: dict[str, Any], executed: Awaitable[dict[str, Any]]
) -> dict[str, Any]:
    return _in_order(order, read, await executed)


def _in_order(
    order: GroupedFieldSet, read: dict[str, Any], executed: dict[str, Any]
) -> dict[str, Any]:
    return {name: read[name] if name in read else executed[name] for name in order}
