"""The schema against its contract, its descriptions and its printed copy."""

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


def test_schema_serves_the_contract_unchanged(served: GraphQLSchema) -> None:
    """The panel depends on names, types, nullability, arguments and defaults."""
    promised = dict(facts(parse_schema(CONTRACT.read_text())))

    assert promised.items() <= dict(facts(served)).items()


def test_every_member_has_a_description_of_four_words(served: GraphQLSchema) -> None:
    """GraphiQL is Support's manual: every type, field and enum value is described."""
    too_short = [
        name for name, description in descriptions(served) if len((description or "").split()) < 4
    ]

    assert too_short == []


def test_generated_files_are_current() -> None:
    """Front-end engineers generate types from the printed schema; a change shows in review."""
    assert main(["--check"]) == 0


def test_check_detects_outdated_file_and_write_fixes_it(tmp_path: Path) -> None:
    """`--check` fails on any difference, and writing removes it."""
    copy = tmp_path / "schema.graphql"
    copy.write_text("edited")
    prints = {copy: lambda: "as it should be"}

    assert main(["--check"], prints) == 1
    assert main([], prints) == 0
    assert main(["--check"], prints) == 0


def test_panel_uses_no_deprecated_field(served: GraphQLSchema) -> None:
    """A copy of the panel must not start to use deprecated fields."""
    documents = panel_documents()

    assert set(documents) == {"panel", "viewer", "changes", "sync", "portal"}
    for name, text in documents.items():
        errors = validate(served, parse(text), [*specified_rules, NoDeprecatedCustomRule])
        assert errors == [], name


def test_deprecation_names_replacement_and_removal_date(served: GraphQLSchema) -> None:
    """Deprecation policy: name the replacement and the date of removal."""
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
    """Everything that a client can depend on, as pairs of name and definition."""
    for type_ in ours(schema):
        yield type_.name, type(type_).__name__
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            yield from (
                (f"{type_.name} implements {interface.name}", "") for interface in type_.interfaces
            )
            for name, field in type_.fields.items():
                yield f"{type_.name}.{name}", str(field.type)
                for argument, given in field.args.items():
                    default = print_ast(given.default.literal) if given.default else ""
                    yield f"{type_.name}.{name}({argument})", f"{given.type} = {default}"
        elif isinstance(type_, GraphQLInputObjectType):
            yield from (
                (f"{type_.name}.{name}", str(field.type)) for name, field in type_.fields.items()
            )
        elif isinstance(type_, GraphQLEnumType):
            yield from ((f"{type_.name}.{value}", "") for value in type_.values)


def descriptions(schema: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    """Every member that can have a description, with its description."""
    for type_ in ours(schema):
        yield type_.name, type_.description
        members = getattr(type_, "fields", None) or getattr(type_, "values", None) or {}
        for name, member in members.items():
            yield f"{type_.name}.{name}", member.description
            for argument, given in getattr(member, "args", {}).items():
                yield f"{type_.name}.{name}({argument})", given.description


def ours(schema: GraphQLSchema) -> list[GraphQLNamedType]:
    """The types that are not built into GraphQL."""
    return [
        type_
        for type_ in schema.type_map.values()
        if not is_introspection_type(type_) and not is_specified_scalar_type(type_)
    ]
