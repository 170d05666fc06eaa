"""Pages of things: newest first, walked with starting_after and ending_before."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from sandbox.account import Unit
from sandbox.defaults import Json
from sandbox.errors import missing, refuse
from sandbox.forms import Params
from sandbox.shapes import listed, shape
from sandbox.state import Record

PAGING = "limit:int starting_after ending_before "


def page(
    unit: Unit,
    kind: str,
    params: Params,
    url: str,
    keep: Callable[[Record], bool] = lambda _: True,
) -> Json:
    """Return one page of *kind*, of the customer in *params* if there is one, that *keep* accepts."""
    state, limit, owner = unit.account.state, page_size(params), params.get("customer")

    def accepted(records: Iterable[Record]) -> list[Record]:
        wanted = (r for r in records if not r.get("deleted") and _created(r, params) and keep(r))
        return list(islice(wanted, limit + 1))

    if mark := params.get("ending_before"):
        newer = unit.get(kind, mark, "ending_before")
        found = accepted(state.after(kind, newer, owner))
        shown = found[:limit][::-1]
    else:
        mark = params.get("starting_after")
        older = unit.get(kind, mark, "starting_after") if mark else None
        found = accepted(state.before(kind, older, owner))
        shown = found[:limit]
    return listed(url, [shape(unit, kind, record) for record in shown], has_more=len(found) > limit)


def page_of(shown: Sequence[Json], params: Params, url: str, noun: str) -> Json:
    """Return one page of objects that are already in their order."""
    limit, ids = page_size(params), [each["id"] for each in shown]
    if mark := params.get("ending_before"):
        end = _index(ids, mark, noun, "ending_before")
        start = max(end - limit, 0)
        return listed(url, shown[start:end], has_more=start > 0)
    mark = params.get("starting_after")
    start = _index(ids, mark, noun, "starting_after") + 1 if mark else 0
    return listed(url, shown[start : start + limit], has_more=len(shown) > start + limit)


def within(value: int | None, bounds: dict[str, int | None] | None) -> bool:
    """Tell whether *value* satisfies gt, gte, lt and lte."""
    if bounds is None:
        return True
    if value is None:
        return False
    holds = {
        "gt": lambda bound: value > bound,
        "gte": lambda bound: value >= bound,
        "lt": lambda bound: value < bound,
        "lte": lambda bound: value <= bound,
    }
    return all(holds[name](bound) for name, bound in bounds.items() if bound is not None)


def equals(params: Params, *names: str) -> Callable[[Record], bool]:
    """Return a test that a record has the values *params* gives for *names*."""
    wanted = {name: params[name] for name in names if params.get(name) is not None}
    return lambda record: all(record.get(name) == value for name, value in wanted.items())


def _created(record: Record, params: Params) -> bool:
    return within(record["created"], params.get("created"))


def page_size(params: Params) -> int:
    """Return how many a page may hold: 10 unless told, 100 at most."""
    limit: Any = params.get("limit")
    if limit is None:
        limit = 10
    if not 1 <= limit <= 100:  # noqa: PLR2004
        raise refuse("Invalid limit: must be between 1 and 100.", param="limit")
    if params.get("starting_after") and params.get("ending_before"):
        raise refuse("You may only specify one of starting_after, ending_before.")
    return int(limit)


def _index(ids: list[str], mark: str, noun: str, param: str) -> int:
    if mark not in ids:
        raise missing(noun, mark, param, 400)
    return ids.index(mark)
