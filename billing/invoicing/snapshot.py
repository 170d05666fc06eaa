"""What a flush reads from the ledger and writes back: one consistent picture of a customer's period.

The ledger fills these, ``plan`` and the workers decide over them; everything is frozen, so a decision
can be recorded, replayed and simulated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing.usage import CustomerId, LineKey, Period


class PeriodState(StrEnum):
    """Where a period stands in the ledger; only forward: open, closing, sealed."""

    OPEN = "open"
    CLOSING = "closing"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one customer's period for a while; *fence* (``n:nonce``) is checked by every write."""

    customer: CustomerId
    period: Period
    fence: str


@dataclass(frozen=True, slots=True)
class StripeLine:
    """A line of ours as Stripe last confirmed it.

    *amount* is Stripe's, in minor units; *price* the Price id it counts by. A line sent as a bare
    amount (credits: Stripe takes no negative quantity) carries its quantity in our metadata. Where a person
    typed an amount there is no price; *marked* is the one that our metadata still names.
    """

    id: str
    quantity: Decimal
    price: str
    amount: int
    marked: str = ""


class OpKind(StrEnum):
    """The calls a flush can make; each is one HTTP request."""

    CREATE = "create"
    REMOVE_LINES = "remove_lines"
    UPDATE_LINES = "update_lines"
    ADD_LINES = "add_lines"
    DELETE = "delete"
    FINALIZE = "finalize"
    STOP_TIMER = "stop_timer"


@dataclass(frozen=True, slots=True)
class Op:
    """One request, persisted before it is sent: the same body under the same key whoever sends it.

    *params* is JSON-able (decimals as plain strings). *lines* are the line keys it touches.
    """

    kind: OpKind
    method: str
    path: str
    params: Mapping[str, Any]
    key: str
    lines: tuple[LineKey, ...] = ()
    done: bool = False


@dataclass(frozen=True, slots=True)
class PlannedLine:
    """A line as it stands once a flight has landed; *amount* by the rounding rule, in minor units."""

    quantity: Decimal
    price: str
    amount: int


@dataclass(frozen=True, slots=True)
class Flight:
    """The requests of one flush, in flight: written ahead, resumed under the same keys by any worker.

    *version* is the ledger version that the flight brings Stripe up to, *verify* the verify request
    it answers, *first_ms* when it was prepared (Redis time). *landed* is the whole line map that
    Stripe has once every op is done.
    """

    seq: int
    version: str
    verify: str
    first_ms: int
    ops: tuple[Op, ...]
    landed: Mapping[LineKey, PlannedLine] = field(default_factory=dict)

    @property
    def finalizes(self) -> bool:
        """Whether it turns the draft into a bill."""
        return any(op.kind is OpKind.FINALIZE for op in self.ops)


@dataclass(frozen=True, slots=True)
class Hold:
    """Support stopped the billing of this customer: *by* whom (token subject), since when (ms), why."""

    reason: str
    by: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A customer's period at one moment: every field read in the same script.

    *version* and *synced* are ``counter:nonce``; Stripe is up to date when they are equal and
    *verify_requested* equals *verify_done*. *totals* are absolute quantities by line, *prices* the
    Price id pinned for each line at its first usage, *lines* what Stripe last confirmed. *conflicts*
    counts this customer's reports whose id had come with other content. *asked*: somebody waits for
    a sync of it. *final*: its invoice was seen to be a draft no longer.
    """

    customer: CustomerId
    period: Period
    currency: str
    state: PeriodState
    now_ms: int
    epoch: str
    version: str
    synced: str | None
    verify_requested: str
    verify_done: str
    invoice: str | None
    invoice_generation: int
    seq: int
    ambiguous_ms: int
    pending_deltas: int
    oldest_pending_ms: int | None
    synced_ms: int | None
    hold: Hold | None
    stuck: str | None
    attempts: int
    crashes: int
    totals: Mapping[LineKey, Decimal]
    prices: Mapping[LineKey, str]
    lines: Mapping[LineKey, StripeLine]
    flight: Flight | None
    conflicts: int = 0
    asked: bool = False
    final: bool = False

    @property
    def told(self) -> bool:
        """Whether Stripe has been told everything that the ledger knows."""
        return self.version == self.synced

    @property
    def up_to_date(self) -> bool:
        """Whether nothing is left to do: all is told, and Stripe's side was looked at since it was asked for."""
        return self.told and self.verify_requested == self.verify_done
