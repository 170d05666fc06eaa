"""The verbs that all kinds share: create, retrieve, update, delete, list, search; and expand.

A verb returns a record, or something that is already in the shape in which it is shown.
"""

import operator
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from typing import Any, Final

from sandbox.account import Record, Unit
from sandbox.errors import missing, refuse
from sandbox.forms import Params
from sandbox.kinds import KINDS
from sandbox.sdk import Json
from sandbox.shapes import listed, shape

PAGING: Final = {"limit", "starting_after", "ending_before"}
# Fields that can be expanded, and where what they name is kept.
EXPANDABLE: Final = {
    "customer": "customers",
    "invoice": "invoices",
    "price": "prices",
    "product": "products",
    "default_payment_method": "payment_methods",
}
SEARCHABLE: Final = {"customers": {"created", "email", "metadata", "name", "phone"}}
_CLAUSE: Final = re.compile(
    r"""(-?)(\w+)(?:\[["'](.+?)["']\])?\s*(:|~|>=|<=|>|<)\s*(?:"([^"]*)"|'([^']*)'|([\w.]+))"""
    r"""(?:\s+(AND|OR)\s+|$)"""
)
COMPARED: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def create(kind: str, unit: Unit, params: Params) -> Record:
    """Create an object of what was sent."""
    return unit.create(kind, {"updated": unit.now} | changes({}, params))


def retrieve(kind: str, unit: Unit, _: Params, *ids: str) -> Record:
    """Return one object; of a deleted customer, its tombstone."""
    tombstone = unit.find(kind, ids[0]) if kind == "customers" else None
    return tombstone or _owned(kind, unit, *ids)


def update(kind: str, unit: Unit, params: Params, *ids: str) -> Record:
    """Change what was sent and nothing else."""
    old = _owned(kind, unit, *ids)
    return unit.change(kind, old, **changes(old, params) | {"updated": unit.now})


def delete(kind: str, unit: Unit, _: Params, object_id: str) -> Record:
    """Delete an object."""
    unit.remove(kind, unit.get(kind, object_id))
    return {"id": object_id, "deleted": True}


def find(kind: str, unit: Unit, params: Params, *owner: str) -> Json:
    """List what the filters leave, newest first; of one customer, if the path names it."""
    path = f"/v1/customers/{owner[0]}/{kind}" if owner else f"/v1/{kind}"
    customer = unit.get("customers", owner[0])["id"] if owner else params.get("customer")
    ids, show = unit.account.ids(kind, customer), partial(shape, unit, kind)
    kept = wanted(unit, kind, params if customer is None else params | {"customer": customer})
    return page(path, params, unit.account.rows[kind], ids, show, kept)


def wanted(unit: Unit, kind: str, params: Params) -> Callable[[Record], bool]:
    """Return the test that the filters in *params* are."""
    filters = {k: v for k, v in params.items() if k not in PAGING and v not in (None, [])}
    bare = KINDS[kind].blank
    return lambda record: (
        not record.get("deleted")
        and all(_matches(unit, {**bare, **record}, *each) for each in filters.items())
    )


def search(kind: str, unit: Unit, params: Params) -> Json:
    """Search as Stripe does: in its language, and only what has been there for a while."""
    meant = _parsed(params["query"].strip(), SEARCHABLE[kind])
    newest, rows = unit.now - unit.account.settings.search_lag, unit.account.rows[kind]
    seen = [r for r in reversed(rows.values()) if r.get("created", newest + 1) <= newest]
    found = [record for record in seen if meant(record)]
    start = _number(params.get("page") or "0")
    end = start + page_size(params)
    shown = [shape(unit, kind, record) for record in found[start:end]]
    answer = listed(f"/v1/{kind}/search", shown, has_more=end < len(found))
    return answer | {"object": "search_result", "next_page": str(end) if found[end:] else None}


def changes(old: Record, params: Params) -> Record:
    """Return what *params* change in *old*: hashes are merged, metadata as Stripe merges it."""
    new = {}
    for name, value in params.items():
        if name == "metadata":
            new[name] = merged(old.get(name), value)
        else:
            held = old.get(name)
            new[name] = {**(held or {}), **value} if isinstance(value, dict) else value
    return {name: value for name, value in new.items() if value != old.get(name)}


def merged(old: Mapping[str, str] | None, new: Mapping[str, str]) -> dict[str, str]:
    """Merge metadata: an empty value deletes its key, an empty hash all of them."""
    held = {} if new == {"": ""} else {**(old or {}), **new}
    result = {key: value for key, value in held.items() if value != ""}
    if len(result) > 50:  # noqa: PLR2004
        raise refuse("You can have at most 50 metadata keys.", param="metadata")
    return result


