"""Keys of the read cache's entries, and names of the generations under which they are valid.

The generation of a Stripe object is named by its id (``cus_…``, ``in_…``). A change of an invoice
replaces the invoice's generation and its customer's in one ``cache.invalidate(invoice, customer)``, or
``ANY_CUSTOMER`` if the customer is unknown. Other generations are named here. Filling and invalidating
use the same name: a name spelt in two places is a stale panel.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec
import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")

PRICE_CATALOG = "catalogue"
"""Generation of all prices and products."""

PRICE_LIST = "prices"
"""Generation of the list of active prices alone: replaced to read it again for a SKU that it lacks."""

PRICE_CATALOG_FRESH_TTL = 900.0
"""Seconds; reading the catalog takes one call for each hundred prices."""

CUSTOMERS = "customers"
"""Generation of every list of customers: replaced when a customer or a payment method changes."""

ANY_CUSTOMER = "anybody"
"""Generation of all customers' objects: replaced by an event that does not name the customer."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A cache entry: its *key*, and the *generations* under which it is valid.

    *fresh_ttl* is in seconds; None: the policy's.
    """

    key: str
    generations: tuple[str, ...]
    fresh_ttl: float | None = None

    def encode(self, value: object, loaded_at: datetime) -> bytes:
        """Encode *value*, whose load began at *loaded_at*."""
        return _encoder.encode(_Stored(self.key, loaded_at.timestamp(), value))

    def decode(self, stored: bytes, type_: Any) -> tuple[Any, datetime] | None:
        """Decode the value, of *type_*, and its load time.

        None if *stored* is empty, belongs to another entry, or was stored by a version whose records had
        other fields.
        """
        if not stored:
            return None
        try:
            found = _decoder(type_).decode(stored)
        except msgspec.DecodeError as error:
            log.warning("cache.unreadable", key=self.key, error=type(error).__name__)
            return None
        if found.key != self.key:
            log.error("cache.key_mismatch", key=self.key)
            return None
        return found.value, datetime.fromtimestamp(found.at, UTC)


class _Stored(msgspec.Struct, Generic[T]):
    """A stored value, with its entry's key and the time of its load in seconds since 1970."""

    key: str
    at: float
    value: T | None


_encoder = msgspec.json.Encoder()


@cache
def _decoder(type_: Any) -> "msgspec.json.Decoder[_Stored[Any]]":
    return msgspec.json.Decoder(_Stored[type_])


def usage(customer: str) -> str:
    """Generation of a customer's ledger data: usage, syncs, holds, adjustments."""
    return f"usage:{customer}"
