"""The rules of docs/glossary.md: standard words in names, and descriptions that say something."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
)

from schema.build import build_schema

ROOT = Path(__file__).parents[1]
PRODUCT = ("billing", "schema", "resolvers", "workers", "webhooks", "gateway", "sandbox", "demo")

# The field's own nouns that end like gerunds.
GERUNDS = {"billing", "closing", "invoicing", "metering", "pricing"}

BANNED_MODULES = {
    "acts", "ahead", "alone", "door", "farewell", "held", "kept", "leaving", "looks", "marks",
    "nouns", "picture", "places", "seen", "tick", "told", "turns", "wire",
}  # fmt: skip

# Parts of identifiers that had private or several meanings, and the word to use instead.
BANNED = {
    "ask": "request, submit, acquire or execute",
    "asked": "requested",
    "asker": "caller",
    "bring": "load",
    "door": "endpoint, store or client",
    "doors": "services",
    "farewell": "shutdown",
    "forget": "invalidate, purge or unregister",
    "glance": "read",
    "gone": "missing, unavailable or disconnected",
    "hear": "receive",
    "heard": "received",
    "held": "leased, on hold or acquired",
    "insist": "cancel until done",
    "kept": "cached, stored or bytes",
    "noted": "audited",
    "nouns": "types",
    "strike": "failure",
    "strikes": "failures",
    "told": "synced or sent",
    "turn": "slot or run",
    "turns": "slots or runs",
    "whoever": "caller",
}

RIDDLE = re.compile(r"(What|How|Whether|Who|Whose|Which|Why|Where) ")


def sources(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """The Python modules in *folders*, parsed."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def names_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that the module defines, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def words_of(name: str) -> set[str]:
    """The words of an identifier in snake_case or CamelCase."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def banned_in(name: str) -> set[str]:
    """The banned words of *name*; HELD is a value of the GraphQL contract."""
    return set() if name == "HELD" else words_of(name) & BANNED.keys()


def test_module_names_are_nouns() -> None:
    """A gerund hides the thing that does the work; a metaphor hides everything."""
    wrong = [
        str(path)
        for path, _ in sources(*PRODUCT)
        if path.stem in BANNED_MODULES
        or any(part.endswith("ing") and part not in GERUNDS for part in path.stem.split("_")[-1:])
    ]

    assert wrong == []


def test_identifiers_avoid_words_with_private_meanings() -> None:
    """One word had up to seven meanings; nobody could search for a name or guess one."""
    wrong = [
        f"{path}:{line} {name}: use {', '.join(sorted(BANNED[word] for word in found))}"
        for path, tree in sources(*PRODUCT, "benchmarks", "tests")
        for line, name in names_in(tree)
        if not name.startswith("test_") and (found := banned_in(name))
    ]

    assert wrong == []


def test_docstrings_begin_with_their_subject_or_a_verb() -> None:
    """A docstring that opens with a question word has to be decoded."""
    wrong = [
        f"{path}: {doc.splitlines()[0]}"
        for path, tree in sources(*PRODUCT, "benchmarks", "tests/support")
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and RIDDLE.match(doc := ast.get_docstring(node) or "")
    ]

    assert wrong == []


def test_graphql_descriptions_have_four_words_at_least() -> None:
    """A description such as "When." describes nothing."""
    schema = build_schema()._schema
    wrong = [
        f"{where}: {text!r}"
        for where, text in descriptions(schema)
        if len((text or "").split()) < 4
    ]

    assert wrong == []


def descriptions(schema: GraphQLSchema) -> Iterator[tuple[str, str | None]]:
    """Every description of ours in *schema*, with the place that it describes."""
    for name, type_ in schema.type_map.items():
        if not name.startswith("__") and name not in {"String", "Int", "Float", "Boolean", "ID"}:
            yield name, type_.description
            yield from described_members(type_)
    for directive in schema.directives:
        yield f"@{directive.name}", directive.description


def described_members(type_: GraphQLNamedType) -> Iterator[tuple[str, str | None]]:
    """The descriptions of a type's fields, arguments and values."""
    if isinstance(type_, GraphQLEnumType):
        for name, value in type_.values.items():
            yield f"{type_.name}.{name}", value.description
    if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
        for name, field in type_.fields.items():
            yield f"{type_.name}.{name}", field.description
            for argument, of in getattr(field, "args", {}).items():
                yield f"{type_.name}.{name}({argument})", of.description


def test_glossary_words_are_defined_once() -> None:
    """A word with two definitions has two meanings."""
    words = re.findall(
        r"^\| \*\*(.+?)\*\* \|", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE
    )

    assert len(words) >= 30
    assert sorted(words) == sorted(set(words))


def test_loop_variables_name_the_thing() -> None:
    """Two lines below `for each in found` nobody knows what `each` is."""
    wrong = [
        f"{path}:{line}"
        for path, tree in sources(*PRODUCT, "benchmarks", "tests")
        for line, name in names_in(tree)
        if name == "each"
    ]

    assert wrong == []
