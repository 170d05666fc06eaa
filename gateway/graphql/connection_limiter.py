"""Limits open WebSockets and SSE streams, in total and per caller."""

from collections import Counter

ANONYMOUS = ""  # sockets that have not said yet whose they are


class ConnectionLimiter:
    """Admits *total* open connections, *per_caller* of them for one caller."""

    def __init__(self, *, total: int = 10_000, per_caller: int = 500) -> None:
        self._total = total
        self._per_caller = per_caller
        self._open = 0
        self._open_by_caller: Counter[str] = Counter()

    def acquire(self, caller: str) -> bool:
        """Count a connection of *caller*, or of `ANONYMOUS`; False when the limit is reached."""
        full = caller and self._open_by_caller[caller] >= self._per_caller
        if full or self._open >= self._total:
            return False
        self._open += 1
        self._open_by_caller[caller] += 1
        return True

    def release(self, caller: str) -> None:
        """Count a connection of *caller* as closed."""
        self._open -= 1
        self._open_by_caller[caller] -= 1
        if not self._open_by_caller[caller]:
            del self._open_by_caller[caller]
