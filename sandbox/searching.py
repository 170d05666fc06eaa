"""Stripe's search language, as far as customers and invoices need it, with its lag."""

import re
from collections.abc import Callable
from typing import Any, Final

from sandbox.account import Unit
from sandbox.defaults import Json
from sandbox.errors import refuse
from sandbox.forms import Params
from sandbox.lists import page_size
from sandbox.shapes import shape
from sandbox.state import Record

_CLAUSE: Final = re.compile(
    r"""(?P<not>-)?(?P<field>\w+)(?:\[["'](?P<key>[^"']+)["']\])?\s*"""
    r"""(?P<op>:|~|>=|<=|>|<)\s*(?:"(?P<text>[^"]*)"|'(?P<text2>[^']*)'|(?P<bare>[\w.]+))"""
)
SEARCHABLE: Final = {
    "customers": {"created", "email", "metadata", "name", "phone"},
    "invoices": {
        "created",
        "currency",
        "customer",
        "metadata",
        "number",
        "receipt_number",
        "status",
        "subscription",
        "total",
    },
}


def customers(unit: Unit, params: Params) -> Json:
    """Search customers."""
    return _search(unit, params, "customers")


def invoices(unit: Unit, params: Params) -> Json:
    """Search invoices."""
    return _search(unit, params, "invoices")


def _search(unit: Unit, params: Params, kind: str) -> Json:
    wanted = _parse(kind, params["query"])
    newest = unit.now - unit.account.settings.search_lag
    records = unit.account.state.newest_first(kind)
    visible = (r for r in records if not r.get("deleted") and r["created"] <= newest)
    found = [record for record in visible if wanted(record)]
    limit, start = page_size(params), _number(params.get("page") or "0")
    more = start + limit < len(found)
    return {
        "object": "search_result",
        "data": [shape(unit, kind, record) for record in found[start : start + limit]],
        "has_more": more,
        "next_page": str(start + limit) if more else None,
        "total_count": len(found),
        "url": f"/v1/{kind}/search",
    }


def _parse(kind: str, query: str) -> Callable[[Record], bool]:
    clauses, joins, rest = [], [], query.strip()
    while rest:
        match = _CLAUSE.match(rest)
        if match is None or match["field"] not in SEARCHABLE[kind]:
            raise refuse(f"We were unable to parse your search query: {rest}", param="query")
        clauses.append(_clause(match))
        rest = rest[match.end() :].strip()
        join = re.match(r"(AND|OR)\s+", rest, re.IGNORECASE)
        if join is not None:
            joins.append(join[1].upper())
            rest = rest[join.end() :]
        elif rest:
            joins.append("AND")
    if not clauses or len(set(joins)) > 1:
        raise refuse("You cannot combine AND and OR in one search query.", param="query")
    combine = any if "OR" in joins else all
    return lambda record: combine(clause(record) for clause in clauses)


def _clause(match: re.Match[str]) -> Callable[[Record], bool]:
    text = next(v for v in (match["text"], match["text2"], match["bare"]) if v is not None)

    def holds(record: Record) -> bool:
        value = record.get(match["field"])
        if match["field"] == "total":
            value = sum(line["amount"] for line in record["_lines"])
        if match["key"] is not None:
            value = (value or {}).get(match["key"])
        return _compared(value, match["op"], text) != bool(match["not"])

    return holds


def _compared(value: Any, op: str, text: str) -> bool:
    if value is None:
        return text == "null"
    if op == "~":
        return text.lower() in str(value).lower()
    if op == ":":
        return str(value).lower() == text.lower()
    number, bound = _number(str(value)), _number(text)
    return {">": number > bound, ">=": number >= bound, "<": number < bound, "<=": number <= bound}[
        op
    ]


def _number(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,15}", text, re.ASCII):
        raise refuse(f"Not a number in a search: {text}", param="query")
    return int(text)
