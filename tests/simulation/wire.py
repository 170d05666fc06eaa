"""What goes over the wire to Stripe: requests, replies, pages, and every way in which a request can fail."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar, cast

import orjson

T = TypeVar("T")

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LATEST_DELIVERY_MS = HOUR_MS


class Fault(StrEnum):
    """A fault of one POST or DELETE."""

    LIMITED = "429"
    CONFLICT = "409"
    BAD_GATEWAY = "502"
    LOST_REQUEST = "lost request"
    LOST_REPLY = "lost reply"
    LATE = "late delivery"
    ERROR_BEFORE = "500 before effect"
    ERROR_AFTER = "500 after effect"
    ERROR_PARTIAL = "500 after part of the effect"
    REFUSED = "400, not stored"
    READ_FAILED = "failed read"


BEFORE_EXECUTION = {
    Fault.LIMITED: (429, "rate_limit"),
    Fault.CONFLICT: (409, "idempotency_key_in_use"),
    Fault.BAD_GATEWAY: (502, "none"),
    Fault.LOST_REQUEST: (0, "none"),
    Fault.REFUSED: (400, "price_inactive"),
}
"""Faults that end a request before it has an effect."""


@dataclass(frozen=True)
class Request:
    """One HTTP request on its way."""

    method: str
    path: str
    params: Mapping[str, Any]
    key: str


@dataclass(frozen=True)
class Reply:
    """The response; *status* 0 means none arrived."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    replayed: bool = False


class Refusal(Exception):
    """A 4xx."""

    def __init__(self, status: int, code: str, param: str | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.param = param


@dataclass
class Stored:
    """The first outcome of a key."""

    at: int
    body: str
    reply: Reply


def copied(value: T) -> T:
    """Copy what is JSON, faster than `copy.deepcopy`."""
    return cast("T", orjson.loads(orjson.dumps(value)))


def page_of(items: list[dict[str, Any]], params: Mapping[str, Any]) -> dict[str, Any]:
    """The page of *items* that *params* ask for."""
    after = params.get("starting_after")
    start = (
        0 if after is None else next(n for n, item in enumerate(items) if item["id"] == after) + 1
    )
    limit = int(params.get("limit", 10))
    return {"data": items[start : start + limit], "has_more": len(items) > start + limit}


def flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    """*value* as pairs of a path and a text: two requests are the same if these are."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in flat(item, f"{path}.{key}")]
    if isinstance(value, list | tuple):
        return [pair for n, item in enumerate(value) for pair in flat(item, f"{path}.{n}")]
    return [(path, str(value))]
