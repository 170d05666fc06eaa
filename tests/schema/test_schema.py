"""The schema keeps its promises: the contract, the descriptions, the printed copy."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    NoDeprecatedCustomRule,
    is_introspection_type,
    is_specified_scalar_type,
    parse,
    print_ast,
    specified_rules,
    validate,
)
from graphql import (
    build_schema as parse_schema,
)

from schema.__main__ import main
from schema.build import build_schema
from schema.trusted_documents import panel_documents

CONTRACT = Path(__file__).with_name("contract.graphql")
GOES = re.compile(r"`\w+`.*[Gg]oes on \d{4}-\d\d-\d\d")


@pytest.fixture(scope="module")
def served() -> GraphQLSchema:
    """The schema as clients see it."""
    return parse_schema(build_schema().as_str())


def test_everything_in_the_contract_is_served_as_it_stands(served: GraphQLSchema) -> None:
    """The panel was written against it: names, types, nullability, arguments and their defaults."""
    promised = dict(facts(parse_schema(CONTRACT.read_text())))

    assert promised.items() <= dict(facts(served)).items()


def test_everything_is_described(served: GraphQLSchema) -> None:
    """GraphiQL is Support's manual: no type, field or enum value is left to guessing."""
    undescribed = [name for name, description in descriptions(served) if not description]

    assert undescribed == []


def test_the_printed_schema_is_current() -> None:
    """Front-end engineers generate their types from it; a change of the schema shows in review."""
    assert main(["--check"]) == 0


def test_a_print_is_written_and_compared(tmp_path: Path) -> None:
    """`--check` fails on any difference, and writing settles it."""
    copy = tmp_path / "schema.graphql"
    copy.write_text("edited")
    prints = {copy: lambda: "as it should be"}

    assert main(["--check"], prints) == 1
    assert main([], prints) == 0
    assert main(["--check"], prints) == 0


def test_the_panel_asks_for_nothing_that_is_going(served: GraphQLSchema) -> None:
    """Deprecated fields go when nobody asks for them; those who copy the panel must not begin to."""
    documents = panel_documents()

    assert set(documents) == {"panel", "viewer", "changes", "sync", "portal"}
    for name, text in documents.items():
        errors = validate(served, parse(text), [*specified_rules, NoDeprecatedCustomRule])
        assert errors == [], name


def test_what_is_deprecated_says_what_to_use_and_when_it_goes(served: GraphQLSchema) -> None:
    """The policy: a replacement by name, and a day."""
    reasons = {
        f"{type_.name}.{name}": member.deprecation_reason
        for type_ in ours(served)
        for name, member in (
            getattr(type_, "fields", None) or getattr(type_, "values", None) or {}
        ).items()
    }
    vague = [name for name, reason in reasons.items() if reason and not GOES.search(reason)]

    assert vague == []


def facts(schema: GraphQLSchema) -> Iterator[tuple[str, str]]:
    """Everything that a client can rely on, as name → what it is."""
    for type_ in ours(schema):
        yield type_.name, type(type_).__name__
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            yield from ((f"{type_.name} implements {each.name}", "") for each in type_.interfaces)
            for name, field in type_.fields.items():
                yield f"{type_.name}.{name}", str(field.type)
                for argument, given in field.args.items():
                    default = print_ast(given.default.literal) if given.default else ""
                    yield f"{type_.name}.{name}({argument})", f"{given.type} = {default}"
        elif isinstance(type_, GraphQLInputObjectType):
            yield from (
                (f"{type_.name}.{name}", str(each.type)) for name, each in type_.fields.items()
            )
        elif isinstance(type_, GraphQLEnumType):
            yield from ((f"{type_.name}.{value}", "") for value in type_.values)


def descriptions(schema: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    """Everything that can be described, with its description."""
    for type_ in ours(schema):
        yield type_.name, type_.description
        members = getattr(type_, "fields", None) or getattr(type_, "values", None) or {}
        for name, member in members.items():
            yield f"{type_.name}.{name}", member.description
            for argument, given in getattr(member, "args", {}).items():
                yield f"{type_.name}.{name}({argument})", given.description


def ours(schema: GraphQLSchema) -> list[GraphQLNamedType]:
    """The types that are not GraphQL's own."""
    return [
        type_
        for type_ in schema.type_map.values()
        if not is_introspection_type(type_) and not is_specified_scalar_type(type_)
    ]
