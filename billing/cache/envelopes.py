"""What a cached value is wrapped in: its own key, checked on every read, and when it was loaded."""

from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from billing.cache.entries import Entry

log = structlog.get_logger(__name__)


def sealed(entry: Entry, value: Any | None, began: datetime) -> bytes:
    """*value* (JSON-able) of *entry*, whose load began at *began*."""
    return orjson.dumps({"key": entry.key, "at": began.timestamp(), "value": value})


def opened(entry: Entry, kept: bytes) -> tuple[Any | None, datetime] | None:
    """The value and the time in *kept*; None when there is nothing, or something that is not *entry*'s."""
    if not kept:
        return None
    try:
        envelope = orjson.loads(kept)
        if envelope["key"] == entry.key:
            return envelope["value"], datetime.fromtimestamp(envelope["at"], UTC)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    log.error("cache.foreign_value", key=entry.key)
    return None
