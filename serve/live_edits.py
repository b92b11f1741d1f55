"""Edits in flight: watched by clients that come and go, cancelled when nobody waits, kept a while when done.

Plain asyncio without Ray or HTTP: what runs an edit is a function that is given. All methods belong to one event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import hmac
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Literal

from soundguide.errors import InvalidEdit, SoundGuideError
from soundguide.records import ManipulatedEdit, PreparedEdit, Progress

logger = logging.getLogger(__name__)

Kind = Literal["begun", "progress", "result", "error"]
RunEdit = Callable[[PreparedEdit, int, str], AsyncGenerator[Progress | ManipulatedEdit, None]]
"""Does one edit, yielding news of it (with a preview every so many steps; 0: never) and at last the edit itself.

The text is the preset whose models do it; empty where there are none. Closing it frees its slot."""


class TooManyEdits(SoundGuideError):
    """As many edits run and wait as there is room for. ``retry_seconds``: when it makes sense to ask again."""

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message, retry_seconds)  # both, or it could not travel between processes
        self.retry_seconds = retry_seconds

    def __str__(self) -> str:
        return str(self.args[0])


class KeyConflict(SoundGuideError):
    """An idempotency key came again with another request."""


class UnknownEdit(SoundGuideError):
    """No edit has this id, or it was forgotten."""


class Unavailable(SoundGuideError):
    """The process that did the work is gone, or not there yet."""


_WORTH_A_RETRY = (Unavailable.__name__, "Cancelled")


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of news of the edit ``id``, numbered from 0.

    The first is "begun", with its ``preset`` and the edit as it was ``prepared``, without sound and photo; then
    ``progress`` of kind "progress"; at last ``edit`` of kind "result", or ``error`` and its ``error_kind`` of kind
    "error".
    """

    id: str
    number: int
    kind: Kind
    prepared: PreparedEdit | None = None
    progress: Progress | None = None
    edit: ManipulatedEdit | None = None
    error: str = ""
    error_kind: str = ""
    preset: str = ""


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """``max_edits`` run or wait at once. What is done is kept for ``keep_seconds``, ``keep_edits`` at most."""

    max_edits: int = 32
    keep_seconds: float = 300.0
    keep_edits: int = 256
    retry_seconds: int = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """How an edit is done and watched.

    After ``deadline_seconds`` it ends with an error. ``preview_every``: steps between pictures, 0 for none. ``preset``:
    whose models do it; empty where the service has none. The same ``key`` with the same ``fingerprint`` (a hash of the
    whole request) is the same edit. When the last watcher leaves before the end, the edit goes on for
    ``stay_seconds``, in which one may come back.
    """

    deadline_seconds: float
    preview_every: int = 0
    preset: str = ""
    key: str = ""
    fingerprint: str = ""
    stay_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class _Live:
    id: str
    terms: Terms
    events: list[Event]
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    work: asyncio.Task[None] | None = None
    task: asyncio.Task[None] | None = None
    watchers: int = 0
    leaving: asyncio.TimerHandle | None = None
    stopped_by: tuple[str, str] = ("", "")

    @property
    def ended(self) -> bool:
        return self.events[-1].kind in ("result", "error")

    def drop_preview(self) -> None:
        """Forget the last preview: a newer picture takes its place, and memory must not grow with the steps."""
        for place in range(len(self.events) - 1, -1, -1):
            progress = self.events[place].progress
            if progress is not None and progress.preview is not None:
                self.events[place] = replace(self.events[place], progress=replace(progress, preview=None))
                return


