"""Executes operations by a plan: reads simple fields directly; everything else runs through graphql-core.

graphql-core collects the fields of every selection, and coerces the arguments of every field, for every
request. An `ExecutionPlan` stores both, and which of the fields are simple.
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
    GraphQLSchema,
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

from gateway.graphql.execution.plan import (
    ConstantCall,
    PlanCache,
    SelectionPlan,
)
from gateway.graphql.execution.simple_fields import (
    Completer,
    SelectedField,
    SimpleField,
    complete_leaf,
    complete_list,
    complete_non_null,
    complete_object,
    find_simple_fields,
    passthrough_type_of,
    read_values,
)

VARIABLE_NODES = (VariableNode, ListValueNode, ObjectValueNode)
"""Values that are a variable or may contain one."""


class PlanExecutor(Executor[Any]):
    """Reads *simple_fields* (by type name and field name) directly and executes the others in full."""

    simple_fields: ClassVar[Mapping[str, Mapping[str, SimpleField]]]
    plan_cache: ClassVar[PlanCache]
    # Strawberry's executor subclasses the one for @defer; resolvers need only this method of it.
    build_resolve_info: Any = StrawberryGraphQLCoreExecutionContext.build_resolve_info
    operation_extensions = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        fragments = self.fragment_definitions.values()
        plans = self.plan_cache.plans_of(self.operation, fragments)
        self._plan = plans.for_variables(self.variable_values.coerced)

    def execute_collected_root_fields(
        self,
        root_type: GraphQLObjectType,
        root_value: Any,
        grouped_field_set: GroupedFieldSet,
        *others: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """Execute the root's fields, as the plan's first execution collected them."""
        root = self._plan.root = self._plan.root or grouped_field_set
        return super().execute_collected_root_fields(root_type, root_value, root, *others)

    def collect_subfields(
        self, return_type: GraphQLObjectType, field_details_list: FieldDetailsList
    ) -> CollectedFields:
        """Return the fields selected of an object of this type."""
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
        """Return the values of the fields selected of *source_value*."""
        selection = self._selection_plan(parent_type, grouped_field_set)
        read, full = _read_simple(selection, source_value)
        if not full:
            return read
        executed = super().execute_fields(parent_type, source_value, path, full, position_context)
        if not selection.simple:
            return executed
        if isinstance(executed, dict):
            return _merge(grouped_field_set, read, executed)
        return _merge_awaited(grouped_field_set, read, executed)

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_details_list: FieldDetailsList,
        path: Path,
        position_context: Any,
    ) -> AwaitableOrValue[Any]:
        """Return the value of a resolved field; constant arguments are coerced once."""
        key = (parent_type.name, id(field_details_list))
        if key not in self._plan.calls:
            self._plan.calls[key] = self._constant_call(parent_type, field_details_list)
        call = self._plan.calls[key]
        if call is None:
            return super().execute_field(
                parent_type, source, field_details_list, path, position_context
            )
        field, arguments = call
        nodes = [details.node for details in field_details_list]
        info = self.build_resolve_info(field, nodes, parent_type, path)
        try:
            result = cast("Any", field.resolve)(source, info, **arguments)
        except Exception as error:  # noqa: BLE001 graphql-core locates and reports it
            self.handle_field_error(error, field.type, field_details_list, path)
            return None
        return self.complete_awaitable_value(
            field.type, field_details_list, info, path, result, position_context
        )

    def _constant_call(
        self, parent_type: GraphQLObjectType, details: FieldDetailsList
    ) -> ConstantCall | None:
        """Return the call of an asynchronous field with constant leaf arguments; None for another field."""
        node = details[0].node
        field = self.schema.get_field(parent_type, node.name.value)
        definition = field and field.extensions.get("strawberry-definition")
        if field is None or not isinstance(definition, StrawberryField) or not definition.is_async:
            return None
        constant = not any(isinstance(arg.value, VARIABLE_NODES) for arg in node.arguments or ())
        leaves = all(is_leaf_type(get_nullable_type(arg.type)) for arg in field.args.values())
        if definition.is_subscription or self.middleware_manager or not (constant and leaves):
            return None
        try:
            arguments = get_argument_values(field, node)
        except GraphQLError:
            return None
        return ConstantCall(field, arguments)

    def _selection_plan(
        self, parent_type: GraphQLObjectType, selection: GroupedFieldSet
    ) -> SelectionPlan:
        key = (parent_type.name, id(selection))
        plan = self._plan.selections.get(key)
        if plan is None:
            fields = [self._selected_field(parent_type, *entry) for entry in selection.items()]
            simple = [field for field in fields if field]
            names = {field.name for field in simple}
            full = {name: details for name, details in selection.items() if name not in names}
            plan = self._plan.selections[key] = SelectionPlan(selection, simple, full)
        return plan

    def _selected_field(
        self, parent_type: GraphQLObjectType, name: str, details: FieldDetailsList
    ) -> SelectedField | None:
        """Return the simple field with response name *name*; None when it needs full execution."""
        field = self.simple_fields[parent_type.name].get(details[0].node.name.value)
        complete = field and self._completer(field.type, details)
        if field is None or complete is None:
            return None
        return SelectedField(name, field.read, complete, passthrough_type_of(field.type))

    def _completer(self, type_: GraphQLOutputType, details: FieldDetailsList) -> Completer | None:
        """Return the completer of *type_*; None when a selected field below it is not simple."""
        if isinstance(type_, GraphQLNonNull):
            nullable = self._completer(type_.of_type, details)
            return nullable and complete_non_null(nullable)
        if isinstance(type_, GraphQLList):
            item = self._completer(type_.of_type, details)
            return item and complete_list(item)
        if is_leaf_type(type_):
            return complete_leaf(type_)
        if not isinstance(type_, GraphQLObjectType):
            return None
        subfields = self.collect_subfields(type_, details).grouped_field_set
        selection = self._selection_plan(type_, subfields)
        return None if selection.full else complete_object(type_, selection.simple)


def plan_executor_class(schema: GraphQLSchema) -> type[PlanExecutor]:
    """Return the plan executor for *schema*."""
    attributes = {"simple_fields": find_simple_fields(schema), "plan_cache": PlanCache()}
    return type("SchemaPlanExecutor", (PlanExecutor,), attributes)


def _read_simple(selection: SelectionPlan, source: Any) -> tuple[dict[str, Any], GroupedFieldSet]:
    """Return the simple fields' values of *source*, and the fields that need full execution."""
    try:
        return read_values(selection.simple, source), selection.full
    except Exception:  # noqa: BLE001 full execution reports it
        return _read_one_by_one(selection, source)


def _read_one_by_one(
    selection: SelectionPlan, source: Any
) -> tuple[dict[str, Any], GroupedFieldSet]:
    read: dict[str, Any] = {}
    for field in selection.simple:
        with suppress(Exception):
            read |= read_values([field], source)
    # In the order of selection, so that of several errors graphql-core's first comes first.
    return read, {name: fields for name, fields in selection.selection.items() if name not in read}


async def _merge_awaited(
    order: GroupedFieldSet, read: dict[str, Any], executed: Awaitable[dict[str, Any]]
) -> dict[str, Any]:
    return _merge(order, read, await executed)


def _merge(
    order: GroupedFieldSet, read: dict[str, Any], executed: dict[str, Any]
) -> dict[str, Any]:
    """Return the values of both in the order of selection."""
    return {name: read[name] if name in read else executed[name] for name in order}
