"""What a flush needs of the world, as ports: the services fill them in production, the simulation in proof.

Each method is one round trip and so one point at which a worker can die; there are no others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from billing.budget import Lane
from billing.change_feed import Change
from billing.invoicing.flush_policy import AT_ONCE, Schedule
from billing.invoicing.snapshot import Flight, Hold, Lease, Op, Snapshot, StripeLine
from billing.ledger.syncs import SyncFailure, SyncOutcome
from billing.stripe import Answer
from billing.usage import CustomerId, LineKey, Period, Price


class HeldPort(Protocol):
    """A lease and the picture of the period that was taken with it."""

    @property
    def lease(self) -> Lease:
        """The right to write."""

    @property
    def snapshot(self) -> Snapshot:
        """The period, read in the same script."""


class LedgerPort(Protocol):
    """The part of the ledger that a flush uses; see `billing.ledger.Ledger`."""

    async def acquire(
        self,
        customer: CustomerId,
        period: Period,
        *,
        lease_ms: int = ...,
    ) -> HeldPort | None:
        """The lease and a snapshot, None while another worker holds it."""

    async def renew(self, lease: Lease, lease_ms: int = ...) -> None:
        """Keep the lease; LeaseLost when it is somebody else's."""

    async def prepare(self, lease: Lease, flight: Flight) -> bool:
        """Write the requests down before the first is sent; False if they would leave a correction out."""

    async def mark(self, lease: Lease, index: int) -> None:
        """The request at *index* is done."""

    async def in_doubt(self, lease: Lease) -> None:
        """A request may have been executed, or may yet be."""

    async def commit(  # noqa: PLR0913 one argument a fact, as the ledger writes it
        self,
        lease: Lease,
        *,
        version: str | None,
        verify: str | None,
        invoice: str | None,
        lines: Mapping[LineKey, StripeLine],
        seq: int | None = None,
        invoice_generation: int | None = None,
        doubt: bool = False,
        final: bool = False,
    ) -> None:
        """Drop the flight and remember what Stripe has; see the ledger for what None and "" mean."""

    async def release(
        self,
        lease: Lease,
        *,
        delay_ms: int = ...,
        sync: SyncOutcome | None = None,
    ) -> list[str]:
        """Let go; due again after *delay_ms* unless everything is told. The syncs that this was a run of."""

    async def close(self, customer: CustomerId, period: Period) -> bool:
        """Cut the period: later usage goes to the next one."""

    async def seal(
        self,
        lease: Lease,
        *,
        version: str,
        residuals: Mapping[LineKey, Decimal],
    ) -> bool:
        """End the period and carry *residuals* on; False when the ledger has moved past *version*."""

    async def park(self, lease: Lease, failure: SyncFailure, sync: SyncOutcome) -> list[str]:
        """Set the period aside until somebody acts, or an hour has passed; *sync*: what was done.

        Answers as `release` does.
        """

    async def peek(self, customer: CustomerId, period: Period) -> Snapshot:
        """A period as it stands, without a lease."""

    async def request_verify(self, customer: CustomerId, period: Period) -> None:
        """Have the period's next flush, due now, read Stripe's side before it writes."""

    async def hold_once(self, customer: CustomerId, reason: str, by: str, about: str) -> None:
        """Stop billing *customer* because of *about*, unless that was ever done; after a hold that stands."""

    async def held(self, customer: CustomerId) -> Hold | None:
        """The hold that stands now, which may be younger than the snapshot."""


class StripePort(Protocol):
    """The part of Stripe's door that a flush uses; see `billing.stripe.StripeApi`."""

    async def send(self, op: Op, *, lane: Lane, not_after: float | None = None) -> Answer:
        """Make one write under its key."""

    async def read(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        lane: Lane,
    ) -> dict[str, Any]:
        """Read one object."""

    async def pages(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        lane: Lane,
    ) -> list[dict[str, Any]]:
        """Read a whole list."""


class CataloguePort(Protocol):
    """Prices by id."""

    async def by_id(self, ids: Any) -> Mapping[str, Price]:
        """The prices among *ids* that exist."""


class CachePort(Protocol):
    """The read cache, told before and after Stripe is changed."""

    async def intend_write(self, *generations: str) -> None:
        """Refuse to keep what is read while a write is under way."""

    async def written(self, *generations: str) -> None:
        """The write is over: what was read before is void."""


class ChangesPort(Protocol):
    """Who is watching."""

    async def publish(self, *changes: Change) -> None:
        """Tell the panels that watch these customers."""


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """Durations in milliseconds.

    *quiet*: nothing may have been in doubt for so long before an invoice is finalized; three times
    Stripe's longest answer at least. *key_life*: Stripe keeps an idempotency key 24 hours, ours are
    not sent after 20. *intent*: an older intent to finalize is planned anew. *schedule*: when usage
    that nobody asked about is worth a call.
    """

    quiet: int = 600_000
    intent: int = 300_000
    key_life: int = 72_000_000
    lease: int = 60_000
    retry_base: int = 500
    retry_cap: int = 300_000
    held: int = 3_600_000
    schedule: Schedule = AT_ONCE


@dataclass(frozen=True, slots=True)
class FlushPorts:
    """Everything outside: *clock* in seconds since boot, suspended time included; *random* in [0, 1)."""

    ledger: LedgerPort
    stripe: StripePort
    catalogue: CataloguePort
    cache: CachePort
    changes: ChangesPort
    clock: Callable[[], float]
    random: Callable[[], float]
    policy: FlushPolicy = FlushPolicy()
