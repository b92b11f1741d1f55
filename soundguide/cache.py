"""A bounded memory of costly results by content hash, shared by edits that run at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(eq=False)
class _Running(Generic[Value]):
    task: asyncio.Future[Value]
    num_waiting: int = 0


class ContentCache(Generic[Value]):
    """Keeps what ``compute`` made for a key, forgetting the least recently used beyond ``max_bytes``.

    Edits that ask for the same key at once wait for one computation; one that fails is told to all who wait and is not
    kept. An edit that is cancelled while it waits leaves the computation to the others; with the last of them it ends.
    ``size_of`` tells the bytes of a value.
    """

    def __init__(self, *, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._max_bytes, self._size_of = max_bytes, size_of
        self._done: OrderedDict[str, Value] = OrderedDict()
        self._running: dict[str, _Running[Value]] = {}
        self._bytes = 0
        self.num_computed = 0

    async def get(self, key: str, compute: Callable[[], Coroutine[None, None, Value]]) -> Value:
        """Return the value of ``key``, computing it where it is not known."""
        if key in self._done:
            self._done.move_to_end(key)
            return self._done[key]
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = _Running(asyncio.ensure_future(compute()))
            running.task.add_done_callback(lambda task: self._settle(key, task))
        running.num_waiting += 1
        try:
            return await asyncio.shield(running.task)
        finally:
            running.num_waiting -= 1
            if not running.num_waiting and not running.task.done():
                self._forget(key, running.task)  # who asks from now on must not wait for what is being cancelled
                running.task.cancel()

    def _settle(self, key: str, task: asyncio.Future[Value]) -> None:
        self._forget(key, task)
        if task.cancelled() or task.exception() is not None:
            return
        self.num_computed += 1
        self._done[key] = task.result()
        self._bytes += self._size_of(task.result())
        while self._bytes > self._max_bytes and len(self._done) > 1:
            _, forgotten = self._done.popitem(last=False)
            self._bytes -= self._size_of(forgotten)

    def _forget(self, key: str, task: asyncio.Future[Value]) -> None:
        if key in self._running and self._running[key].task is task:
            del self._running[key]
