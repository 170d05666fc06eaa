"""The state of a customer's billing period.

The ledger builds these values, ``diff`` and the workers decide by them. All of them are frozen, so a
decision can be recorded, replayed and simulated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from billing.invoicing.request_batch import RequestBatch
from billing.usage import CustomerId, LineKey, Period


class PeriodState(StrEnum):
    """State of a period in the ledger. It only moves forward: open, closing, sealed."""

    OPEN = "open"
    CLOSING = "closing"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class Lease:
    """The time-limited right to write one customer's period; every write checks *fence* (``n:nonce``)."""

    customer: CustomerId
    period: Period
    fence: str


@dataclass(frozen=True, slots=True)
class StripeLine:
    """One of our invoice lines as Stripe last confirmed it.

    *amount* is Stripe's amount in minor units, *price* the id of the Price. A line that was sent as a
    bare amount (a credit: Stripe accepts no negative quantity) has its quantity in our metadata. If a person
    typed an amount, *price* is empty and *metadata_price* is the price id in our metadata. *bare_amount*: its
    positive quantity was sent as a bare amount, because Stripe accepts no new line by its price.
    """

    id: str
    quantity: Decimal
    price: str
    amount: int
    metadata_price: str = ""
    bare_amount: bool = False


GATEWAY = "gateway"
"""``Hold.by`` of a hold that the gateway placed itself."""
CUSTOMER_DELETED = "customer_deleted"
"""The failure code of a period whose usage cannot be billed, because Stripe has deleted its customer."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A stop of this customer's billing. *by* is the token subject of who placed it, *since_ms* the time."""

    reason: str
    by: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A customer's period at one moment; all fields are read by one script.

    *version* and *synced_version* are ``counter:nonce``; Stripe is up to date when they are equal and
    *verify_requested* equals *verify_done*. *totals* are absolute quantities by line, *prices* the
    Price id pinned for each line at its first usage, *lines* what Stripe last confirmed. *conflicts*
    counts this customer's reports that reused an id for other content. *sync_requested*: a panel waits
    for a sync. *final*: a flush saw that the invoice is no longer a draft. *rewound*: the invoice shows
    usage that the ledger has lost. *stripe_version* is the version that the invoice named last.
    *customer_deleted*: Stripe has deleted the customer. *edited_ms* is the time at which somebody last edited the
    draft in Stripe, *closed_ms* that at which the period was closed.
    """

    customer: CustomerId
    period: Period
    currency: str
    state: PeriodState
    now_ms: int
    epoch: str
    version: str
    synced_version: str | None
    verify_requested: str
    verify_done: str
    invoice: str | None
    invoice_generation: int
    seq: int
    in_doubt_since_ms: int
    pending_deltas: int
    oldest_pending_ms: int | None
    synced_ms: int | None
    hold: Hold | None
    parked_reason: str | None
    attempts: int
    crashes: int
    totals: Mapping[LineKey, Decimal]
    prices: Mapping[LineKey, str]
    lines: Mapping[LineKey, StripeLine]
    batch: RequestBatch | None
    conflicts: int = 0
    sync_requested: bool = False
    final: bool = False
    rewound: bool = False
    stripe_version: str = ""
    customer_deleted: bool = False
    edited_ms: int | None = None
    closed_ms: int | None = None

    @property
    def last_seq(self) -> int:
        """Number of the last flush that the ledger knows."""
        return max(self.seq, 0 if self.batch is None else self.batch.seq)

    @property
    def is_synced(self) -> bool:
        """True if Stripe has everything that the ledger has."""
        return self.version == self.synced_version

    @property
    def verify_pending(self) -> bool:
        """True if Stripe's invoice must be read before the next write."""
        return self.verify_requested != self.verify_done

    @property
    def up_to_date(self) -> bool:
        """True if nothing is left to do: synced, and every verify request is answered."""
        return self.is_synced and not self.verify_pending
