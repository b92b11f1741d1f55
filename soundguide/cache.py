"""A bounded memory of costly results by content hash, shared by edits that run at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ContentCache(Generic[Value]):
    """Keeps what ``compute`` made for a key, forgetting the least recently used beyond ``max_bytes``.

    Edits that ask for the same key at once wait for one computation; one that fails is told to all who wait and is not kept. An edit that is
    cancelled while it waits does not cancel the computation for the others. ``size_of`` tells the bytes of a value.
    """

    def __init__(self, *, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._max_bytes, self._size_of = max_bytes, size_of
        self._done: OrderedDict[str, Value] = OrderedDict()
        self._running: dict[str, asyncio.Future[Value]] = {}
        self._bytes = 0
        self.num_computed = 0

    async def get(self, key: str, compute: Callable[[], Awaitable[Value]]) -> Value:
        """Return the value of ``key``, computing it where it is not known."""
        if key in self._done:
            self._done.move_to_end(key)
            return self._done[key]
        if key not in self._running:
            self._running[key] = asyncio.ensure_future(self._compute(key, compute))
        return await asyncio.shield(self._running[key])

    async def _compute(self, key: str, compute: Callable[[], Awaitable[Value]]) -> Value:
        try:
            value = await compute()
        finally:
            del self._running[key]
        self.num_computed += 1
        self._done[key] = value
        self._bytes += self._size_of(value)
        while self._bytes > self._max_bytes and len(self._done) > 1:
            _, forgotten = self._done.popitem(last=False)
            self._bytes -= self._size_of(forgotten)
        return value
