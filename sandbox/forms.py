"""Stripe's form encoding, and the check of what was sent against what an operation takes."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from sandbox.errors import refuse, unsimulated
from sandbox.fields import STRUCTURES, Field, Fields

Params = dict[str, Any]


MAX_DEPTH = 8
_SEGMENT = re.compile(r"\[([^\]]*)\]")
_DECIMAL = re.compile(r"-?\d{1,15}(\.\d{1,12})?", re.ASCII)


def decode(form: bytes) -> Params:
    """Unfold ``lines[0][metadata][app]=x`` into nested dictionaries (lists stay dictionaries)."""
    tree: Params = {}
    for key, value in parse_qsl(form.decode(errors="replace"), keep_blank_values=True):
        head, bracket, _ = key.partition("[")
        path = [head, *_SEGMENT.findall(key)] if bracket else [head]
        if len(path) > MAX_DEPTH:
            raise refuse(f"Invalid parameter: {key[:100]}", param=head)
        node = tree
        for step in path[:-1]:
            node = _child(node, step)
        node[path[-1] or str(len(node))] = value
    return tree


def as_form(value: Any) -> Any:
    """Turn JSON into what ``decode`` would have made of the same parameters."""
    if isinstance(value, dict):
        return {key: as_form(each) for key, each in value.items()}
    if isinstance(value, list):
        return {str(place): as_form(each) for place, each in enumerate(value)}
    if value is None or isinstance(value, str):
        return value or ""
    return str(value).lower()


def _child(node: Params, step: str) -> Params:
    child = node.setdefault(step or str(len(node)), {})
    if not isinstance(child, dict):
        raise refuse(f"Invalid hash: {step}", param=step)
    return child


def check(sent: Params, known: Fields, inside: str = "") -> Params:
    """Check and convert *sent*; raises Stripe's 400 for what is unknown, missing or malformed."""
    taken: Params = {}
    for name, value in sent.items():
        param = f"{inside}[{name}]" if inside else name
        field = known.get(name)
        if field is None:
            raise refuse(
                f"Received unknown parameter: {param}", code="parameter_unknown", param=param
            )
        if field.known_only:
            raise unsimulated(f"the parameter `{param}`")
        taken[name] = _convert_all(value, field, param)
    for name, field in known.items():
        if field.required and taken.get(name) in (None, ""):
            param = f"{inside}[{name}]" if inside else name
            raise refuse(f"Missing required param: {param}.", code="parameter_missing", param=param)
    return taken


def _convert_all(value: Any, field: Field, param: str) -> Any:
    if not field.many:
        return _convert(value, field.kind, param)
    if value == "":
        return []
    if not isinstance(value, dict):
        raise refuse(f"Invalid array: {param}", param=param)
    return [
        _convert(each, field.kind, f"{param}[{index}]") for index, each in enumerate(value.values())
    ]


def _convert(value: Any, kind: str, param: str) -> Any:
    if kind in STRUCTURES:
        if value == "":
            return None
        if not isinstance(value, dict):
            raise refuse("Invalid object", param=param)
        return check(value, STRUCTURES[kind], param)
    return SCALARS[kind](value, param)


def _text(value: Any, param: str) -> str:
    if isinstance(value, dict):
        raise refuse(f"Invalid string: {param} is a hash", param=param)
    if len(value) > 5000:  # noqa: PLR2004
        raise refuse(f"Invalid string: {param} is too long", param=param)
    return str(value)


def _integer(value: Any, param: str) -> int | None:
    text = _text(value, param)
    if text == "":
        return None
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise refuse(f"Invalid integer: {text}", code="parameter_invalid_integer", param=param)
    return int(text)


def _boolean(value: Any, param: str) -> bool:
    if value not in ("true", "false"):
        raise refuse(f"Invalid boolean: {_text(value, param)}", param=param)
    return bool(value == "true")


def _decimal(value: Any, param: str) -> str:
    text = _text(value, param)
    if not _DECIMAL.fullmatch(text):
        raise refuse(
            f"Invalid decimal: {text}; at most 15 digits, 12 places, no exponent",
            code="parameter_invalid_decimal",
            param=param,
        )
    return text


def _metadata(value: Any, param: str) -> dict[str, str]:
    if value == "":
        return {"": ""}
    if not isinstance(value, dict):
        raise refuse("Invalid hash", param=param)
    for key, text in value.items():
        if len(key) > 40 or len(_text(text, f"{param}[{key}]")) > 500:  # noqa: PLR2004
            raise refuse(
                "Metadata keys have at most 40 characters and values at most 500.",
                param=f"{param}[{key}]",
            )
    return value


def _range(value: Any, param: str) -> Params:
    if isinstance(value, dict):
        return check(value, STRUCTURES["range"], param)
    return {"gte": _integer(value, param), "lte": _integer(value, param)}


SCALARS: Mapping[str, Callable[[Any, str], Any]] = {
    "str": _text,
    "int": _integer,
    "bool": _boolean,
    "decimal": _decimal,
    "map": _metadata,
    "when": _range,
}


def required(params: Params, name: str) -> str:
    """Return a parameter that only this double demands; Stripe's 400 without it."""
    if not params.get(name):
        raise refuse(f"Missing required param: {name}.", code="parameter_missing", param=name)
    return str(params[name])


def merged(old: Mapping[str, str] | None, new: Mapping[str, str]) -> dict[str, str]:
    """Merge metadata as Stripe does: an empty value deletes its key, an empty hash all of them."""
    if new == {"": ""}:
        return {}
    result = {key: value for key, value in {**(old or {}), **new}.items() if value != ""}
    if len(result) > 50:  # noqa: PLR2004
        raise refuse("You can have at most 50 metadata keys.", param="metadata")
    return result
