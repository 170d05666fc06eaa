"""The request batch that a flush writes ahead: exact requests with their keys, and the lines they lead to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing.usage import LineKey


class RequestKind(StrEnum):
    """The kinds of request that a flush makes. The values are stored in the ledger."""

    CREATE = "create"
    REMOVE_LINES = "remove_lines"
    UPDATE_LINES = "update_lines"
    ADD_LINES = "add_lines"
    DELETE = "delete"
    FINALIZE = "finalize"
    DISABLE_AUTO_ADVANCE = "stop_timer"


@dataclass(frozen=True, slots=True)
class StripeRequest:
    """One HTTP request, stored before it is sent, so that any worker sends the same body under the same key.

    *params* can be encoded as JSON (decimals are strings). *lines* are the keys of the lines it changes.
    """

    kind: RequestKind
    method: str
    path: str
    params: Mapping[str, Any]
    idempotency_key: str
    lines: tuple[LineKey, ...] = ()
    done: bool = False


@dataclass(frozen=True, slots=True)
class PlannedLine:
    """A line as the invoice should have it; *amount* follows Stripe's rounding rule, in minor units."""

    quantity: Decimal
    price: str
    amount: int


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """The requests of one flush: written ahead, and resumed under the same keys by any worker.

    *version* is the ledger version that the batch brings Stripe up to, *verify* the verify request
    that it answers, *prepared_ms* the time of its preparation (Redis time). *expected_lines* are all of
    our lines at Stripe once every request is done.
    """

    seq: int
    version: str
    verify: str
    prepared_ms: int
    requests: tuple[StripeRequest, ...]
    expected_lines: Mapping[LineKey, PlannedLine] = field(default_factory=dict)

    @property
    def finalizes(self) -> bool:
        """True if the batch finalizes the invoice."""
        return any(request.kind is RequestKind.FINALIZE for request in self.requests)

    @property
    def deletes(self) -> bool:
        """True if the batch deletes a draft."""
        return any(request.kind is RequestKind.DELETE for request in self.requests)
