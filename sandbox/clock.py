"""The account's time: real time plus what somebody added to it, never less."""

import time


class Clock:
    """Seconds since the epoch, moved forward by tests (``offset`` seconds so far)."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def now(self) -> float:
        """Return the account's time in seconds, with fractions."""
        return time.time() + self.offset

    def seconds(self) -> int:
        """Return the account's time as Stripe writes it: whole seconds."""
        return int(self.now())

    def advance(self, seconds: float) -> None:
        """Move forward; going back would break every order that events imply."""
        if seconds < 0:
            raise ValueError("the clock only moves forward")
        self.offset += seconds
