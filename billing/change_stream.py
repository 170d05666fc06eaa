"""Changes of a customer, and the stream of them that one subscriber reads."""

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

USAGE_INTERVAL_SECONDS = 1.0  # least time between two usage changes, as the contract promises
# Responses are cached for a second at most. The follow-up comes after that, so that it shows later usage.
FOLLOW_UP_SECONDS = USAGE_INTERVAL_SECONDS + 1.0


class ChangeReason(StrEnum):
    """Reason of a change, as the contract names it."""

    WEBHOOK = "WEBHOOK"
    SYNC = "SYNC"
    USAGE = "USAGE"
    SUPPORT = "SUPPORT"
    REFRESH = "REFRESH"  # never published: offered where a subscriber may have missed a change


@dataclass(frozen=True, slots=True)
class Change:
    """Something of *customer* may have changed: *sync* or *invoice* if one of them alone did."""

    customer: str
    reason: ChangeReason
    sync: str | None = None
    invoice: str | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class ChangeStream:
    """The changes of one customer for one subscriber, until the subscription or the process ends.

    Usage is published at most once a second, and not in the second after another change. Therefore a refresh
    follows each change, and the start of the subscription, after two seconds.
    """

    def __init__(self, customer: str) -> None:
        self._customer = customer
        self._newest: Change | None = None
        self._updated = asyncio.Event()
        self._closed = False
        self._usage_allowed_at = -math.inf
        # A change just before this subscription suppresses those of the next second.
        self._follow_up_at: float | None = asyncio.get_running_loop().time() + FOLLOW_UP_SECONDS

    def offer(self, change: Change) -> None:
        """Replace the change that has not been read yet."""
        now = asyncio.get_running_loop().time()
        if change.reason is not ChangeReason.USAGE or now >= self._usage_allowed_at:
            self._newest = change
        self.follow_up()

    def follow_up(self) -> None:
        """Let a refresh follow, as after each change."""
        self._follow_up_at = asyncio.get_running_loop().time() + FOLLOW_UP_SECONDS
        self._updated.set()

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._updated.set()

    def __aiter__(self) -> "ChangeStream":
        return self

    async def __anext__(self) -> Change:
        loop = asyncio.get_running_loop()
        while self._newest is None and not self._closed:
            if self._follow_up_at is not None and loop.time() >= self._follow_up_at:
                self._follow_up_at = None
                self._newest = Change(self._customer, ChangeReason.REFRESH)
                break
            self._updated.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._follow_up_at):
                    await self._updated.wait()
        if self._closed or self._newest is None:
            raise StopAsyncIteration
        change, self._newest = self._newest, None
        if change.reason in (ChangeReason.USAGE, ChangeReason.REFRESH):
            self._usage_allowed_at = loop.time() + USAGE_INTERVAL_SECONDS
        return change
