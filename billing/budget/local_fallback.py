"""Fallback while Redis is down: each process limits itself to 2 calls/s.

With this rate 40 processes together stay within the account's usual 80 calls a second. Slots, object locks,
the read ration and the learnt rates do not apply meanwhile; Stripe's own limits do, and every write can be
retried safely under its key.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from billing.budget.call import StripeCall
from billing.budget.permit import Lane, Permit
from billing.redis_clients import Cooldown

log = structlog.get_logger(__name__)

RATE = 2.0  # calls per second of one process
RETRY_SECONDS = (
    5.0  # between attempts to use Redis; one that hangs takes a second or two to time out
)


class LocalLimiter:
    """A rate limit of this process alone; a priority call may exceed it by one."""

    def __init__(self) -> None:
        self._redis_pause = Cooldown(RETRY_SECONDS)
        self._spent_until = 0.0

    @property
    def active(self) -> bool:
        """True while Redis is not to be used."""
        return self._redis_pause.active

    def activate(self, error: Exception) -> None:
        """Use this limiter for ``RETRY_SECONDS``, because of *error*."""
        log.warning("budget.redis_unavailable", error=type(error).__name__)
        self._redis_pause.start()

    def acquire(self, *, priority: bool) -> tuple[float, str]:
        """Seconds to wait and the reason; (0, "") admits."""
        now, cell = time.monotonic(), 1 / RATE
        wait = max(self._spent_until, now) - now - (cell if priority else 0)
        if wait > 0:
            return wait, "local"
        self._spent_until = max(self._spent_until, now) + cell
        return 0, ""


class UnlimitedBudget:
    """A budget without limits, for commands that make a few calls and use no Redis."""

    @asynccontextmanager
    async def admission(self, call: StripeCall, lane: Lane) -> AsyncIterator[Permit]:
        """Admit *call* at once; only Stripe's own limits apply."""
        yield Permit(call, lane)
