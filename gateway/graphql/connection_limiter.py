"""How many sockets and streams stay open: in all, and for one caller."""

from collections import Counter


class Places:
    """Room for *in_all* connections that last, *of_one* of them for one caller."""

    def __init__(self, *, in_all: int = 10_000, of_one: int = 500) -> None:
        self._in_all = in_all
        self._of_one = of_one
        self._taken = 0
        self._by_caller: Counter[str] = Counter()

    def take(self, caller: str) -> bool:
        """Take a place for *caller*; False when there is none left."""
        if self._taken >= self._in_all or self._by_caller[caller] >= self._of_one:
            return False
        self._taken += 1
        self._by_caller[caller] += 1
        return True

    def leave(self, caller: str) -> None:
        """Give *caller*'s place back."""
        self._taken -= 1
        self._by_caller[caller] -= 1
        if not self._by_caller[caller]:
            del self._by_caller[caller]
