"""Values kept in the process, the least recently used ones dropped first, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Lru(Generic[V]):
    """A mapping of at most *limit* bytes; the caller says what each value weighs."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable) -> V | None:
        """The value of *key*, which thereby becomes the most recently used."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: V, weight: int) -> None:
        """Keep *value*; one that weighs more than everything is not kept."""
        self.drop(key)
        if weight > self._limit:
            return
        self._kept[key] = (value, weight)
        self.bytes += weight
        while self.bytes > self._limit:
            _, (_, freed) = self._kept.popitem(last=False)
            self.bytes -= freed

    def drop(self, key: Hashable) -> None:
        """Forget *key*, known or not."""
        found = self._kept.pop(key, None)
        if found is not None:
            self.bytes -= found[1]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)
