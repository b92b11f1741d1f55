"""Edits in flight: watched by clients that come and go, cancelled when nobody waits, kept a while when done.

Plain asyncio without Ray or HTTP: what runs an edit is a function that is given. All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from soundguide.errors import InvalidEdit, SoundGuideError
from soundguide.records import ManipulatedEdit, PreparedEdit, Progress

Kind = Literal["progress", "result", "error"]
RunEdit = Callable[[PreparedEdit], AsyncGenerator[Progress | ManipulatedEdit, None]]
"""Does one edit, yielding news of it and at last the edit itself; closing it frees its slot."""


class TooManyEdits(SoundGuideError):
    """As many edits run and wait as there is room for. ``retry_seconds``: when it makes sense to ask again."""

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class KeyConflict(SoundGuideError):
    """An idempotency key came again with another request."""


class UnknownEdit(SoundGuideError):
    """No edit has this id, or it was forgotten."""


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of news, numbered from 0 within its edit.

    ``progress`` of kind "progress", ``edit`` of kind "result"; ``error`` and its ``error_kind`` of kind "error".
    """

    number: int
    kind: Kind
    progress: Progress | None = None
    edit: ManipulatedEdit | None = None
    error: str = ""
    error_kind: str = ""


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """``max_edits``: that run or wait at once. Times in seconds: a finished edit is kept for ``keep_seconds``."""

    max_edits: int = 32
    keep_seconds: float = 300.0
    retry_seconds: int = 2


@dataclass(slots=True, eq=False)
class _Live:
    id: str
    fingerprint: str
    events: list[Event] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None
    watchers: int = 0
    leaving: asyncio.TimerHandle | None = None
    stopped_by: tuple[str, str] = ("", "")

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].kind != "progress"

    def drop_preview(self) -> None:
        """Forget the last preview: a newer picture takes its place, and memory must not grow with the steps."""
        for place in range(len(self.events) - 1, -1, -1):
            progress = self.events[place].progress
            if progress is not None and progress.preview is not None:
                self.events[place] = replace(self.events[place], progress=replace(progress, preview=None))
                return


