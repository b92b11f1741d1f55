"""Rows that kill their process: found by the marks that only a death leaves behind, and then left out.

A process marks a table of rows before it works on them and takes the mark away after it. Whoever is given the same rows
again and finds the mark knows that a process died at them: the rows are suspects, and each is worked on alone. The row
at which a process dies `MAX_DEATHS` times, alone, is quarantined. Marks are of one run: what ends a whole run is no
row's fault.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import pyarrow as pa

from soundguide.errors import Quarantined, SourceNotFound
from soundguide.storage import Storage, join_uri

Refuse = Callable[[pa.Table, Quarantined], pa.Table]
"""From a table of one row to what comes of it when it is not worked on: the same row with an error."""

MAX_DEATHS = 2
"""Deaths of a process, with a row alone at work in it, after which the row is quarantined."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """The marks of one run, small files in the folder ``uri``; small, sent to workers."""

    uri: str
    storage: Storage

    def deaths(self, ids: list[str]) -> int:
        """Return how often a process died while these rows, and no others, were marked."""
        try:
            return int(json.loads(self.storage.read_bytes(self._mark(ids)))["attempts"])
        except (SourceNotFound, ValueError, KeyError):
            return 0

    @contextmanager
    def marked(self, ids: list[str], deaths: int) -> Iterator[None]:
        """Mark rows as being worked on, after so many deaths; an exception takes the mark away too."""
        mark = self._mark(ids)
        self.storage.write_bytes(mark, json.dumps({"attempts": deaths + 1, "ids": ids}).encode())
        try:
            yield
        finally:
            self.storage.remove(mark)

    def clear(self) -> None:
        """Remove all marks."""
        for mark in self.storage.list(self.uri):
            self.storage.remove(mark)

    def _mark(self, ids: list[str]) -> str:
        return join_uri(self.uri, hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:32])


@dataclass(frozen=True, slots=True)
class GuardedStage:
    """A stage that works on one table at a time in its process, and quarantines; ``work`` yields its rows, done."""

    work: Callable[[pa.Table], Iterator[pa.Table]]
    refuse: Refuse
    attempts: Attempts

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield the rows of a table, done or refused."""
        ids = batch["id"].to_pylist()
        deaths = self.attempts.deaths(ids)
        with self.attempts.marked(ids, deaths):
            if not deaths:
                yield from self.work(batch)
                return
            for suspect in _suspects(batch, self.attempts):
                if suspect.deaths >= MAX_DEATHS:
                    yield self.refuse(suspect.row, suspect.verdict)
                    continue
                with self.attempts.marked(suspect.ids, suspect.deaths):
                    yield from self.work(suspect.row)


class GuardedActor:
    """An actor that works on several tables side by side in its process, and quarantines.

    ``make`` returns what does the work, `Manipulator` for one; ``num_calls``: tables at once at most. A suspect waits
    until it has the process to itself, for its death must be nobody else's.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[pa.Table], Awaitable[pa.Table]]],
        refuse: Refuse,
        attempts: Attempts,
        num_calls: int,
    ) -> None:
        self._work, self._refuse, self._attempts = make(), refuse, attempts
        self._room, self._num_calls = asyncio.Semaphore(num_calls), num_calls
        self._entering = asyncio.Lock()

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows of a table, done or refused, order kept; raises what the work raises."""
        ids = batch["id"].to_pylist()
        deaths = await asyncio.to_thread(self._attempts.deaths, ids)
        if not deaths:
            async with self._side_by_side():
                return await self._do(batch, ids, 0)
        with self._attempts.marked(ids, deaths):
            suspects = await asyncio.to_thread(_suspects, batch, self._attempts)
            done = {suspect.ids[1]: await self._try_alone(suspect) for suspect in suspects}
        return pa.concat_tables([done[id] for id in ids])

    async def _try_alone(self, suspect: _Suspect) -> pa.Table:
        if suspect.deaths >= MAX_DEATHS:
            return self._refuse(suspect.row, suspect.verdict)
        async with self._alone():
            return await self._do(suspect.row, suspect.ids, suspect.deaths)

    async def _do(self, batch: pa.Table, ids: list[str], deaths: int) -> pa.Table:
        with self._attempts.marked(ids, deaths):
            return await self._work(batch)

    @asynccontextmanager
    async def _side_by_side(self) -> AsyncIterator[None]:
        async with self._entering:
            await self._room.acquire()
        try:
            yield
        finally:
            self._room.release()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        taken = 0
        try:
            async with self._entering:  # nobody else enters meanwhile, and those inside come out
                while taken < self._num_calls:
                    await self._room.acquire()
                    taken += 1
            yield
        finally:
            for _ in range(taken):
                self._room.release()


@dataclass(frozen=True, slots=True)
class _Suspect:
    """One row of a table at which a process died; ``ids`` tell its mark from that of a table of this row alone."""

    row: pa.Table
    ids: list[str]
    deaths: int

    @property
    def verdict(self) -> Quarantined:
        return Quarantined(
            f"the process died {self.deaths} times while it worked on this row alone: out of memory, or a crash in a "
            "library. The log of the worker says more. Look at the row's files, then give --retry-failed"
        )


def _suspects(batch: pa.Table, attempts: Attempts) -> list[_Suspect]:
    """Return the rows of a table with their deaths, the most first: the guilty one must not cost the others again."""
    found = []
    for number, id in enumerate(batch["id"].to_pylist()):
        ids = ["alone", id]
        found.append(_Suspect(batch.slice(number, 1), ids, attempts.deaths(ids)))
    return sorted(found, key=lambda suspect: -suspect.deaths)