class LiveEdits:
    """Runs edits and lets any number of clients watch each of them, from any event on.

    ``on_end`` hears of each edit's outcome ("ok", or the kind of its error) and of the seconds that it took.
    """

    def __init__(
        self, run: RunEdit, limits: LiveLimits | None = None, *, on_end: Callable[[str, float], None] | None = None
    ) -> None:
        self._run, self.limits, self._on_end = run, limits or LiveLimits(), on_end
        self._live: dict[str, _Live] = {}
        self._by_key: dict[str, str] = {}
        self._draining = False

    @property
    def num_running(self) -> int:
        """Edits that run or wait."""
        return sum(not live.ended for live in self._live.values())

    async def edit(self, edit: PreparedEdit, terms: Terms) -> AsyncGenerator[Event, None]:
        """Begin an edit, or find the one that began with the same key, and yield its events as `watch` does.

        Raises `TooManyEdits`, `KeyConflict`, or `Unavailable` while it drains.
        """
        id = self._begin(edit, terms)
        async with aclosing(self.watch(id, stay_seconds=terms.stay_seconds)) as events:
            async for event in events:
                yield event

    async def watch(self, id: str, *, after: int = -1, stay_seconds: float = 0.0) -> AsyncGenerator[Event, None]:
        """Yield the events of an edit that come after number ``after``, to its last one; see `Terms.stay_seconds`.

        Raises `UnknownEdit`.
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

    async def ends(self, id: str) -> tuple[Event, Event]:
        """Return the first and the last event of an edit so far. Raises `UnknownEdit`."""
        events = self._of(id).events
        return events[0], events[-1]

    async def cancel(self, id: str) -> bool:
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

    def _begin(self, edit: PreparedEdit, terms: Terms) -> str:
        known = self._live.get(self._by_key.get(terms.key, "")) if terms.key else None
        if known is not None and known.events[-1].error_kind not in _WORTH_A_RETRY:
            if not hmac.compare_digest(known.terms.fingerprint, terms.fingerprint):
                raise KeyConflict("this Idempotency-Key came before with another request. Use a new key for a new edit")
            return known.id
        if self._draining:
            raise Unavailable("the service is ending, and takes no more edits. Send the request again in a minute")
        if self.num_running >= self.limits.max_edits:
            raise TooManyEdits(
                f"{self.num_running} edits run and wait, and there is room for {self.limits.max_edits}. Try again "
                f"in {self.limits.retry_seconds} s",
                self.limits.retry_seconds,
            )
        id = secrets.token_urlsafe(16)
        light = replace(edit, sound=b"", photo=None, latent=None)
        live = _Live(id, terms, [Event(id, 0, "begun", prepared=light, preset=terms.preset)])
        self._live[id] = live
        if terms.key:
            self._by_key[terms.key] = id
        # The edit outlives the request that began it, whose context would end it too: Ray Serve cancels what a
        # cancelled request has called.
        loop, context = asyncio.get_running_loop(), contextvars.Context()
        live.work = loop.create_task(self._follow(live, edit), context=context)
        live.task = loop.create_task(self._do(live, live.work), context=context)
        return id

    def _of(self, id: str) -> _Live:
        try:
            return self._live[id]
        except KeyError as error:
            raise UnknownEdit(
                f"there is no edit {id!r:.80}, or it ended more than {self.limits.keep_seconds:g} s ago. Begin it again"
            ) from error

    def _stop(self, live: _Live, why: tuple[str, str]) -> None:
        if live.work is not None and not live.ended and not live.stopped_by[0]:
            live.stopped_by = why
            live.work.cancel()

    async def _do(self, live: _Live, work: asyncio.Task[None]) -> None:
        loop, seconds = asyncio.get_running_loop(), live.terms.deadline_seconds
        late = ("DeadlineExceeded", f"not done within {seconds:g} s. Take fewer steps, or a longer deadline_s")
        started, deadline = loop.time(), loop.call_later(seconds, self._stop, live, late)
        try:
            await work
        except asyncio.CancelledError:
            kind, message = live.stopped_by
            await self._tell(live, "error", error=message or "the service is stopping", error_kind=kind or "Cancelled")
        except InvalidEdit as error:
            await self._tell(live, "error", error=str(error), error_kind=type(error).__name__)
        except Exception:  # whatever ran the edit is gone: nothing of it is for clients' eyes
            logger.exception("the edit %s failed", live.id)
            message = "the process that made this edit ended. Send the request again"
            await self._tell(live, "error", error=message, error_kind=Unavailable.__name__)
        finally:
            deadline.cancel()
            if self._on_end is not None:
                self._on_end(live.events[-1].error_kind or "ok", loop.time() - started)
            loop.call_later(self.limits.keep_seconds, self._forget, live)
            ended = [other for other in self._live.values() if other.ended]
            for old in ended[: -self.limits.keep_edits]:
                self._forget(old)

    async def _follow(self, live: _Live, edit: PreparedEdit) -> None:
        async with aclosing(self._run(edit, live.terms.preview_every, live.terms.preset)) as news:
            async for item in news:
                if isinstance(item, Progress):
                    await self._tell(live, "progress", progress=item)
                else:
                    await self._tell(live, "result", edit=item)
                    return
        raise RuntimeError("the edit ended without a result")

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
            live.events.append(
                Event(live.id, len(live.events), kind, None, progress, edit, error=error, error_kind=error_kind)
            )
            live.news.notify_all()

    def _forget(self, live: _Live) -> None:
        self._live.pop(live.id, None)
        if self._by_key.get(live.terms.key) == live.id:
            del self._by_key[live.terms.key]
