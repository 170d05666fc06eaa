"""LRU: a mapping bounded in bytes that evicts the least recently used values."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Lru(Generic[V]):
    """A mapping of at most *limit* bytes; the caller gives the weight of each value."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable) -> V | None:
        """The value of *key*, which becomes the most recently used."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: V, weight: int) -> None:
        """Store *value*, unless it weighs more than the limit."""
        self.drop(key)
        if weight > self._limit:
            return
        self._values[key] = (value, weight)
        self.bytes += weight
        while self.bytes > self._limit:
            _, (_, freed) = self._values.popitem(last=False)
            self.bytes -= freed

    def drop(self, key: Hashable) -> None:
        """Remove *key* if it is stored."""
        found = self._values.pop(key, None)
        if found is not None:
            self.bytes -= found[1]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)
