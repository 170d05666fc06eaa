"""Values for fields of random schemas: right ones mostly, and in between what no resolver should return."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from random import Random
from typing import Any

MAX_DEPTH = 6


class Colour(Enum):
    """An enum whose names differ from its values."""

    RED = "r"
    BLUE = "b"


LEAVES: dict[type, Sequence[Any]] = {
    int: (0, 7, -3),
    float: (0.5, 2, -1.0),
    str: ("", "a", "ü"),
    bool: (True, False),
    Colour: tuple(Colour),
    Decimal: (Decimal("1.50"), Decimal(3)),
    datetime: (datetime(2026, 11, 1, tzinfo=UTC),),
}
SICK = (None, 7, "text", "r", True, math.nan, math.inf, 2**40, object, (), [], {}, [[None]], Decimal("NaN"))  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """The declared type of a field: *kind* is a leaf's Python type, or the classes that an object may have.

    An object of one of *others* has another type than declared, as a rule.
    """

    kind: type | tuple[type, ...]
    nullable: bool = False
    item: "Shape | None" = None
    others: tuple[type, ...] = ()


class Fault(Exception):
    """What a resolver raises."""


def make_value(shape: Shape, key: str, sickness: float) -> Any:
    """Return the value of the field *key*, always the same; raises `Fault` or returns nonsense with *sickness*."""
    choose = Random(key)
    depth = key.count("/")
    if choose.random() < (sickness if depth > 1 else sickness / 3):
        return _sick_value(shape, choose, key)
    if shape.nullable and choose.random() < 0.15:
        return None
    if shape.item is not None:
        return _make_list(shape.item, choose, key, sickness)
    if not isinstance(shape.kind, tuple):
        return choose.choice(LEAVES[shape.kind])
    if depth > MAX_DEPTH:
        return None
    return make_object(choose.choice(shape.kind), key, sickness)


def make_object(class_: type, key: str, sickness: float) -> Any:
    """Return an object of *class_*, whose attributes are made when they are read."""
    made = object.__new__(class_)
    vars(made).update(key=f"{key}/", sickness=sickness)
    return made


def shapes_of(class_: type) -> dict[str, Shape]:
    """Return the shapes of the attributes of *class_* and its bases."""
    found: dict[str, Shape] = {}
    for base in reversed(class_.__mro__):
        found |= vars(base).get("shapes", {})
    return found


def _make_list(item: Shape, choose: Random, key: str, sickness: float) -> Any:
    items = [
        make_value(item, f"{key}.{number}", sickness) for number in range(choose.choice((0, 1, 2)))
    ]
    if choose.random() < sickness:
        return choose.choice((tuple(items), (one for one in items), {"a": 1}, {}, "abc", set()))
    return items


def _sick_value(shape: Shape, choose: Random, key: str) -> Any:
    wrong = ("other", "other", "other") if isinstance(shape.kind, tuple) else ("value", "null")
    kind = choose.choice(("raise", "exception", "value", "null", *wrong))
    if kind == "raise":
        raise Fault(f"raised in {key}")
    if kind == "exception":
        return Fault(f"returned in {key}")
    if kind == "null":
        return None
    if kind == "other" and isinstance(shape.kind, tuple):
        other = make_object(choose.choice(shape.others), key, 0)
        vars(other).update(shapes=shapes_of(shape.kind[0]))  # it looks right, and is not
        return other
    return choose.choice(SICK)
