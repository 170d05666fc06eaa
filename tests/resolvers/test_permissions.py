"""Permissions: every field for every role, generated from the schema."""

from collections.abc import Iterator

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLString,
    GraphQLType,
    Undefined,
    get_named_type,
    is_leaf_type,
)
from graphql import (
    build_schema as parse_schema,
)

from resolvers.context import Role, Viewer
from resolvers.permissions import (
    PERMISSIONS,
    PermissionTableMismatch,
    RoleGuard,
    apply,
    is_unguarded,
    mark_unguarded,
    verify,
)
from schema.build import build_schema
from tests.resolvers.conftest import ApiHarness

CORE: GraphQLSchema = build_schema()._schema
LITERALS = {
    "Decimal": '"1"',
    "DateTime": '"2026-11-01T00:00:00Z"',
    "ID": '"cus_absent"',
    "String": '"x"',
}
ROOTS = {"Query": "query", "Mutation": "mutation", "Subscription": "subscription"}
VIEWERS = {
    Role.CUSTOMER: Viewer("panel", Role.CUSTOMER, frozenset({"cus_mine"})),
    Role.SUPPORT: Viewer("agent", Role.SUPPORT),
    Role.METERING: Viewer("meter", Role.METERING),
}


def fields() -> Iterator[tuple[str, str]]:
    """Every field that the schema serves, as (type, field)."""
    for type_ in CORE.type_map.values():
        if isinstance(type_, GraphQLObjectType) and not type_.name.startswith("__"):
            yield from ((type_.name, name) for name in type_.fields)


def root_fields() -> Iterator[tuple[str, str]]:
    """The fields of the root types."""
    return ((type_, name) for type_, name in fields() if type_ in ROOTS)


@pytest.mark.parametrize("role", list(VIEWERS))
def test_no_role_reaches_a_field_without_permission(role: Role) -> None:
    """A field closed to a role has a guard, or no path of open fields leads to its type."""
    reachable = reachable_types(role)
    leaks = [
        f"{type_}.{name}"
        for type_, name in fields()
        if role not in PERMISSIONS[type_, name]
        and type_ in reachable
        and not is_guarded_against(CORE.type_map[type_].fields[name], role)
    ]

    assert leaks == []


@pytest.mark.parametrize("role", list(VIEWERS))
async def test_root_field_enforces_the_table(api: ApiHarness, role: Role) -> None:
    """A role without permission gets FORBIDDEN; any other role does not."""
    results = {
        root_field: await error_codes(api, VIEWERS[role], *root_field)
        for root_field in root_fields()
    }

    for root_field, codes in results.items():
        if role in PERMISSIONS[root_field]:
            assert not codes & {"FORBIDDEN", "None"}, root_field
        else:
            assert codes == {"FORBIDDEN"}, root_field


def test_field_without_permissions_fails_the_build() -> None:
    """A new field is not served before the table says who may read it."""
    new = parse_schema(build_schema().as_str() + " extend type Customer { secret: String }")

    with pytest.raises(PermissionTableMismatch, match=r"Customer\.secret"):
        apply(new)


def test_permission_without_field_fails_the_build() -> None:
    """An entry for a missing field hides that a field was renamed."""
    with pytest.raises(PermissionTableMismatch, match=r"Query\.stripeBudget"):
        apply(parse_schema("type Query { viewer: String }"))


def test_schema_without_resolvers_fails_the_build() -> None:
    """A field without a resolver has nothing to guard, so it is not served."""
    with pytest.raises(PermissionTableMismatch, match=r"Without a guard: .*Query\.viewer"):
        apply(parse_schema(build_schema().as_str()))


@pytest.mark.parametrize("field", ["Query.holds", "Invoice.availableActions"])
def test_lost_guard_fails_the_build(field: str) -> None:
    """A resolver that replaces a guard is noticed before anything is served."""
    core: GraphQLSchema = build_schema()._schema
    type_, name = field.split(".")
    core.type_map[type_].fields[name].resolve = lambda *_: None  # type: ignore[attr-defined]

    with pytest.raises(PermissionTableMismatch, match=field):
        verify(core)


def test_guarded_field_is_not_marked_unguarded() -> None:
    """The plan executor skips the resolvers of marked fields, so no guarded field may be marked."""
    for type_, name in fields():
        field = CORE.type_map[type_].fields[name]  # type: ignore[attr-defined]
        assert is_unguarded(field) != isinstance(field.resolve, RoleGuard), f"{type_}.{name}"


