"""Policy and dependencies of a flush; the simulation passes doubles.

Each call to a dependency is one round trip, and a worker can die between any two of them, nowhere else:

- the ledger's leases: acquire, renew, prepare, mark_request_done, mark_in_doubt, commit, release, park
- its periods: snapshot, request_verify, close, seal; its holds: get, place_once
- Stripe: send (one write under its idempotency key), read, list_all
- prices by id; the cache's begin_write and end_write; publishing a change
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from billing.cache import Cache
from billing.change_feed import ChangeFeed
from billing.invoicing.flush_schedule import IMMEDIATE, FlushSchedule
from billing.ledger import Ledger
from billing.services import Services
from billing.settings import Settings
from billing.stripe import StripeApi, boottime
from billing.stripe.price_catalog import PriceCatalog


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """Durations in milliseconds, and the schedule of usage that no panel waits for.

    *quiet_ms*: an invoice is finalized only after no request was in doubt for so long; at least three
    times Stripe's longest response time. *finalize_ttl_ms*: an older decision to finalize or delete is made again.
    *edit_grace_ms*: for so long a draft is left as it is after somebody has edited it.
    *key_ttl_ms*: Stripe keeps an idempotency key for 24 hours; we send none after 20.
    """

    quiet_ms: int = 600_000
    finalize_ttl_ms: int = 300_000
    key_ttl_ms: int = 72_000_000
    lease_ms: int = 60_000
    retry_base_ms: int = 500
    retry_cap_ms: int = 300_000
    hold_recheck_ms: int = 3_600_000
    rewind_recheck_ms: int = 600_000
    edit_grace_ms: int = 600_000
    schedule: FlushSchedule = IMMEDIATE

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the policy that the operator configured."""
        return cls(
            quiet_ms=round(settings.quiet_time * 1000),
            lease_ms=round(settings.flush_lease * 1000),
            edit_grace_ms=round(settings.edit_grace * 1000),
            schedule=FlushSchedule.from_settings(settings),
        )


@dataclass(frozen=True, slots=True)
class FlushContext:
    """Dependencies of a flush; *clock* is in seconds since boot, suspended time included, *random* in [0, 1)."""

    ledger: Ledger
    stripe: StripeApi
    price_catalog: PriceCatalog
    cache: Cache
    change_feed: ChangeFeed
    clock: Callable[[], float]
    random: Callable[[], float]
    policy: FlushPolicy = FlushPolicy()

    @classmethod
    def from_services(cls, services: Services) -> Self:
        """Return the dependencies in production."""
        return cls(
            ledger=services.ledger,
            stripe=services.stripe,
            price_catalog=services.price_catalog,
            cache=services.cache,
            change_feed=services.change_feed,
            clock=boottime,
            random=random.random,
            policy=FlushPolicy.from_settings(services.settings),
        )
