"""Edits in flight: any number of watchers, cancelled when nobody waits, told cleanly what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import numpy as np
import pytest

from serve.live_edits import Event, KeyConflict, LiveEdits, LiveLimits, Terms, TooManyEdits, Unavailable, UnknownEdit
from soundguide.config import EditSettings
from soundguide.errors import InvalidAudio
from soundguide.manipulator import Manipulator
from soundguide.records import ManipulatedEdit, PreparedEdit, Progress

EDIT = PreparedEdit("a", EditSettings(text="rain"), seed=1)
PICTURE = np.zeros((4, 4, 3), np.uint8)
DONE = ManipulatedEdit("a", PICTURE, PICTURE, np.zeros((2, 3), np.float32), 0.1, 0.5, 1.0, (1.0, 1.0), 3, 0.1)

Answer = TypeVar("Answer")


def run(work: Callable[[], Awaitable[Answer]]) -> Answer:
    async def bounded() -> Answer:
        return await asyncio.wait_for(work(), 20)

    return asyncio.run(bounded())


class Edits:
    """Runs edits of three steps; counts those that run. With ``gate`` each step waits for it."""

    def __init__(self, error: Exception | None = None, *, gate: asyncio.Event | None = None) -> None:
        self.error, self.gate, self.running, self.most = error, gate, 0, 0

    async def __call__(
        self, edit: PreparedEdit, preview_every: int, preset: str
    ) -> AsyncGenerator[Progress | ManipulatedEdit, None]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for step in range(3):
                if self.gate is not None:
                    await self.gate.wait()
                yield Progress(edit.id, "edit", step, 3, 0.5, preview=PICTURE)
                await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
            yield DONE
        finally:
            self.running -= 1


async def begin(live: LiveEdits, edit: PreparedEdit = EDIT, *, stay: float = 60, **terms: Any) -> str:
    """Begin an edit and leave it to itself; return its id."""
    async with aclosing(live.edit(edit, Terms(**{"deadline_seconds": 9, "stay_seconds": stay, **terms}))) as events:
        return (await anext(events)).id


async def all_of(live: LiveEdits, id: str, **how: Any) -> list[Event]:
    """Return all news of an edit after that it began."""
    return [event async for event in live.watch(id, **{"after": 0, **how})]


def test_every_watcher_sees_all_news_and_the_result() -> None:
    async def work() -> None:
        live = LiveEdits(Edits())
        id = await begin(live)
        first, second = await asyncio.gather(all_of(live, id), all_of(live, id))
        assert [event.kind for event in first] == ["progress"] * 3 + ["result"]
        assert [event.number for event in second] == [1, 2, 3, 4] and second[-1].edit is DONE
        assert [event.number for event in await all_of(live, id, after=2)] == [3, 4]  # also when it is over
        assert live.num_running == 0

    run(work)


def test_a_slow_watcher_misses_nothing() -> None:
    async def work() -> None:
        live = LiveEdits(Edits())
        numbers = []
        async for event in live.watch(await begin(live)):
            numbers.append(event.number)
            await asyncio.sleep(0.02)
        assert numbers == [0, 1, 2, 3, 4]

    run(work)


def test_only_the_newest_preview_is_kept() -> None:
    async def work() -> None:
        gate = asyncio.Event()
        live = LiveEdits(Edits(gate=gate))
        id = await begin(live)
        gate.set()
        await all_of(live, id)
        later = await all_of(live, id)
        assert [event.progress is not None and event.progress.preview is not None for event in later] == [False] * 4

    run(work)


@pytest.mark.parametrize("stay_seconds", [0.0, 0.05])
def test_an_edit_that_nobody_waits_for_frees_its_slot(stay_seconds: float) -> None:
    async def work() -> None:
        edits = Edits(gate=asyncio.Event())
        live = LiveEdits(edits)
        id = await begin(live)
        watcher = asyncio.ensure_future(all_of(live, id, stay_seconds=stay_seconds))
        await asyncio.sleep(0.01)
        assert edits.running == 1
        watcher.cancel()
        if stay_seconds:
            await asyncio.sleep(0.01)
            assert edits.running == 1
        await asyncio.sleep(stay_seconds + 0.05)
        assert edits.running == live.num_running == 0
        _, last = await live.ends(id)
        assert (last.kind, last.error_kind) == ("error", "Cancelled")

    run(work)


def test_a_watcher_that_comes_back_in_time_keeps_it_running() -> None:
    async def work() -> None:
        gate = asyncio.Event()
        live = LiveEdits(Edits(gate=gate))
        id = await begin(live)
        watcher = asyncio.ensure_future(all_of(live, id, stay_seconds=0.1))
        await asyncio.sleep(0.01)
        watcher.cancel()
        await asyncio.sleep(0.02)
        again = asyncio.ensure_future(all_of(live, id, stay_seconds=0.1))
        await asyncio.sleep(0.15)  # longer than it would have stayed
        gate.set()
        assert (await again)[-1].kind == "result"

    run(work)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (InvalidAudio("no sound"), "InvalidAudio", "no sound"),
        (RuntimeError("secret/path.py line 3"), "Unavailable", "Send the request again"),
    ],
)
def test_a_failure_is_an_event_without_the_innards(error: Exception, kind: str, says: str) -> None:
    async def work() -> None:
        live = LiveEdits(Edits(error))
        last = (await all_of(live, await begin(live)))[-1]
        assert (last.kind, last.error_kind) == ("error", kind) and says in last.error and "secret" not in last.error

    run(work)


def test_deadlines_and_cancellations_end_an_edit_with_an_event() -> None:
    async def work() -> None:
        edits = Edits(gate=asyncio.Event())
        live = LiveEdits(edits)
        late = await begin(live, deadline_seconds=0.05)
        cancelled = await begin(live)
        news = [asyncio.ensure_future(all_of(live, id)) for id in (late, cancelled)]
        await asyncio.sleep(0.01)
        assert await live.cancel(cancelled)
        kinds = [(await each)[-1].error_kind for each in news]
        assert kinds == ["DeadlineExceeded", "Cancelled"] and edits.running == 0
        assert not await live.cancel(cancelled)  # it is over

    run(work)


def test_a_key_makes_retries_one_edit_and_refuses_another_request() -> None:
    async def work() -> None:
        edits = Edits()
        live = LiveEdits(edits)
        first = await begin(live, key="k", fingerprint="f")
        assert await begin(live, key="k", fingerprint="f") == first
        await all_of(live, first)
        assert await begin(live, key="k", fingerprint="f") == first  # also when it is over
        assert edits.most == 1
        with pytest.raises(KeyConflict, match="Use a new key"):
            await begin(live, key="k", fingerprint="other")

    run(work)


def test_there_is_room_for_so_many_edits_and_the_rest_is_told_when_to_come() -> None:
    async def work() -> None:
        gate = asyncio.Event()
        live = LiveEdits(Edits(gate=gate), LiveLimits(max_edits=2, retry_seconds=7))
        ids = [await begin(live) for _ in range(2)]
        with pytest.raises(TooManyEdits, match="Try again in 7 s") as refused:
            await begin(live)
        assert refused.value.retry_seconds == 7
        gate.set()
        await asyncio.gather(*(all_of(live, id) for id in ids))
        await all_of(live, await begin(live))

    run(work)


def test_what_is_done_is_kept_for_a_while_and_then_forgotten() -> None:
    async def work() -> None:
        live = LiveEdits(Edits(), LiveLimits(keep_seconds=0.05))
        id = await begin(live, key="k")
        await all_of(live, id)
        assert (await live.ends(id))[1].kind == "result"
        await asyncio.sleep(0.1)
        with pytest.raises(UnknownEdit, match="Begin it again"):
            await live.ends(id)
        assert await begin(live, key="k") != id

    run(work)


def test_draining_finishes_what_runs_and_takes_no_more() -> None:
    async def work() -> None:
        gate = asyncio.Event()
        live = LiveEdits(Edits(gate=gate))
        id = await begin(live)
        draining = asyncio.ensure_future(live.drain())
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="is ending"):
            await begin(live)
        gate.set()
        await draining
        _, last = await live.ends(id)
        assert last.kind == "result"

    run(work)


def test_the_manipulator_itself_streams_through(manipulator: Manipulator) -> None:
    async def work() -> None:
        live = LiveEdits(lambda edit, every, _: manipulator.stream(edit, preview_every=every))
        edit = PreparedEdit("real", EditSettings(text="rain", num_steps=4, num_views=1), seed=3)
        events = await all_of(live, await begin(live, edit, deadline_seconds=60, preview_every=2))
        assert events[-1].edit is not None and events[-1].edit.steps == 4
        assert [event.kind for event in events[:-1]] == ["progress"] * 2

    asyncio.run(work())