def test_mark_does_not_survive_a_new_resolver() -> None:
    """A guard that is added after the mark is not skipped."""
    field = GraphQLField(GraphQLString, resolve=lambda *_: "value")
    unmarked = is_unguarded(field)
    mark_unguarded(field)
    marked = is_unguarded(field)
    field.resolve = lambda *_: "guarded value"

    assert (unmarked, marked, is_unguarded(field)) == (False, True, False)


def is_guarded_against(field: GraphQLField, role: Role) -> bool:
    """Whether the field has a guard that refuses *role*."""
    guard = field.subscribe or field.resolve
    return isinstance(guard, RoleGuard) and role not in guard.roles


def reachable_types(role: Role) -> set[str]:
    """The types of which *role* can obtain an object, by some path of open fields."""
    found, pending = set[str](), list(ROOTS)
    while pending:
        type_name = pending.pop()
        if type_name in found:
            continue
        found.add(type_name)
        node = CORE.type_map[type_name]
        if isinstance(node, GraphQLObjectType):
            pending += [
                get_named_type(field.type).name
                for field in node.fields.values()
                if not is_guarded_against(field, role)
            ]
        elif node.name == "Node":
            pending += node_types(role)
    return found


def node_types(role: Role) -> list[str]:
    """The types that `node(id:)` returns to *role*; test_node_lookup shows that there are no others."""
    names = [type_.name for type_ in CORE.get_possible_types(CORE.type_map["Node"])]
    return (
        names
        if role is Role.SUPPORT
        else [name for name in names if name not in {"Adjustment", "WebhookEvent"}]
    )


async def error_codes(api: ApiHarness, viewer: Viewer, type_: str, name: str) -> set[str]:
    """The error codes of an operation with this single field."""
    field = CORE.type_map[type_].fields[name]
    document = f"{ROOTS[type_]} {{ {name}{required_arguments(field)} {selection(field.type)} }}"
    if type_ == "Subscription":
        return await subscription_error_codes(api, viewer, document)
    result = await api.execute(viewer, document)
    return {str((error.extensions or {}).get("code")) for error in result.errors or ()}


async def subscription_error_codes(api: ApiHarness, viewer: Viewer, document: str) -> set[str]:
    """As `error_codes`, for a subscription to a missing customer, which completes at once."""
    found = set()
    async for result in await api.subscribe(viewer, document):
        found |= {str((error.extensions or {}).get("code")) for error in result.errors or ()}
    return found


def required_arguments(field: GraphQLField) -> str:
    """Literals for the required arguments of *field*."""
    given = [
        f"{name}: {literal(argument.type)}"
        for name, argument in field.args.items()
        if is_required(argument)
    ]
    return f"({', '.join(given)})" if given else ""


def is_required(argument: GraphQLArgument) -> bool:
    """Whether *argument* must be given."""
    return isinstance(argument.type, GraphQLNonNull) and argument.default_value is Undefined


def literal(type_: GraphQLType) -> str:
    """A valid literal of an input type."""
    if isinstance(type_, GraphQLNonNull):
        return literal(type_.of_type)
    if isinstance(type_, GraphQLList):
        return "[]"
    if isinstance(type_, GraphQLInputObjectType):
        inner = [
            f"{name}: {literal(field.type)}"
            for name, field in type_.fields.items()
            if isinstance(field.type, GraphQLNonNull)
        ]
        return f"{{ {', '.join(inner)} }}"
    if isinstance(type_, GraphQLEnumType):
        return next(iter(type_.values))
    return LITERALS[str(type_)]


def selection(type_: GraphQLType) -> str:
    """The smallest selection of an output type, which has no guarded field."""
    return "" if is_leaf_type(get_named_type(type_)) else "{ __typename }"


def test_forbidden_error_names_the_required_roles() -> None:
    """A refused caller learns which token is needed."""
    with pytest.raises(GraphQLError, match="a token with the role support"):
        VIEWERS[Role.CUSTOMER].require_role(Role.SUPPORT)
    with pytest.raises(GraphQLError, match="the role customer or support"):
        VIEWERS[Role.METERING].require_role(*PERMISSIONS["Query", "invoice"])