class LiveEdits:
    """Runs edits and lets any number of clients watch each of them, from any event on."""

    def __init__(self, run: RunEdit, limits: LiveLimits | None = None) -> None:
        self._run, self.limits = run, limits or LiveLimits()
        self._live: dict[str, _Live] = {}
        self._by_key: dict[str, str] = {}
        self._draining = False

    @property
    def num_running(self) -> int:
        """Edits that run or wait."""
        return sum(not live.ended for live in self._live.values())

    def begin(self, edit: PreparedEdit, *, deadline_seconds: float, key: str = "", fingerprint: str = "") -> str:
        """Begin an edit; return its id, or that of the edit that began with the same ``key`` and ``fingerprint``.

        ``fingerprint``: a hash of the whole request. An edit that nobody begins to `watch` runs to its end.
        Raises `TooManyEdits` or `KeyConflict`.
        """
        known = self._live.get(self._by_key.get(key, "")) if key else None
        if known is not None:
            if not hmac.compare_digest(known.fingerprint, fingerprint):
                raise KeyConflict("this Idempotency-Key came before with another request. Use a new key for a new edit")
            return known.id
        if self._draining or self.num_running >= self.limits.max_edits:
            raise TooManyEdits(
                f"{self.num_running} edits run and wait, and there is room for {self.limits.max_edits}. Try again "
                f"in {self.limits.retry_seconds} s",
                self.limits.retry_seconds,
            )
        live = _Live(secrets.token_urlsafe(16), fingerprint)
        self._live[live.id] = live
        if key:
            self._by_key[key] = live.id
        live.task = asyncio.ensure_future(self._do(live, edit, key, deadline_seconds))
        return live.id

    async def watch(self, id: str, *, after: int = -1, stay_seconds: float = 0.0) -> AsyncIterator[Event]:
        """Yield the events of an edit that come after number ``after``, to its last one.

        When the last watcher leaves before the end, the edit goes on for ``stay_seconds``, in which one may come back,
        and is cancelled then. Raises `UnknownEdit`.
        """
        live = self._of(id)
        live.watchers += 1
        if live.leaving is not None:
            live.leaving.cancel()
            live.leaving = None
        try:
            number = after + 1
            while True:
                async with live.news:
                    while len(live.events) <= number and not live.ended:
                        await live.news.wait()
                while number < len(live.events):  # it grows while a slow watcher takes one
                    yield live.events[number]
                    number += 1
                if live.ended:
                    return
        finally:
            live.watchers -= 1
            if not live.watchers and not live.ended:
                why = ("Cancelled", "the client left")
                live.leaving = asyncio.get_running_loop().call_later(stay_seconds, self._stop, live, why)

    def last(self, id: str) -> Event | None:
        """Return the last event of an edit, None before there is any. Raises `UnknownEdit`."""
        events = self._of(id).events
        return events[-1] if events else None

    def cancel(self, id: str) -> bool:
        """Stop an edit; return whether it was still running. Raises `UnknownEdit`."""
        live = self._of(id)
        if live.ended:
            return False
        self._stop(live, ("Cancelled", "cancelled by the client"))
        return True

    async def drain(self) -> None:
        """Take no more edits, and wait for those that run."""
        self._draining = True
        tasks = [live.task for live in self._live.values() if live.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _of(self, id: str) -> _Live:
        try:
            return self._live[id]
        except KeyError as error:
            raise UnknownEdit(
                f"there is no edit {id!r:.80}, or it ended more than {self.limits.keep_seconds:g} s ago. Begin it again"
            ) from error

    def _stop(self, live: _Live, why: tuple[str, str]) -> None:
        if live.task is not None and not live.ended and not live.stopped_by[0]:
            live.stopped_by = why
            live.task.cancel()

    async def _do(self, live: _Live, edit: PreparedEdit, key: str, deadline_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        late = ("DeadlineExceeded", f"not done within {deadline_seconds:g} s. Take fewer steps, or a longer deadline_s")
        deadline = loop.call_later(deadline_seconds, self._stop, live, late)
        try:
            await self._follow(live, edit)
        except asyncio.CancelledError:
            kind, message = live.stopped_by
            await self._tell(live, "error", error=message or "the service is stopping", error_kind=kind or "Cancelled")
        except InvalidEdit as error:
            await self._tell(live, "error", error=str(error), error_kind=type(error).__name__)
        except Exception:  # whatever ran the edit is gone: nothing of it is for clients' eyes
            message = "the process that made this edit ended. Send the request again"
            await self._tell(live, "error", error=message, error_kind="Unavailable")
        finally:
            deadline.cancel()
            loop.call_later(self.limits.keep_seconds, self._forget, live.id, key)

    async def _follow(self, live: _Live, edit: PreparedEdit) -> None:
        news = self._run(edit)
        try:
            async for item in news:
                if isinstance(item, Progress):
                    await self._tell(live, "progress", progress=item)
                else:
                    await self._tell(live, "result", edit=item)
                    return
            raise RuntimeError("the edit ended without a result")
        finally:
            await news.aclose()

    async def _tell(
        self,
        live: _Live,
        kind: Kind,
        *,
        progress: Progress | None = None,
        edit: ManipulatedEdit | None = None,
        error: str = "",
        error_kind: str = "",
    ) -> None:
        async with live.news:
            if progress is None or progress.preview is not None:
                live.drop_preview()
            live.events.append(Event(len(live.events), kind, progress, edit, error, error_kind))
            live.news.notify_all()

    def _forget(self, id: str, key: str) -> None:
        self._live.pop(id, None)
        if self._by_key.get(key) == id:
            del self._by_key[key]
