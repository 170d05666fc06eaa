"""The plan executor gives the same data and errors as graphql-core's own executor."""

from collections.abc import Mapping
from enum import Enum
from functools import partial
from random import Random
from typing import Annotated, Any

import pytest
import strawberry
from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    NoUnusedVariablesRule,
    OperationDefinitionNode,
    execute,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
    parse,
    specified_rules,
    validate,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strawberry.execution.is_awaitable import optimized_is_awaitable
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.schema.schema_converter import CustomGraphQLEnumType

from gateway.graphql.execution.executor import plan_executor_class
from gateway.graphql.execution.simple_fields import SimpleField, find_simple_fields
from resolvers.permissions import RoleGuard, mark_all_unguarded
from schema.build import build_schema


class Colour(Enum):
    """An enum whose names differ from its values."""

    RED = "r"
    BLUE = "b"


strawberry.enum(Colour)


@strawberry.type
class Money:
    """A type with attributes only."""

    amount: int
    currency: str | None


@strawberry.interface
class Node:
    """An interface; its implementations get a type check."""

    id: strawberry.ID


@strawberry.type
class Invoice(Node):
    """A type with attributes and resolved fields."""

    total: Money
    tax: Money | None
    notes: list[str]
    colour: Colour = Colour.RED
    parts: list[Money | None] | None = None

    @strawberry.field
    def itself(self) -> "Invoice":
        """A synchronous field that can be nested at will."""
        return self

    @strawberry.field
    def halves(self) -> list[Money]:
        """A computed list."""
        return [Money(amount=self.total.amount // 2, currency=None)] * 2

    @strawberry.field
    async def lines(self, first: int = 2) -> list[Money]:
        """Lines."""
        return [Money(amount=number, currency=None) for number in range(first)]

    @strawberry.field
    def paid(self) -> bool:
        """A synchronous resolver without arguments."""
        return True


@strawberry.type
class Card(Node):
    """Another implementation of Node."""

    last4: str


Thing = Annotated[Invoice | Card, strawberry.union("Thing")]


WRONG: Mapping[str, Mapping[str, Any]] = {
    "null": {"total": None},
    "null inside": {"total": Money(amount=None, currency=None)},  # type: ignore[arg-type]
    "no number": {"tax": Money(amount="many", currency="usd")},  # type: ignore[arg-type]
    "no attribute": {"total": object()},
    "an exception": {"total": Money(amount=ValueError("no amount"), currency=None)},  # type: ignore[arg-type]
    "an exception for an object": {"tax": ValueError("no tax")},
    "no colour": {"colour": "purple"},
    "a value for a name": {"colour": "r"},
    "no list": {"parts": 7},
    "a tuple": {"parts": (Money(amount=1, currency=None), None)},
    "null in a list": {"notes": ["a", None]},
    "another type in a list": {"parts": [Money(amount=1, currency=None), "money"]},
    "a number for a text": {"id": 7},
}


@strawberry.type
class Query:
    """Invoices of several kinds of health."""

    @strawberry.field
    def node(self, card: bool) -> Node | None:
        """An interface."""
        return Card(id=strawberry.ID("pm_1"), last4="4242") if card else _invoice()

    @strawberry.field
    async def things(self) -> list[Thing]:
        """A union."""
        return [_invoice(), Card(id=strawberry.ID("pm_1"), last4="4242")]

    @strawberry.field
    def wrong_type(self) -> Invoice | None:
        """An object of another type than declared."""
        return Card(id=strawberry.ID("pm_1"), last4="4242")  # type: ignore[return-value]

    @strawberry.field
    async def invoice(self) -> Invoice:
        """A good one."""
        return _invoice()

    @strawberry.field
    def invoices(self) -> list[Invoice]:
        """Good ones."""
        return [_invoice(), _invoice(tax=Money(amount=3, currency="usd"))]

    @strawberry.field
    def broken(self, what: str) -> Invoice | None:
        """One with something wrong."""
        return _invoice(**WRONG[what])


def _invoice(**changed: Any) -> Invoice:
    attributes = {
        "id": "in_1",
        "total": Money(amount=7, currency="usd"),
        "tax": None,
        "notes": ["a"],
        **changed,
    }
    return Invoice(**attributes)


WHOLE = """{ id total { amount currency } tax { amount } notes paid lines(first: 1) { amount currency } }"""
GOOD = [
    "{ invoice " + WHOLE + " }",
    "{ invoices " + WHOLE + " }",
    "{ invoice { b: id a: id total { y: amount __typename x: amount } __typename } }",
    "query ($no: Boolean = false) { invoice { id @include(if: $no) total { amount @skip(if: $no) currency } } }",
    "{ invoice { ...F ... on Node { id } } } fragment F on Invoice { total { ...M } tax { ...M } } fragment M on Money { amount }",
    "{ invoice { total { amount } total { currency } } }",
]


CORE: GraphQLSchema = strawberry.Schema(Query, types=[Card])._schema
mark_all_unguarded(CORE)
PLAN_EXECUTOR = plan_executor_class(CORE)


async def _compare(document: str, *variables: dict[str, bool]) -> list[tuple[Any, Any]]:
    """For each of *variables*: graphql-core's result and the plan executor's, first by a new plan, then by a used one."""
    ast = parse(document)
    return [
        (
            await _run(ast, values),
            await _run(ast, values, executor_class=PLAN_EXECUTOR),
        )
        for values in variables * 2
    ]


async def _run(ast: DocumentNode, variables: dict[str, bool], **options: Any) -> Any:
    options = {"executor_class": StrawberryGraphQLCoreExecutionContext, **options}
    result: Any = execute(
        CORE, ast, variable_values=variables, is_awaitable=optimized_is_awaitable, **options
    )
    if optimized_is_awaitable(result):
        result = await result
    return str(result.data), [error.formatted for error in result.errors or []]


@pytest.mark.parametrize("document", GOOD)
async def test_data_is_the_same_as_graphql_cores(document: str) -> None:
    """Values, and the order of the document's fields."""
    for expected, actual in await _compare(document, {}, {"no": True}):
        assert actual == expected
        assert actual[1] == []


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("chosen", ["id total { amount }", "tax { amount } id", WHOLE[1:-1]])
async def test_errors_are_the_same_as_graphql_cores(what: str, chosen: str) -> None:
    """Message, location and path, and how far the null propagates."""
    document = f'{{ broken(what: "{what}") {{ {chosen} itself {{ {chosen} }} }} }}'
    for expected, actual in await _compare(document, {}):
        assert actual == expected


ARGUMENTS = {
    "broken": [f'(what: "{what}")' for what in WRONG],
    "node": ["(card: true)", "(card: $a)"],
    "lines": ["(first: 1)", "(first: 0)"],
}


def random_document(choose: Random) -> str:
    """Return a document on the small schema: aliases, fragments and directives at random."""
    fragments: list[str] = []

    def selections(on: Any, depth: int) -> str:
        return " ".join(selection(on, depth) for _ in range(choose.randint(1, 3)))

    def selection(on: Any, depth: int) -> str:
        condition = choose.choice(
            ["", "", "", "@include(if: $a)", "@skip(if: $b)", "@skip(if: false)"]
        )
        kind = choose.choice(["field"] * 6 + ["inline", "fragment"])
        if kind != "field":
            possible = CORE.get_possible_types(on) if is_abstract_type(on) else [on]
            inside = choose.choice([on, *possible])
            body = f"on {inside.name} {condition * (kind == 'inline')} {{ {selections(inside, depth)} }}"
            if kind == "inline":
                return f"... {body}"
            fragments.append(f"fragment F{len(fragments)} {body}")
            return f"...F{len(fragments) - 1} {condition}"
        if isinstance(on, GraphQLUnionType) or (not depth and on is CORE.query_type):
            return f"__typename {condition}"
        return selected_field(on, depth, condition)

    def selected_field(on: Any, depth: int, condition: str) -> str:
        fields = {
            name: field
            for name, field in on.fields.items()
            if depth or is_leaf_type(get_named_type(field.type))
        }
        name = choose.choice([*fields, "__typename"])
        arguments = choose.choice(ARGUMENTS.get(name, [""]))
        # Equal names come with equal arguments, so that most documents are valid.
        alias = (
            f"{name}{ARGUMENTS[name].index(arguments)}: "
            if arguments
            else choose.choice(["", f"{name}X: "])
        )
        below = get_named_type(fields[name].type) if name in fields else None
        inner = f"{{ {selections(below, depth - 1)} }}" if below and not is_leaf_type(below) else ""
        return f"{alias}{name}{arguments} {condition} {inner}"

    operation = f"query ($a: Boolean! = true, $b: Boolean!) {{ {selections(CORE.query_type, 4)} }}"
    return " ".join([operation, *fragments])


VARIABLES = ({"b": False}, {"a": False, "b": True})


@given(st.integers(0))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
async def test_random_document_is_executed_as_by_graphql_core(seed: int) -> None:
    """Valid or broken values, any variables, by a new plan and by a used one."""
    document = random_document(Random(seed))
    ast = parse(document)
    assume(not validate(CORE, ast, [r for r in specified_rules if r is not NoUnusedVariablesRule]))
    for expected, actual in await _compare(document, *VARIABLES):
        assert actual == expected, document


async def test_number_of_plans_is_limited() -> None:
    """A document with many conditions gets responses, and fills no memory."""
    names = [f"v{n}" for n in range(6)]
    declared = ", ".join(f"${name}: Boolean!" for name in names)
    fields = " ".join(f"{name}: id @include(if: ${name})" for name in names)
    ast = parse(f"query ({declared}) {{ invoice {{ {fields} paid }} }}")
    [operation] = ast.definitions
    assert isinstance(operation, OperationDefinitionNode)
    plans = PLAN_EXECUTOR.plan_cache.plans_of(operation, [])
    for number in range(2 ** len(names)):
        variables = {name: bool(number >> bit & 1) for bit, name in enumerate(names)}
        actual = await _run(ast, variables, executor_class=PLAN_EXECUTOR)
        shown = {name: "in_1" for name in names if variables[name]}
        assert actual == (str({"invoice": {**shown, "paid": True}}), [])
    stored, not_stored = dict.fromkeys(names, False), dict.fromkeys(names, True)
    assert plans.for_variables(stored) is plans.for_variables(stored)
    assert plans.for_variables(not_stored) is not plans.for_variables(not_stored)


async def test_every_overridden_method_of_graphql_core_is_called() -> None:
    """A renamed method would leave its override unused, and only make responses slower."""
    ast = parse("{ invoice { id total { amount } lines(first: 1) { amount } } }")
    [operation] = ast.definitions
    assert isinstance(operation, OperationDefinitionNode)

    await _run(ast, {}, executor_class=PLAN_EXECUTOR)

    plan = PLAN_EXECUTOR.plan_cache.plans_of(operation, []).for_variables({})
    assert plan.root is not None
    assert {type_ for type_, _ in plan.collected} == {"Invoice", "Money"}
    assert {type_ for type_, _ in plan.selections} == {"Query", "Invoice", "Money"}
    assert [call.arguments for call in plan.calls.values() if call] == [{}, {"first": 1}]


def test_enum_types_are_strawberrys_own() -> None:
    """The lookup of enum names depends on their class; without it they are searched linearly."""
    assert isinstance(CORE.type_map["Colour"], CustomGraphQLEnumType)


def test_marked_attributes_and_methods_are_simple() -> None:
    """Asynchronous fields and fields with arguments are not."""
    simple = find_simple_fields(CORE)

    assert set(simple["Money"]) == {"__typename", "amount", "currency"}
    assert isinstance(simple["Invoice"]["paid"], SimpleField)
    assert not {"lines"} & set(simple["Invoice"])


def test_unmarked_field_is_not_simple() -> None:
    """A schema whose builder marks nothing is executed by graphql-core alone."""
    unmarked: GraphQLSchema = strawberry.Schema(Query, types=[Card])._schema

    assert {name for fields in find_simple_fields(unmarked).values() for name in fields} == {
        "__typename"
    }


def test_resolver_replaced_after_its_mark_is_not_simple() -> None:
    """Whatever wraps an attribute, a guard of any kind, is not bypassed."""
    core = _marked_schema()
    amount = core.type_map["Money"].fields["amount"]  # type: ignore[attr-defined]
    amount.resolve = partial(amount.resolve)

    assert set(find_simple_fields(core)["Money"]) == {"__typename", "currency"}


async def test_guard_added_after_the_mark_is_enforced() -> None:
    """The plan executor gives the guard's error and not the value."""
    core = _marked_schema()
    amount = core.type_map["Money"].fields["amount"]  # type: ignore[attr-defined]

    def guard(*_: Any) -> None:
        raise GraphQLError("Not for you.")

    amount.resolve = guard
    ast = parse("{ invoice { id total { amount currency } } }")
    result: Any = execute(core, ast, executor_class=plan_executor_class(core))

    assert [error.message for error in (await result).errors] == ["Not for you."]


def test_no_guarded_field_of_the_gateways_schema_is_simple() -> None:
    """Each field is guarded, or approved as unguarded, or executed in full."""
    core: GraphQLSchema = build_schema()._schema
    simple = find_simple_fields(core)

    guarded = {
        (type_.name, name)
        for type_ in core.type_map.values()
        if isinstance(type_, GraphQLObjectType)
        for name, field in type_.fields.items()
        if isinstance(field.resolve, RoleGuard)
    }
    assert len(guarded) > 50
    assert not guarded & {(type_, name) for type_, fields in simple.items() for name in fields}
    assert "amount" in simple["Money"]


def _marked_schema() -> GraphQLSchema:
    core: GraphQLSchema = strawberry.Schema(Query, types=[Card])._schema
    mark_all_unguarded(core)
    return core
