"""The object store, and in memory what was just written to it.

What a producer sends is read again within a moment, by the live transcript or the decoder on the
same replica. Objects never change, so what is here is as good as what is there.
"""

from __future__ import annotations

from collections import OrderedDict

from steno.platform.objects import ObjectStore

MOST_BYTES = 64 * 2**20


class RecentObjects:
    """Writes through; remembers the newest objects, up to MOST_BYTES."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Writes an object, and remembers it once it is written."""
        await self.store.put(key, data, content_type)
        self._bytes += len(data) - len(self._recent.pop(key, b""))
        self._recent[key] = data
        while self._bytes > MOST_BYTES:
            _, oldest = self._recent.popitem(last=False)
            self._bytes -= len(oldest)

    async def get_range(self, key: str, offset: int, size: int) -> bytes:
        """Reads `size` bytes from `offset` on. Raises ObjectNotFound."""
        if (known := self._recent.get(key)) is not None:
            return known[offset : offset + size]
        return await self.store.get_range(key, offset, size)
