"""Every field by every role, generated from the schema: a new field without a rule fails here."""

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
    GraphQLType,
    Undefined,
    get_named_type,
    is_leaf_type,
)
from graphql import (
    build_schema as parse_schema,
)

from resolvers.context import Role, Viewer
from resolvers.permissions import AUTHORITY, Undecided, enforce
from schema.build import build_schema
from tests.resolvers.conftest import Desk

CORE: GraphQLSchema = build_schema()._schema
WORDS = {
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
    """Every field that the schema serves."""
    for type_ in CORE.type_map.values():
        if isinstance(type_, GraphQLObjectType) and not type_.name.startswith("__"):
            yield from ((type_.name, name) for name in type_.fields)


def doors() -> Iterator[tuple[str, str]]:
    """The fields through which an operation begins."""
    return ((type_, name) for type_, name in fields() if type_ in ROOTS)


@pytest.mark.parametrize("role", list(VIEWERS))
def test_a_field_is_refused_to_whom_the_table_does_not_name(role: Role) -> None:
    """No role reaches a field by any way that does not pass a guard which refuses it."""
    held = reachable(role)
    leaks = [
        f"{type_}.{name}"
        for type_, name in fields()
        if role not in AUTHORITY[type_, name]
        and type_ in held
        and not refuses(CORE.type_map[type_].fields[name], role)
    ]

    assert leaks == []


@pytest.mark.parametrize("role", list(VIEWERS))
async def test_an_operation_answers_or_refuses_by_role(desk: Desk, role: Role) -> None:
    """What the table says is what a caller meets, with a code that a client can act on."""
    met = {door: await begun(desk, VIEWERS[role], *door) for door in doors()}

    for door, codes in met.items():
        if role in AUTHORITY[door]:
            assert not codes & {"FORBIDDEN", "None"}, door
        else:
            assert codes == {"FORBIDDEN"}, door


def test_a_field_without_a_rule_cannot_be_served() -> None:
    """Whoever adds a field has to say who may see it before anybody does."""
    new = parse_schema(build_schema().as_str() + " extend type Customer { secret: String }")

    with pytest.raises(Undecided, match=r"Customer\.secret"):
        enforce(new)


def test_a_rule_without_a_field_is_noticed() -> None:
    """A rule for what is not served guards nothing, and hides that something was renamed."""
    with pytest.raises(Undecided, match=r"Query\.stripeBudget"):
        enforce(parse_schema("type Query { viewer: String }"))


def refuses(field: GraphQLField, role: Role) -> bool:
    """Whether the guard in front of *field* turns *role* away."""
    guard = field.subscribe or field.resolve
    assert guard is not None
    roles = {
        cell.cell_contents
        for cell in guard.__closure__ or ()
        if isinstance(cell.cell_contents, frozenset)
    }
    return guard.__name__ == "authorised" and all(role not in each for each in roles)


def reachable(role: Role) -> set[str]:
    """The types of which *role* can hold an object: some path of unrefusing fields leads there."""
    seen, todo = set[str](), list(ROOTS)
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        node = CORE.type_map[here]
        if isinstance(node, GraphQLObjectType):
            todo += [
                get_named_type(each.type).name
                for each in node.fields.values()
                if not refuses(each, role)
            ]
        elif node.name == "Node":
            todo += nodes_for(role)
    return seen


def nodes_for(role: Role) -> list[str]:
    """What `node(id:)` finds for *role*; test_finding shows that it finds no more."""
    every = [each.name for each in CORE.get_possible_types(CORE.type_map["Node"])]
    return (
        every
        if role is Role.SUPPORT
        else [each for each in every if each not in {"Adjustment", "WebhookEvent"}]
    )


async def begun(desk: Desk, viewer: Viewer, type_: str, name: str) -> set[str]:
    """The codes of the errors that the operation with this one field meets."""
    field = CORE.type_map[type_].fields[name]
    document = f"{ROOTS[type_]} {{ {name}{arguments(field)} {selection(field.type)} }}"
    if type_ == "Subscription":
        return await subscribed(desk, viewer, document)
    result = await desk.run(viewer, document)
    return {str((each.extensions or {}).get("code")) for each in result.errors or ()}


async def subscribed(desk: Desk, viewer: Viewer, document: str) -> set[str]:
    """As `begun`, for a subscription to a customer who is not there: it ends at once."""
    found = set()
    async for result in await desk.follow(viewer, document):
        found |= {str((each.extensions or {}).get("code")) for each in result.errors or ()}
    return found


def arguments(field: GraphQLField) -> str:
    """Values for the arguments that have to be given."""
    given = [f"{name}: {literal(each.type)}" for name, each in field.args.items() if required(each)]
    return f"({', '.join(given)})" if given else ""


def required(argument: GraphQLArgument) -> bool:
    """Whether the argument has to be given."""
    return isinstance(argument.type, GraphQLNonNull) and argument.default_value is Undefined


def literal(type_: GraphQLType) -> str:
    """Some value of an input type."""
    if isinstance(type_, GraphQLNonNull):
        return literal(type_.of_type)
    if isinstance(type_, GraphQLList):
        return "[]"
    if isinstance(type_, GraphQLInputObjectType):
        inner = [
            f"{name}: {literal(each.type)}"
            for name, each in type_.fields.items()
            if isinstance(each.type, GraphQLNonNull)
        ]
        return f"{{ {', '.join(inner)} }}"
    if isinstance(type_, GraphQLEnumType):
        return next(iter(type_.values))
    return WORDS[str(type_)]


def selection(type_: GraphQLType) -> str:
    """The least that can be asked of an output type: nothing that has a guard of its own."""
    return "" if is_leaf_type(get_named_type(type_)) else "{ __typename }"


def test_a_refusal_says_which_role_it_takes() -> None:
    """Whoever is refused knows which token to ask for."""
    with pytest.raises(GraphQLError, match="a token with the role support"):
        VIEWERS[Role.CUSTOMER].must_be(Role.SUPPORT)
    with pytest.raises(GraphQLError, match="the role customer or support"):
        VIEWERS[Role.METERING].must_be(*AUTHORITY["Query", "invoice"])
