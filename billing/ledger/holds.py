"""Holds: Support stops and resumes a customer's billing, and lists all active holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from billing.errors import ErrorCode, Refused
from billing.invoicing.snapshot import Hold
from billing.ledger import keys
from billing.ledger.base import LedgerPart
from billing.ledger.codec import decode_hold, encode_hold, encode_hold_content
from billing.pagination import Page
from billing.usage import CustomerId

SAME_MS_MARGIN = 50
"""Upper bound of holds placed in a shard in one millisecond; those of the cursor's are read again."""


@dataclass(frozen=True, slots=True)
class ActiveHold:
    """An active *hold* and its customer."""

    customer: CustomerId
    hold: Hold

    @property
    def id(self) -> str:
        """``hold_<customer>_<since_ms>``: its position in the list, which remains valid after a release."""
        return f"hold_{self.customer.removeprefix('cus_')}_{self.hold.since_ms}"


class Holds(LedgerPart):
    """A hold stops the flush to Stripe; usage is still recorded."""

    async def place(self, customer: CustomerId, reason: str, by: str) -> Hold:
        """Stop billing *customer*; Refused ON_HOLD if another hold, with another reason, is active."""
        content = encode_hold_content(reason, by)
        placed, text = await self._run_acknowledged("hold", keys.customer(customer), content, "")
        hold = decode_hold(text.decode())
        if not placed and (hold.reason, hold.by) != (reason, by):
            raise Refused(
                ErrorCode.ON_HOLD,
                f"{hold.by} holds this customer's billing already ({hold.reason}); release it first.",
            )
        return hold

    async def place_once(
        self, customer: CustomerId, reason: str, by: str, cause: str
    ) -> Hold | None:
        """Stop billing *customer* because of *cause*, unless a hold was ever placed for it.

        While another hold is active this one is queued until its release. Answers the active hold: None
        if the one for *cause* was released.
        """
        content = encode_hold_content(reason, by)
        _, text = await self._run_acknowledged("hold", keys.customer(customer), content, cause)
        return decode_hold(text.decode()) if text else None

    async def release(self, customer: CustomerId, expected: Hold | None = None) -> Hold | None:
        """Release the active hold of *customer*; a queued hold becomes active instead, if there is one.

        Otherwise the customer's pending periods are due now. With *expected*, only that hold is
        released: of two people who release the same hold, one does nothing. Answers the hold that
        is active afterwards.
        """
        text = await self._run_acknowledged(
            "release_hold", keys.customer(customer), encode_hold(expected) if expected else ""
        )
        return decode_hold(text.decode()) if text else None

    async def get(self, customer: CustomerId) -> Hold | None:
        """Return the active hold of *customer*."""
        text = await self._server.execute("HGET", keys.customer(customer), "hold")
        return decode_hold(text.decode()) if text else None

    async def page(self, first: int, after: str | None = None) -> Page[ActiveHold]:
        """Return at most *first* active holds of all customers, oldest first, after hold *after*."""
        position = _parse_id(after) if after else (0, CustomerId(""))
        holds: list[ActiveHold] = []
        while position is not None and len(holds) <= first:
            entries = await self._entries_after(position, first + 1)
            holds += await self._active_holds(entries)
            position = entries[-1] if len(entries) > first else None
        return Page.from_items(holds, first)

    async def _entries_after(
        self, position: tuple[int, CustomerId], count: int
    ) -> list[tuple[int, CustomerId]]:
        """Return start time (ms) and customer of the next *count* holds after *position*."""
        limits = ("+inf", "WITHSCORES", "LIMIT", 0, count + SAME_MS_MARGIN)
        pages = await self._server.execute_all(
            [
                ("ZRANGEBYSCORE", keys.on_hold(shard), position[0], *limits)
                for shard in range(keys.SHARDS)
            ]
        )
        entries = sorted(
            (int(since), CustomerId(customer.decode()))
            for page in pages
            for customer, since in zip(page[::2], page[1::2], strict=True)
        )
        return [entry for entry in entries if entry > position][:count]

    async def _active_holds(self, entries: Sequence[tuple[int, CustomerId]]) -> list[ActiveHold]:
        """Return the holds of *entries*, except those released since they were listed."""
        texts = await self._server.execute_all(
            [("HGET", keys.customer(customer), "hold") for _, customer in entries]
        )
        return [
            ActiveHold(customer, hold)
            for (since, customer), text in zip(entries, texts, strict=True)
            if text and (hold := decode_hold(text.decode())).since_ms == since
        ]


def _parse_id(hold_id: str) -> tuple[int, CustomerId] | None:
    customer, _, since = hold_id.removeprefix("hold_").rpartition("_")
    if not (hold_id.startswith("hold_") and customer and since.isdecimal() and since.isascii()):
        return None
    return int(since), CustomerId(f"cus_{customer}")
