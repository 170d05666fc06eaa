"""Decides when recorded usage is worth a call to Stripe: by its amount or its age. Pure.

Panels read the ledger and a requested sync runs at once, so a delay only makes Stripe's draft older, and
saves calls for the customers who request a sync.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from zlib import crc32

from billing.invoicing.snapshot import Snapshot
from billing.money import line_amount
from billing.settings import Settings
from billing.usage import Price


@dataclass(frozen=True, slots=True)
class FlushSchedule:
    """The rules of the delay; *amount_threshold* is in minor units of the customer's currency.

    Usage is flushed at the latest at the age *max_age_ms*, less the customer's share of *jitter* (else all
    customers would be due at once on the first of the month). It is flushed earlier once its amount reaches
    *amount_threshold*, which is checked at most every *min_delay_ms*. The default flushes at once.
    """

    max_age_ms: int = 0
    amount_threshold: int = 0
    min_delay_ms: int = 0
    jitter: float = 0.0

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the schedule that the operator configured."""
        return cls(
            max_age_ms=round(settings.flush_interval * 1000),
            amount_threshold=settings.flush_stake,
            min_delay_ms=round(settings.flush_pause * 1000),
            jitter=settings.flush_jitter,
        )

    def delay_ms(self, snapshot: Snapshot, prices: Mapping[str, Price]) -> int:
        """Return the milliseconds until the period should be checked again; 0 means flush now.

        The rate so far predicts when the amount reaches the threshold, so a period is checked only a few
        times for each flush, however long the delay.
        """
        age = snapshot.now_ms - (snapshot.oldest_pending_ms or 0)
        remaining = self._max_age_of(snapshot) - age
        amount = unsynced_amount(snapshot, prices)
        if remaining <= 0 or amount >= self.amount_threshold:
            return 0
        predicted = age * (self.amount_threshold - amount) // amount if amount else remaining
        return min(max(predicted, self.min_delay_ms), remaining)

    def _max_age_of(self, snapshot: Snapshot) -> int:
        share = crc32(f"{snapshot.customer} {snapshot.synced_version}".encode()) / 2**32
        return round(self.max_age_ms * (1 - self.jitter * share))


IMMEDIATE = FlushSchedule()


def unsynced_amount(snapshot: Snapshot, prices: Mapping[str, Price]) -> int:
    """Return by how much Stripe's draft is wrong, summed over its lines, in minor units; *prices* by id."""
    recorded = {
        key: line_amount(quantity, prices[snapshot.prices[key]].unit_amount)
        for key, quantity in snapshot.totals.items()
    }
    sent = {key: line.amount for key, line in snapshot.lines.items()}
    return sum(
        abs(recorded.get(key, 0) - sent.get(key, 0)) for key in recorded.keys() | sent.keys()
    )
