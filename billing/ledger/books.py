"""Books: by how much ledger and Stripe differ where they ought to agree. Empty while all is well."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.server import ScriptCall
from billing.usage import CustomerId, Period


class DifferenceKind(StrEnum):
    """Kind of difference. The values are stored in the ledger."""

    LOST = "lost"
    """Stripe showed more on our lines than the ledger has, and the ledger never put it there."""
    UNSENT = "unsent"
    """The period is synced, and yet its draft lacks usage or has too much."""


@dataclass(frozen=True, slots=True)
class Difference:
    """*amount* is the ledger's minus Stripe's, in minor units of the customer's currency."""

    customer: CustomerId
    period: Period
    kind: DifferenceKind
    amount: int


class Books(LedgerPart):
    """The differences of all customers, one of each kind a period; their sums are in `Backlog`."""

    async def record(self, differences: Sequence[Difference]) -> None:
        """Record *differences* in place of earlier ones of the same period and kind; 0 removes one."""
        calls: list[ScriptCall] = [
            ("book", keys.customer(found.customer), (_entry(found), found.amount))
            for found in differences
        ]
        if calls:
            await self._server.run_scripts(calls)

    async def differences(self, shard: int) -> list[Difference]:
        """Return the differences of *shard*."""
        books = await self._server.execute("HGETALL", keys.books(shard))
        return [_decode(entry.decode(), int(amount)) for entry, amount in books.items()]


def _entry(found: Difference) -> str:
    return f"{found.customer}|{found.period}|{found.kind}"


def _decode(entry: str, amount: int) -> Difference:
    customer, month, kind = entry.rsplit("|", 2)
    return Difference(CustomerId(customer), Period.parse(month), DifferenceKind(kind), amount)
