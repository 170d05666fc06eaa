"""Plain fields read the short way come out as graphql-core's own executor brings them, errors included."""

from functools import partial
from typing import Any

import pytest
import strawberry
from strawberry.types import ExecutionResult

from gateway.graphql.executor import executor_of
from gateway.graphql.plain_fields import Plain, plain_of


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

    @strawberry.field
    async def lines(self, first: int = 2) -> list[Money]:
        """Lines."""
        return [Money(amount=number, currency=None) for number in range(first)]

    @strawberry.field
    def paid(self) -> bool:
        """Answered at once."""
        return True


@strawberry.type
class Query:
    """Invoices of several kinds of health."""

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
        wrong: dict[str, Any] = {
            "null": {"total": None},
            "null inside": {"total": Money(amount=None, currency=None)},  # type: ignore[arg-type]
            "no number": {"tax": Money(amount="many", currency="usd")},  # type: ignore[arg-type]
            "no attribute": {"total": object()},
            "an exception": {"total": Money(amount=ValueError("no amount"), currency=None)},  # type: ignore[arg-type]
        }
        return _invoice(**wrong[what])


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


@pytest.fixture
def schema() -> strawberry.Schema:
    """The small schema."""
    return strawberry.Schema(Query)


async def _both(schema: strawberry.Schema, document: str) -> list[tuple[Any, Any]]:
    results = []
    for executor in (schema.execution_context_class, executor_of(schema._schema, 5)):
        schema.execution_context_class = executor
        result = await schema.execute(document)
        assert isinstance(result, ExecutionResult)
        errors = [each.formatted for each in result.errors or []]
        results.append((result.data, errors))
    return results


@pytest.mark.parametrize("document", GOOD)
async def test_answers_are_the_same(schema: strawberry.Schema, document: str) -> None:
    """Values, and the order that the document asks for."""
    ours, theirs = await _both(schema, document)
    assert ours == theirs
    assert ours[1] == []
    assert str(ours[0]) == str(theirs[0])


@pytest.mark.parametrize(
    "what", ["null", "null inside", "no number", "no attribute", "an exception"]
)
@pytest.mark.parametrize("chosen", ["id total { amount }", "tax { amount } id", WHOLE.strip("{} ")])
async def test_errors_are_the_same(schema: strawberry.Schema, what: str, chosen: str) -> None:
    """Message, place and path, and how far the null spreads."""
    document = f'{{ broken(what: "{what}") {{ {chosen} }} }}'
    ours, theirs = await _both(schema, document)
    assert ours == theirs


def test_what_has_something_in_front_of_it_is_not_plain(schema: strawberry.Schema) -> None:
    """A guard put before an attribute stays before it."""
    core = schema._schema
    money = core.type_map["Money"]
    amount = money.fields["amount"]  # type: ignore[attr-defined]
    read = amount.resolve
    amount.resolve = partial(read)
    plain = plain_of(core)
    assert set(plain["Money"]) == {"currency"}
    assert set(plain["Invoice"]) == {"id", "paid"}
    assert isinstance(plain["Invoice"]["id"], Plain)
