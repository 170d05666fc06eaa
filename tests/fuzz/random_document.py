"""Random documents for a schema: aliases, fragments in fragments, directives, variables with defaults, merged fields."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLSchema,
    GraphQLUnionType,
    get_named_type,
    is_abstract_type,
    is_leaf_type,
)

MAX_DEPTH = 3
LITERALS = {
    "Int": ("1", "3", "null", "$i", "$j"),
    "Colour": ("RED", "BLUE", "$c"),
    "Decimal": ('"1.5"', "null"),
    "[Int!]!": ("[1, 2]", "[$k]", "[]"),
}
DECLARED = (
    "$a: Boolean! = true, $b: Boolean!, $i: Int, $j: Int = 4, $k: Int! = 5, $c: Colour! = BLUE"
)
VARIABLES: tuple[dict[str, Any], ...] = (
    {"b": False},
    {"a": False, "b": True},
    {"b": False, "i": 1, "c": "RED"},
    {"a": True, "b": True, "i": None, "j": None},
    {"b": False, "k": 2, "j": 9},
    {"i": "x"},
)


def random_document(schema: GraphQLSchema, operation: str, choose: Random) -> str:
    """Return an *operation* (its keyword) on *schema*; most are valid."""
    root: Any = getattr(schema, f"{operation}_type")
    writer = _Writer(schema, choose)
    selected = writer.field(root, 0) if operation == "subscription" else writer.selections(root, 0)
    disabled = choose.choice(("", "", "@experimental_disableErrorPropagation"))
    return " ".join([f"{operation} ({DECLARED}) {disabled} {{ {selected} }}", *writer.fragments])


@dataclass
class _Writer:
    schema: GraphQLSchema
    choose: Random
    fragments: list[str] = field(default_factory=list)

    def selections(self, on: Any, depth: int) -> str:
        return " ".join(
            self._selection(on, depth) for _ in range(self.choose.randint(2 if depth else 3, 4))
        )

    def _selection(self, on: Any, depth: int) -> str:
        kind = self.choose.choice(["field"] * 6 + ["inline", "fragment"])
        if kind == "field":
            return self.field(on, depth)
        possible = self.schema.get_possible_types(on) if is_abstract_type(on) else [on]
        inside = self.choose.choice([on, *possible])
        condition = self._condition()
        body = f"{{ {self.selections(inside, depth + 1)} }}"
        if kind == "inline":
            return f"... on {inside.name} {condition} {body}"
        name = f"F{len(self.fragments)}"
        self.fragments.append("")
        self.fragments[int(name[1:])] = f"fragment {name} on {inside.name} {body}"
        return f"...{name} {condition}"

    def field(self, on: Any, depth: int) -> str:
        fields = {} if isinstance(on, GraphQLUnionType) else dict(on.fields)
        if depth >= MAX_DEPTH:
            fields = {n: f for n, f in fields.items() if is_leaf_type(get_named_type(f.type))}
        names = list(fields) if depth == 0 else [*fields, "__typename"]
        name = self.choose.choice(names)
        if name == "__typename":
            return f"__typename {self._condition()}"
        return self._field(name, fields[name], depth)

    def _field(self, name: str, definition: GraphQLField, depth: int) -> str:
        arguments = " ".join(
            f"{argument}: {self._literal(definition.args[argument])}"
            for argument in definition.args
            if self.choose.random() < 0.5
        )
        # Equal names come with equal arguments, so that most documents are valid.
        alias = self.choose.choice(("", "", f"x{self.choose.randint(0, 1)}{name}: "))
        if arguments:
            alias = f"y{''.join(filter(str.isalnum, arguments))}{name}: "
        below = get_named_type(definition.type)
        inner = "" if is_leaf_type(below) else f"{{ {self.selections(below, depth + 1)} }}"
        given = f"({arguments})" if arguments else ""
        condition = "" if depth == 0 and self.choose.random() < 0.7 else self._condition()
        return f"{alias}{name}{given} {condition} {inner}"

    def _literal(self, argument: GraphQLArgument) -> str:
        return self.choose.choice(
            LITERALS[
                str(argument.type).removesuffix("!")
                if str(argument.type) == "Colour!"
                else str(argument.type)
            ]
        )

    def _condition(self) -> str:
        return self.choose.choice(
            ("", "", "", "", "@include(if: $a)", "@skip(if: $b)", "@skip(if: false)")
        )
