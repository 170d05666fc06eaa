"""The verbs that all kinds share: create, retrieve, update, delete, list, search; and expand.

A verb returns a record, or an object that is already serialized.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import dropwhile, islice
from typing import Any, Final

from sandbox.account import Account, Record
from sandbox.discounts import shown_discount
from sandbox.errors import bad_request, not_found
from sandbox.params import Params
from sandbox.sdk import KINDS, Json
from sandbox.serializers import list_object, serialize, with_totals

PAGING: Final = {"limit", "starting_after", "ending_before"}
UNLISTED: Final = {"deleted", "inline"}
MAX_PAGE: Final = 100
MAX_EXPANDED: Final = 4
# Expandable field → kind of the object that it names.
EXPANDABLE: Final = {
    "customer": "customers",
    "invoice": "invoices",
    "price": "prices",
    "product": "products",
    "default_payment_method": "payment_methods",
    "payment_intent": "payment_intents",
}
SEARCHABLE: Final = {
    "customers": {"created", "email", "metadata", "name", "phone"},
    "invoices": {
        *("created", "currency", "customer", "metadata", "number", "receipt_number", "status"),
        "subscription",
    },
}
MAX_CLAUSES: Final = 10
MIN_SUBSTRING: Final = 3
_CLAUSE: Final = re.compile(
    r"""(?P<not>-?)(?P<field>\w+)(?:\[["'](?P<key>.+?)["']\])?\s*(?P<sign>:|~|>=|<=|>|<)\s*"""
    r"""(?:(?P<quote>["'])(?P<text>(?:\\.|(?!(?P=quote)).)*)(?P=quote)|(?P<word>[\w.]+))"""
    r"""(?:\s+(?P<join>AND|OR)\s+|$)""",
    re.DOTALL,
)
# As list filters and as search queries write them.
COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def create(kind: str, account: Account, params: Params) -> Record:
    """Create an object from the parameters."""
    return account.create(kind, {"updated": account.now, **params})


def retrieve(kind: str, account: Account, _: Params, *ids: str) -> Record:
    """Return one object; for a deleted customer, its tombstone."""
    record = account.rows[kind].get(ids[-1]) if kind == "customers" else None
    record = record or account.get(kind, ids[-1])
    if len(ids) > 1 and record.get("customer") != ids[0]:
        raise not_found(KINDS[kind].name, ids[-1])
    return record


def update(kind: str, account: Account, params: Params, *ids: str) -> Record:
    """Change the fields that were sent and no others."""
    old = retrieve(kind, account, {}, *ids)
    return account.change(kind, old, {**params, "updated": account.now})


def delete(kind: str, account: Account, _: Params, object_id: str) -> Record:
    """Delete an object."""
    return account.remove(kind, account.get(kind, object_id))


def list_objects(kind: str, account: Account, params: Params, *owner: str) -> Json:
    """List the objects that match the filters, newest first; *owner* is the customer or invoice in the path."""
    if kind == "lines":  # in the invoice's own order
        items = reversed(account.get("invoices", *owner)["held"])
        url, rows = f"/v1/invoices/{owner[0]}/lines", {item["line"]: item for item in items}
    else:
        if owner:
            params["customer"] = account.get("customers", *owner)["id"]
        url = f"/v1/customers/{owner[0]}/{kind}" if owner else f"/v1/{kind}"
        rows = account.owned_by(kind, params.get("customer"))
    filters = [(k, v) for k, v in params.items() if k not in PAGING and v not in (None, [])]
    limit, before, bare = _page_size(params), params.get("ending_before"), KINDS[kind].blank
    walk: Iterator[str] = iter(rows) if before else reversed(rows)
    if cursor := before or params.get("starting_after"):
        if cursor not in rows:
            raise not_found("object", cursor, "ending_before" if before else "starting_after")
        walk = islice(dropwhile(cursor.__ne__, walk), 1, None)
    live = (row for row in map(rows.__getitem__, walk) if not row.keys() & UNLISTED)
    matching = (row for row in live if all(_matches(account, bare | row, *f) for f in filters))
    shown = [serialize(account, kind, row) for row in islice(matching, limit + 1)]
    data = shown[:limit][::-1] if before else shown[:limit]
    if kind == "lines":
        data = with_totals(account, account.get("invoices", *owner), data)
    return list_object(url, data, has_more=len(shown) > limit)


def search(kind: str, account: Account, params: Params) -> Json:
    """Search in Stripe's query language, among the objects that are older than the search lag."""
    matches = _parse_query(params["query"].strip(), SEARCHABLE[kind])
    newest = account.now - account.settings.search_lag
    rows = [row for row in account.rows[kind].values() if row.get("created", newest + 1) <= newest]
    found = [row for row in reversed(rows) if matches(row)]
    start = _number(params.get("page") or "0")
    end = start + _page_size(params)
    shown = [serialize(account, kind, row) for row in found[start:end]]
    page = list_object(f"/v1/{kind}/search", shown, has_more=end < len(found))
    return page | {"object": "search_result", "next_page": str(end) if found[end:] else None}


def expand(account: Account, node: Any, path: str) -> Any:
    """Return *node* with the ids on a dotted path replaced by their objects."""
    if path.count(".") >= MAX_EXPANDED:
        raise bad_request(
            f"You cannot expand more than {MAX_EXPANDED} levels: {path}", param="expand"
        )
    if isinstance(node, list):
        return [expand(account, item, path) for item in node]
    name, _, rest = path.partition(".")
    value = node.get(name, "") if isinstance(node, dict) else ""
    if name == "payments" and _is(node, "invoice"):
        value = list_objects("invoice_payments", account, {"invoice": node["id"]})
    elif name in ("tiers", "currency_options") and _is(node, "price"):
        value = account.rows["prices"][node["id"]].get(name)
    elif name == "discounts" and _is(node, "invoice"):
        found = account.rows["invoices"].get(node["id"], {}).get("discounts") or ()
        return node | {"discounts": [shown_discount(discount) for discount in found]}
    elif value and name in EXPANDABLE and isinstance(value, str):
        record = account.rows[EXPANDABLE[name]].get(value)
        value = serialize(account, EXPANDABLE[name], record) if record else value
    elif isinstance(value, str) or not (value is None or rest):
        raise bad_request(f"This property cannot be expanded ({path}).", param="expand")
    return {**node, name: expand(account, value, rest) if rest and value is not None else value}


def _is(node: Any, name: str) -> bool:
    return isinstance(node, dict) and node.get("object") == name


def _page_size(params: Params) -> int:
    limit: int = 10 if params.get("limit") is None else params["limit"]
    if not 1 <= limit <= MAX_PAGE:
        raise bad_request(f"Invalid limit: must be between 1 and {MAX_PAGE}.", param="limit")
    return limit


def _matches(account: Account, record: Record, name: str, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_matches(account, record, name.removesuffix("s"), value) for value in wanted)
    if name in ("delivery_success", "pending"):
        missed = account.pending_endpoints(record["id"]) if name != "pending" else record["invoice"]
        return bool(wanted) == (not missed)
    value = record.get(name)
    if isinstance(wanted, dict):
        bounds = [(sign, bound) for sign, bound in wanted.items() if bound is not None]
        if name == "recurring":
            return value is not None and all(value[part] == text for part, text in bounds)
        return value is not None and all(COMPARISONS[sign](value, bound) for sign, bound in bounds)
    return fnmatchcase(value, wanted) if name == "type" else bool(value == wanted)


def _parse_query(query: str, fields: set[str]) -> Callable[[Record], bool]:
    clauses = list(_CLAUSE.finditer(query))
    joins = {clause["join"] for clause in clauses} - {None}
    known = {clause["field"] for clause in clauses} <= fields and len(joins) <= 1
    whole = "".join(clause[0] for clause in clauses) == query and len(clauses) <= MAX_CLAUSES
    if not (clauses and known and whole):
        raise bad_request(f"We were unable to parse your search query: {query}", param="query")
    tests, combined = [_predicate(clause) for clause in clauses], any if "OR" in joins else all
    return lambda record: combined(test(record) for test in tests)


def _predicate(clause: re.Match[str]) -> Callable[[Record], bool]:
    field, key, sign = clause["field"], clause["key"], clause["sign"]
    text = clause["word"] or re.sub(r"\\(.)", r"\1", clause["text"] or "", flags=re.DOTALL)
    text = text.lower()
    bound = _number(text if field == "created" else "") if sign in COMPARISONS else 0
    if sign == "~" and (len(text) < MIN_SUBSTRING):
        raise bad_request(
            f"A substring search needs a text of {MIN_SUBSTRING} characters.", param="query"
        )

    def holds(record: Record) -> bool:
        value = record.get(field)
        value = (value or {}).get(key) if key else value
        if value is None or sign == ":":
            return ("null" if value is None else str(value).lower()) == text
        return text in str(value).lower() if sign == "~" else COMPARISONS[sign](int(value), bound)

    return lambda record: holds(record) != bool(clause["not"])


def _number(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,15}", text, re.ASCII):
        raise bad_request(f"Not a number in a search: {text}", param="query")
    return int(text)
