"""When recorded usage is worth a call to Stripe: not before enough money is at stake, or it is old. Pure.

The panel counts from the ledger and whoever asks is synced at once, so waiting costs nobody anything
but the age of Stripe's draft; every call saved is one for the customers who do ask.
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
class Schedule:
    """*max_age* and *pause* in ms, *stake* in minor units of the customer's currency.

    Nobody's usage gets older than *max_age* (less for most: each customer's own share of *jitter* is
    taken off, so that a month's first day has no stampede). Until then it waits for *stake* to come
    together, and is looked at no more often than every *pause*. The default waits for nothing.
    """

    max_age: int = 0
    stake: int = 0
    pause: int = 0
    jitter: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The schedule that the operator set."""
        return cls(
            max_age=round(settings.flush_interval * 1000),
            stake=settings.flush_stake,
            pause=round(settings.flush_pause * 1000),
            jitter=settings.flush_jitter,
        )

    def wait(self, snapshot: Snapshot, prices: Mapping[str, Price]) -> int:
        """Milliseconds until *snapshot*'s period is worth another look; 0: tell Stripe now.

        The pace at which money came together so far says when there will be enough, so that a
        customer is looked at a few times for each flush, however long the wait.
        """
        age = snapshot.now_ms - (snapshot.oldest_pending_ms or 0)
        left = self._patience(snapshot) - age
        money = at_stake(snapshot, prices)
        if left <= 0 or money >= self.stake:
            return 0
        enough_in = age * (self.stake - money) // money if money else left
        return min(max(enough_in, self.pause), left)

    def _patience(self, snapshot: Snapshot) -> int:
        own = crc32(f"{snapshot.customer} {snapshot.synced}".encode()) / 2**32
        return round(self.max_age * (1 - self.jitter * own))


AT_ONCE = Schedule()


def at_stake(snapshot: Snapshot, prices: Mapping[str, Price]) -> int:
    """By how much Stripe's draft is wrong, line by line, in minor units; *prices* by id."""
    owed = {
        key: line_amount(quantity, prices[snapshot.prices[key]].unit_amount)
        for key, quantity in snapshot.totals.items()
    }
    told = {key: line.amount for key, line in snapshot.lines.items()}
    return sum(abs(owed.get(key, 0) - told.get(key, 0)) for key in owed.keys() | told.keys())
