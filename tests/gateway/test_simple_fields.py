"""What is read the short way, by plans made once, comes out as graphql-core's own executor brings it, errors included."""

from collections.abc import Mapping
from enum import Enum
from functools import partial
from random import Random
from typing import Annotated, Any

import pytest
import strawberry
from graphql import (
    DocumentNode,
    GraphQLSchema,
    GraphQLUnionType,
    NoUnusedVariablesRule,
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

from gateway.graphql.execution.plan import Plans, deciding_variables
from gateway.graphql.execution.simple_fields import Plain, plain_of
from gateway.graphql.execution.timeout import executor_of


class Colour(Enum):
    """Names that differ from their values."""

    RED = "r"
    BLUE = "b"


strawberry.enum(Colour)


@strawberry.type
class Money:
    """Nothing but attributes."""

    amount: int
    currency: str | None


@strawberry.interface
class Node:
    """An interface gives its types a check of their own."""

    id: strawberry.ID


@strawberry.type
class Invoice(Node):
    """Attributes, and a field that is answered."""

    total: Money
    tax: Money | None
    notes: list[str]
    colour: Colour = Colour.RED
    parts: list[Money | None] | None = None

    @strawberry.field
    def itself(self) -> "Invoice":
        """Answered at once, and as deep as one likes."""
        return self

    @strawberry.field
    def halves(self) -> list[Money]:
        """A list that is worked out."""
        return [Money(amount=self.total.amount // 2, currency=None)] * 2

    @strawberry.field
    async def lines(self, first: int = 2) -> list[Money]:
        """Lines."""
        return [Money(amount=number, currency=None) for number in range(first)]

    @strawberry.field
    def paid(self) -> bool:
        """Answered at once."""
        return True


@strawberry.type
class Card(Node):
    """Another kind of node."""

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
        """Not what it says."""
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
    given = {
        "id": "in_1",
        "total": Money(amount=7, currency="usd"),
        "tax": None,
        "notes": ["a"],
        **changed,
    }
    return Invoice(**given)


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
OURS = executor_of(CORE, 5)


async def _answers(document: str, *every: dict[str, bool]) -> list[tuple[Any, Any]]:
    """For each of the variables: what graphql-core answers, what we do under a new plan, and by the same plan again."""
    ast = parse(document)
    plans = Plans(deciding_variables(ast))
    return [
        (await _run(ast, variables), await _run(ast, variables, executor_class=OURS, plans=plans))
        for variables in every * 2
    ]


async def _run(ast: DocumentNode, variables: dict[str, bool], **how: Any) -> Any:
    how = {"executor_class": StrawberryGraphQLCoreExecutionContext, **how}
    result: Any = execute(
        CORE, ast, variable_values=variables, is_awaitable=optimized_is_awaitable, **how
    )
    if optimized_is_awaitable(result):
        result = await result
    return str(result.data), [each.formatted for each in result.errors or []]


@pytest.mark.parametrize("document", GOOD)
async def test_answers_are_the_same(document: str) -> None:
    """Values, and the order that the document asks for."""
    for theirs, ours in await _answers(document, {}, {"no": True}):
        assert ours == theirs
        assert ours[1] == []


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("chosen", ["id total { amount }", "tax { amount } id", WHOLE[1:-1]])
async def test_errors_are_the_same(what: str, chosen: str) -> None:
    """Message, place and path, and how far the null spreads."""
    document = f'{{ broken(what: "{what}") {{ {chosen} itself {{ {chosen} }} }} }}'
    for theirs, ours in await _answers(document, {}):
        assert ours == theirs


ARGUMENTS = {
    "broken": [f'(what: "{what}")' for what in WRONG],
    "node": ["(card: true)", "(card: $a)"],
    "lines": ["(first: 1)", "(first: 0)"],
}


def document_of(choose: Random) -> str:
    """A document on the small schema: aliases, fragments, conditions, whatever stands where."""
    fragments: list[str] = []

    def chosen(on: Any, depth: int) -> str:
        return " ".join(part(on, depth) for _ in range(choose.randint(1, 3)))

    def part(on: Any, depth: int) -> str:
        condition = choose.choice(
            ["", "", "", "@include(if: $a)", "@skip(if: $b)", "@skip(if: false)"]
        )
        kind = choose.choice(["field"] * 6 + ["inline", "fragment"])
        if kind != "field":
            possible = CORE.get_possible_types(on) if is_abstract_type(on) else [on]
            inside = choose.choice([on, *possible])
            selection = (
                f"on {inside.name} {condition * (kind == 'inline')} {{ {chosen(inside, depth)} }}"
            )
            if kind == "inline":
                return f"... {selection}"
            fragments.append(f"fragment F{len(fragments)} {selection}")
            return f"...F{len(fragments) - 1} {condition}"
        if isinstance(on, GraphQLUnionType) or (not depth and on is CORE.query_type):
            return f"__typename {condition}"
        return chosen_field(on, depth, condition)

    def chosen_field(on: Any, depth: int, condition: str) -> str:
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
        inner = f"{{ {chosen(below, depth - 1)} }}" if below and not is_leaf_type(below) else ""
        return f"{alias}{name}{arguments} {condition} {inner}"

    operation = f"query ($a: Boolean! = true, $b: Boolean!) {{ {chosen(CORE.query_type, 4)} }}"
    return " ".join([operation, *fragments])


VARIABLES = ({"b": False}, {"a": False, "b": True})


@given(st.integers(0))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_document_is_answered_the_same(seed: int) -> None:
    """Whatever is asked for, good or broken, under whatever variables, when the plan is new and when it is not."""
    document = document_of(Random(seed))
    ast = parse(document)
    assume(not validate(CORE, ast, [r for r in specified_rules if r is not NoUnusedVariablesRule]))
    for theirs, ours in await _answers(document, *VARIABLES):
        assert ours == theirs, document


async def test_there_are_only_so_many_plans() -> None:
    """Whoever sends a document with many conditions gets answers, and fills no memory."""
    names = [f"v{n}" for n in range(6)]
    declared = ", ".join(f"${name}: Boolean!" for name in names)
    fields = " ".join(f"{name}: id @include(if: ${name})" for name in names)
    ast = parse(f"query ({declared}) {{ invoice {{ {fields} paid }} }}")
    plans = Plans(deciding_variables(ast))
    for number in range(2 ** len(names)):
        variables = {name: bool(number >> bit & 1) for bit, name in enumerate(names)}
        ours = await _run(ast, variables, executor_class=OURS, plans=plans)
        shown = {name: "in_1" for name in names if variables[name]}
        assert ours == (str({"invoice": {**shown, "paid": True}}), [])
    kept, not_kept = dict.fromkeys(names, False), dict.fromkeys(names, True)
    assert plans.under(kept) is plans.under(kept)
    assert plans.under(not_kept) is not plans.under(not_kept)


def test_what_has_something_in_front_of_it_is_not_plain() -> None:
    """A guard put before an attribute stays before it."""
    core: GraphQLSchema = strawberry.Schema(Query, types=[Card])._schema
    amount = core.type_map["Money"].fields["amount"]  # type: ignore[attr-defined]
    amount.resolve = partial(amount.resolve)
    plain = plain_of(core)
    assert set(plain["Money"]) == {"__typename", "currency"}
    assert "total" in plain["Invoice"]
    assert not {"lines"} & set(plain["Invoice"])
    assert isinstance(plain["Invoice"]["id"], Plain)
