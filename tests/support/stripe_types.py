"""What Stripe's own SDK says about its API, read from the source of the installed package.

Requests: each service method's path and the TypedDict of its parameters. Answers: the annotations
of the StripeObject that it returns. The SDK imports most of its types for checkers only, so they
are read as syntax trees instead of being imported.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import stripe

SDK = Path(stripe.__file__).parent
SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "Decimal": (str,),
}


@dataclass(frozen=True)
class Scope:
    """Where a name is looked up: a module and the classes around it, outermost first."""

    module: str
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SdkOperation:
    """One method of a service: ``endpoint`` like the sandbox's, and the types it names."""

    endpoint: str
    params: str | None
    returns: ast.expr
    scope: Scope


@cache
def sdk_operations() -> dict[str, SdkOperation]:
    """Return every synchronous v1 operation of the SDK by endpoint."""
    found = {}
    for path in sorted(SDK.rglob("_*_service.py")):
        scope = Scope(".".join(path.relative_to(SDK.parent).with_suffix("").parts))
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and (operation := _operation(function, scope)):
                found[operation.endpoint] = operation
    return found


def sdk_params(operation: SdkOperation) -> "dict[str, Param]":
    """Return the parameters that an operation takes."""
    if operation.params is None:
        return {}
    where, node = _find(operation.params, operation.scope)
    return _typed_dict(where, node)


@dataclass(frozen=True)
class Param:
    """One parameter: required or not, a list or not, and the fields of its structure, if any."""

    required: bool
    many: bool
    fields: "dict[str, Param] | None"


def problems(value: Any, annotation: ast.expr, scope: Scope, at: str = "$") -> Iterator[str]:
    """Tell where *value* is not what *annotation* promises; nothing means that it is."""
    if isinstance(annotation, ast.Constant):
        if annotation.value is None:
            if value is not None:
                yield f"{at}: {value!r} is not null"
            return
        annotation = ast.parse(annotation.value, mode="eval").body
    options = list(_options(annotation))
    if len(options) > 1:
        tried = [list(problems(value, option, scope, at)) for option in options]
        if all(tried):
            yield min(tried, key=len)[0]
        return
    if isinstance(annotation, ast.Subscript):
        yield from _generic(value, annotation, scope, at)
    elif isinstance(annotation, (ast.Name, ast.Attribute)):
        yield from _named(value, ast.unparse(annotation), scope, at)
    else:
        raise NotImplementedError(ast.dump(annotation))


def _options(annotation: ast.expr) -> Iterator[ast.expr]:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        yield from _options(annotation.left)
        yield from _options(annotation.right)
    elif isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Union":
        assert isinstance(annotation.slice, ast.Tuple)
        for each in annotation.slice.elts:
            yield from _options(each)
    elif isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Optional":
        yield ast.Constant(None)
        yield from _options(annotation.slice)
    else:
        yield annotation


def _generic(value: Any, annotation: ast.Subscript, scope: Scope, at: str) -> Iterator[str]:
    outer, inner = ast.unparse(annotation.value), annotation.slice
    if outer == "Literal":
        allowed = ast.literal_eval(inner)
        if value not in (allowed if isinstance(allowed, tuple) else (allowed,)):
            yield f"{at}: {value!r} is not one of {allowed}"
    elif outer == "List":
        yield from _list(value, inner, scope, at)
    elif outer in ("Dict", "UntypedStripeObject"):
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is not a hash"
    elif outer == "ExpandableField":
        if not isinstance(value, str):
            yield from problems(value, inner, scope, at)
    elif outer in ("ListObject", "SearchResultObject"):
        yield from _page(value, inner, scope, at, outer)
    else:
        raise NotImplementedError(outer)


