"""Envelope of a stored value: its key, which is checked on every read, and the time of its load."""

from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from billing.cache.entries import CacheEntry

log = structlog.get_logger(__name__)


def encode(entry: CacheEntry, value: Any | None, loaded_at: datetime) -> bytes:
    """Encode *value* (JSON-able) of *entry*, whose load began at *loaded_at*."""
    return orjson.dumps({"key": entry.key, "at": loaded_at.timestamp(), "value": value})


def decode(entry: CacheEntry, stored: bytes) -> tuple[Any | None, datetime] | None:
    """The value and load time in *stored*; None if it is empty or not a value of *entry*."""
    if not stored:
        return None
    try:
        envelope = orjson.loads(stored)
        if envelope["key"] == entry.key:
            return envelope["value"], datetime.fromtimestamp(envelope["at"], UTC)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    log.error("cache.key_mismatch", key=entry.key)
    return None
