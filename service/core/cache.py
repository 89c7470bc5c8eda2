"""A cache bounded in bytes, of which each owner holds a share at most. Pure."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import msgspec

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Entry(msgspec.Struct, Generic[V]):
    value: V
    owner: Hashable
    size: int
    until: float


class ByteCache(Generic[K, V]):
    """Keeps the entries that were used last, within `max_bytes`; those of one owner within `share_bytes`.

    What one owner stores displaces its own entries first: no owner empties the cache for the others. An entry larger
    than a share is not kept. Entries are forgotten `ttl` seconds after they were stored.
    """

    def __init__(
        self,
        max_bytes: int,
        share_bytes: int,
        *,
        ttl: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes, self.share_bytes = max_bytes, min(share_bytes, max_bytes)
        self.size = 0
        self._ttl, self._clock = ttl, clock
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._owned: dict[Hashable, OrderedDict[K, None]] = {}
        self._sizes: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def size_of(self, owner: Hashable) -> int:
        """Return how many bytes of the cache are an owner's."""
        return self._sizes.get(owner, 0)

    def get(self, key: K) -> V | None:
        """Return an entry, which was used now; None where there is none, or it is too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() > entry.until:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        self._owned[entry.owner].move_to_end(key)
        return entry.value

    def put(self, key: K, value: V, *, owner: Hashable, size: int) -> V:
        """Store an entry of `size` bytes in place of the one with the same key. Returns `value`."""
        self.drop(key)
        if size > self.share_bytes:
            return value
        while self.size_of(owner) + size > self.share_bytes:
            self.drop(next(iter(self._owned[owner])))
        while self.size + size > self.max_bytes:
            self.drop(next(iter(self._entries)))
        self._entries[key] = _Entry(value, owner, size, self._clock() + self._ttl)
        self._owned.setdefault(owner, OrderedDict())[key] = None
        self._sizes[owner] = self.size_of(owner) + size
        self.size += size
        return value

    def drop(self, key: K) -> None:
        """Remove an entry; nothing where there is none."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self.size -= entry.size
        self._sizes[entry.owner] -= entry.size
        del self._owned[entry.owner][key]
        if not self._owned[entry.owner]:
            del self._owned[entry.owner], self._sizes[entry.owner]

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()
        self._owned.clear()
        self._sizes.clear()
        self.size = 0
