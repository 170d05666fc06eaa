"""Support's stop sign for a customer's billing: it goes up, it comes down, and all that stand can be listed."""

from collections.abc import Sequence
from dataclasses import dataclass

from billing.errors import ErrorCode, Refused
from billing.invoicing.snapshot import Hold
from billing.ledger import keys
from billing.ledger.base import Door
from billing.ledger.codec import hold_of, hold_said, hold_text
from billing.pagination import Page
from billing.usage import CustomerId

SAME_MOMENT = 50
"""More holds than one server makes in a shard within a millisecond: those of a cursor's own are read again."""


@dataclass(frozen=True, slots=True)
class StandingHold:
    """A *hold* that stands, and the customer whose billing it stops."""

    customer: CustomerId
    hold: Hold

    @property
    def id(self) -> str:
        """``hold_<customer>_<since_ms>``: its place in the list, which outlives it."""
        return f"hold_{self.customer.removeprefix('cus_')}_{self.hold.since_ms}"


class Holds(Door):
    """A hold stops telling Stripe, never counting."""

    async def hold(self, customer: CustomerId, reason: str, by: str) -> Hold:
        """Stop billing *customer*; Refused ON_HOLD when it is held for another reason already."""
        said = hold_said(reason, by)
        made, text = await self._server.run("hold", keys.customer(customer), said, "")
        hold = hold_of(text.decode())
        if not made and (hold.reason, hold.by) != (reason, by):
            raise Refused(
                ErrorCode.ON_HOLD,
                f"{hold.by} holds this customer's billing already ({hold.reason}); release it first.",
            )
        return hold

    async def hold_once(self, customer: CustomerId, reason: str, by: str, about: str) -> None:
        """Stop billing *customer* because of *about*, unless that was ever done.

        While another hold stands this one waits for its release.
        """
        said = hold_said(reason, by)
        await self._server.run("hold", keys.customer(customer), said, about)

    async def release_hold(self, customer: CustomerId, seen: Hold | None = None) -> Hold | None:
        """Bill *customer* again, what waited is due now; unless another hold waited, which stands then.

        Of two people who release the hold that they have *seen*, one releases nothing. Answers the
        hold that stands then.
        """
        text = await self._server.run(
            "release_hold", keys.customer(customer), hold_text(seen) if seen else ""
        )
        return hold_of(text.decode()) if text else None

    async def held(self, customer: CustomerId) -> Hold | None:
        """The hold that stands."""
        text = await self._server.ask("HGET", keys.customer(customer), "hold")
        return hold_of(text.decode()) if text else None

    async def holds(self, first: int, after: str | None = None) -> Page[StandingHold]:
        """At most *first* of the holds that stand, over all customers, oldest first, from the place *after* on."""
        place = _place(after) if after else (0, CustomerId(""))
        found: list[StandingHold] = []
        while place is not None and len(found) <= first:
            listed = await self._listed(place, first + 1)
            found += await self._standing(listed)
            place = listed[-1] if len(listed) > first else None
        return Page.of(found, first)

    async def _listed(
        self, place: tuple[int, CustomerId], count: int
    ) -> list[tuple[int, CustomerId]]:
        """Since when (ms) and whom: the next *count* holds behind *place*."""
        reach = ("+inf", "WITHSCORES", "LIMIT", 0, count + SAME_MOMENT)
        pages = await self._server.ask_all(
            [("ZRANGEBYSCORE", keys.held(shard), place[0], *reach) for shard in range(keys.SHARDS)]
        )
        listed = sorted(
            (int(since), CustomerId(customer.decode()))
            for page in pages
            for customer, since in zip(page[::2], page[1::2], strict=True)
        )
        return [each for each in listed if each > place][:count]

    async def _standing(self, listed: Sequence[tuple[int, CustomerId]]) -> list[StandingHold]:
        """The holds of *listed*, but those that were released in between."""
        texts = await self._server.ask_all(
            [("HGET", keys.customer(customer), "hold") for _, customer in listed]
        )
        return [
            StandingHold(customer, hold)
            for (since, customer), text in zip(listed, texts, strict=True)
            if text and (hold := hold_of(text.decode())).since_ms == since
        ]


def _place(hold_id: str) -> tuple[int, CustomerId] | None:
    customer, _, since = hold_id.removeprefix("hold_").rpartition("_")
    if not (hold_id.startswith("hold_") and customer and since.isdecimal() and since.isascii()):
        return None
    return int(since), CustomerId(f"cus_{customer}")