def page(
    url: str,
    params: Params,
    rows: Mapping[str, Record],
    ids: Any,
    show: Callable[[Record], Json],
    kept: Callable[[Record], bool] = lambda _: True,
) -> Json:
    """Return the page of *rows* that the cursors mean; the last of *ids* is the list's first."""
    limit, before = page_size(params), params.get("ending_before")
    walk = reversed(ids)
    if mark := before or params.get("starting_after"):
        if mark not in rows:
            raise missing("object", mark, "ending_before" if before else "starting_after")
        order = list(ids)
        place = order.index(mark) if mark in order else 0
        walk = iter(order[place + 1 :]) if before else reversed(order[:place])
    found = islice((rows[i] for i in walk if i in rows and kept(rows[i])), limit + 1)
    shown = [show(record) for record in found]
    data = shown[:limit][::-1] if before else shown[:limit]
    return listed(url, data, has_more=len(shown) > limit)


def page_size(params: Params) -> int:
    """Return how many a page may hold: 10 unless told, 100 at most."""
    limit: int = 10 if params.get("limit") is None else params["limit"]
    if not 1 <= limit <= 100:  # noqa: PLR2004
        raise refuse("Invalid limit: must be between 1 and 100.", param="limit")
    return limit


def expand(unit: Unit, node: Any, path: str) -> Any:
    """Return *node* with the ids on a dotted path replaced by what they name."""
    if path.count(".") > 3:  # noqa: PLR2004
        raise refuse(f"You cannot expand more than 4 levels: {path}", param="expand")
    name, _, rest = path.partition(".")
    if isinstance(node, list):
        return [expand(unit, each, path) for each in node]
    value = node.get(name) if isinstance(node, dict) else None
    if name == "payments" and isinstance(node, dict) and node.get("object") == "invoice":
        params = {"customer": node["customer"], "invoice": node["id"]}
        value = find("invoice_payments", unit, params)
    elif isinstance(value, str) and name in EXPANDABLE:
        record = unit.find(EXPANDABLE[name], value)
        value = shape(unit, EXPANDABLE[name], record) if record else value
    elif not (name in (node or ()) and (value is None or (rest and not isinstance(value, str)))):
        raise refuse(f"This property cannot be expanded ({path}).", param="expand")
    return {**node, name: expand(unit, value, rest) if rest and value is not None else value}


def _owned(kind: str, unit: Unit, *ids: str) -> Record:
    record = unit.get(kind, ids[-1])
    if len(ids) > 1 and record.get("customer") != ids[0]:
        raise missing(KINDS[kind].name, ids[-1])
    return record


def _matches(unit: Unit, record: Record, name: str, wanted: Any) -> bool:
    if name == "delivery_success":
        return bool(wanted) == (not unit.account.waiting[record["id"]])
    if name == "pending":
        return bool(wanted) == (record["invoice"] is None)
    if name in ("type", "types"):
        kinds = wanted if isinstance(wanted, list) else [wanted]
        return any(fnmatchcase(record["type"], kind) for kind in kinds)
    if isinstance(wanted, list):
        return record.get(name.removesuffix("s")) in wanted
    value = record.get(name)
    if isinstance(wanted, dict):
        bounds = [(sign, bound) for sign, bound in wanted.items() if bound is not None]
        return value is not None and all(COMPARED[sign](value, bound) for sign, bound in bounds)
    return bool(value == wanted)


def _parsed(query: str, fields: set[str]) -> Callable[[Record], bool]:
    tests: list[Callable[[Record], bool]] = []
    joins: set[str] = set()
    place = 0
    while place < len(query) or not tests:
        clause = _CLAUSE.match(query, place)
        if clause is None or clause[2] not in fields or len(joins | {clause[8]} - {None}) > 1:
            raise refuse(f"We were unable to parse your search query: {query}", param="query")
        joins |= {clause[8]} - {None}
        tests.append(_test(clause))
        place = clause.end()
    combined = any if "OR" in joins else all
    return lambda record: combined(test(record) for test in tests)


def _test(clause: re.Match[str]) -> Callable[[Record], bool]:
    negated, field, key, sign, *texts = clause.groups()[:7]
    text = next(text for text in texts if text is not None).lower()
    bound = _number(text if field == "created" else "") if sign in COMPARED else 0

    def holds(record: Record) -> bool:
        value = record.get(field)
        value = (value or {}).get(key) if key else value
        if value is None or sign == ":":
            return ("null" if value is None else str(value).lower()) == text
        return text in str(value).lower() if sign == "~" else COMPARED[sign](int(value), bound)

    return lambda record: holds(record) != bool(negated)


def _number(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,15}", text, re.ASCII):
        raise refuse(f"Not a number in a search: {text}", param="query")
    return int(text)