def _list(value: Any, inner: ast.expr, scope: Scope, at: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{at}: {value!r} is not a list"
        return
    for place, each in enumerate(value):
        yield from problems(each, inner, scope, f"{at}[{place}]")


def _page(value: Any, inner: ast.expr, scope: Scope, at: str, outer: str) -> Iterator[str]:
    wanted = "list" if outer == "ListObject" else "search_result"
    if not isinstance(value, dict) or value.get("object") != wanted:
        yield f"{at}: not a {wanted}"
        return
    if not {"data", "has_more", "url"} <= value.keys():
        yield f"{at}: lacks data, has_more or url"
        return
    for place, each in enumerate(value["data"]):
        yield from problems(each, inner, scope, f"{at}.data[{place}]")


def _named(value: Any, name: str, scope: Scope, at: str) -> Iterator[str]:
    if name in ("Any", "UntypedStripeObject", "dict"):
        return
    if name in SCALARS:
        wrong = not isinstance(value, SCALARS[name])
        if wrong or (isinstance(value, bool) and name != "bool"):
            yield f"{at}: {value!r} is not {name}"
        return
    where, node = _find(name, scope)
    if not isinstance(value, dict):
        yield f"{at}: {value!r} is not {name}"
        return
    yield from _object(value, node, where, at)


def _object(value: dict[str, Any], node: ast.ClassDef, where: Scope, at: str) -> Iterator[str]:
    declared = _declared(node)
    if value.get("deleted"):
        declared = {key: declared[key] for key in ("id", "object", "deleted")}
    for name, annotation in declared.items():
        if name in value:
            yield from problems(value[name], annotation, where, f"{at}.{name}")
        elif not _optional(annotation):
            yield f"{at}.{name}: missing"
    yield from (f"{at}.{name}: not in the SDK" for name in value.keys() - declared.keys())


def _declared(node: ast.ClassDef) -> dict[str, ast.expr]:
    found = {}
    for entry in node.body:
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
            text = ast.unparse(entry.annotation)
            if not text.startswith("ClassVar") and not entry.target.id.startswith("_"):
                found[entry.target.id] = entry.annotation
    return found


def _optional(annotation: ast.expr) -> bool:
    return any(isinstance(o, ast.Constant) and o.value is None for o in _options(annotation))


def _operation(function: ast.FunctionDef, scope: Scope) -> SdkOperation | None:
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "self._request":
            method, path = call.args[0], call.args[1]
            if isinstance(path, ast.Call):
                assert isinstance(path.func, ast.Attribute)
                path = path.func.value
            endpoint = f"{ast.literal_eval(method).upper()} {ast.literal_eval(path)}"
            if not endpoint.split(" ")[1].startswith("/v1/"):
                return None
            given = [a for a in function.args.args if a.arg == "params"]
            params = _params_name(given[0].annotation) if given else None
            assert function.returns is not None
            return SdkOperation(endpoint, params, function.returns, scope)
    return None


def _params_name(annotation: ast.expr | None) -> str:
    assert annotation is not None
    names = [option for option in _options(annotation) if isinstance(option, ast.Name)]
    return names[0].id


def _typed_dict(where: Scope, node: ast.ClassDef) -> dict[str, Param]:
    found = {}
    for name, annotation in _declared(node).items():
        text = ast.unparse(annotation)
        bare = annotation
        if isinstance(bare, ast.Subscript) and text.startswith(("NotRequired", "Required")):
            bare = bare.slice
        found[name.rstrip("_")] = _param(bare, where, required=not text.startswith("NotRequired"))
    return found


def _param(annotation: ast.expr, where: Scope, *, required: bool) -> Param:
    many, structure = False, None
    for option in _options(annotation):
        inner = option
        if isinstance(option, ast.Subscript) and ast.unparse(option.value) == "List":
            many, inner = True, option.slice
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            inner = ast.parse(inner.value, mode="eval").body
        if isinstance(inner, ast.Name) and inner.id not in (*SCALARS, "UntypedStripeObject", "Any"):
            structure = _typed_dict(*_find(inner.id, where))
    return Param(required, many, structure)


@lru_cache(maxsize=4096)
def _find(name: str, scope: Scope) -> tuple[Scope, ast.ClassDef]:
    """Find a class by the name under which *scope* knows it."""
    tree = _tree(scope.module)
    for depth in range(len(scope.classes), -1, -1):
        around = scope.classes[:depth]
        body: list[ast.stmt] = tree.body
        for outer in around:
            body = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == outer).body
        node, path = _descend(body, name.split("."))
        if node is not None:
            return Scope(scope.module, (*around, *path)), node
    head, _, rest = name.partition(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if head == (alias.asname or alias.name):
                    full = alias.name + (f".{rest}" if rest else "")
                    return _find(full, Scope(node.module))
    raise LookupError(f"{name} in {scope}")


def _descend(body: list[ast.stmt], names: list[str]) -> tuple[ast.ClassDef | None, list[str]]:
    node = next((n for n in body if isinstance(n, ast.ClassDef) and n.name == names[0]), None)
    if node is None or len(names) == 1:
        return node, names
    inner, path = _descend(node.body, names[1:])
    return inner, [names[0], *path]


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((SDK.parent / (module.replace(".", "/") + ".py")).read_text())
