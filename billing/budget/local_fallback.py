"""The budget without Redis: each process goes on by itself, slowly, until Redis answers again.

The rate is small enough that 40 processes together stay within the account's usual 80 calls a second.
Slots, object locks, the read ration and what was learnt from Stripe do not hold meanwhile; Stripe's
own 429 does, and every write is safe to send again under its key.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from billing.budget.call import Call
from billing.budget.permit import Lane, Passage

log = structlog.get_logger(__name__)

RATE = 2.0  # calls per second of one process
RETRY_SECONDS = (
    5.0  # how long Redis is left alone; a server that hangs costs a second or two to find out
)


class Alone:
    """A rate of this process's own; a call of the first lane may come one ahead of it."""

    def __init__(self) -> None:
        self._until = 0.0
        self._spent = 0.0

    @property
    def on(self) -> bool:
        """Whether Redis is being left alone."""
        return _now() < self._until

    def begin(self, error: Exception) -> None:
        """Go on alone for ``RETRY_SECONDS``, because of *error*."""
        log.warning("budget.alone", error=type(error).__name__)
        self._until = _now() + RETRY_SECONDS

    def ask(self, *, first: bool) -> tuple[float, str]:
        """Seconds to wait and why; (0, "") admits."""
        now, cell = _now(), 1 / RATE
        wait = max(self._spent, now) - now - (cell if first else 0)
        if wait > 0:
            return wait, "alone"
        self._spent = max(self._spent, now) + cell
        return 0, ""


class Unshared:
    """The budget of a command that makes a handful of calls, and has no Redis to share them in."""

    @asynccontextmanager
    async def admission(self, call: Call, lane: Lane) -> AsyncIterator[Passage]:
        """Admit *call* at once; Stripe's own limit holds."""
        yield Passage(call, lane)


def _now() -> float:
    return asyncio.get_running_loop().time()
