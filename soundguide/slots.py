"""Continuous batching: waiting runs take the slots of the optimiser as they come free, between two steps."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import torch
from torch import Tensor

from soundguide.errors import InvalidSettings, NonFiniteEdit
from soundguide.objective import EditObjective, Run
from soundguide.optimize import Ended, LatentOptimizer
from soundguide.records import Progress
from soundguide.world import World, to_bytes


@dataclass(frozen=True, slots=True)
class OnProgress:
    """Who wants to hear of a run: ``tell`` gets a `Progress` at every ``every`` steps of its slot.

    With ``preview`` it holds a picture. What ``tell`` raises ends its own edit. Raises `InvalidSettings` for an
    ``every`` below 1.
    """

    every: int
    tell: Callable[[Progress], None]
    preview: bool = True

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InvalidSettings(f"progress every {self.every} steps was asked for. Ask for 1 or more.")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: ``ws`` ``[L, D]``, ``gates`` ``[L]``, steps taken."""

    ws: Tensor
    gates: Tensor
    steps: int


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a loop is: its slots, those taken, the runs that wait for one, and the seconds of its last step."""

    num_slots: int
    num_running: int
    num_waiting: int
    step_seconds: float


@dataclass(eq=False)
class _Waiting:
    id: str
    run: Run
    done: asyncio.Future[Outcome]
    on_progress: OnProgress | None


class SlotLoop:
    """Owns the optimiser's slots on one event loop; `run` is called from any number of tasks.

    Steps run on ``executor``; between two steps cancelled runs leave, waiting ones are admitted and news is told. The
    loop's task starts with the first run and ends when nothing is left, so that no task outlives its work.
    """

    def __init__(
        self, world: World, executor: Executor, *, num_slots: int, check_every: int, group_size: int = 0
    ) -> None:
        num_slots = num_slots or default_num_slots(world.resolution, world.device)
        group_size = group_size or default_group_size(num_slots, world.resolution, world.device)
        self._world, self._executor = world, executor
        self._objective = EditObjective(
            world.generator,
            world.image_text,
            world.identity,
            num_slots=num_slots,
            step_scale=world.step_scale,
            picture_size=world.picture_size,
            dtype=world.dtype,
        )
        self._optimizer = LatentOptimizer(
            self._objective,
            num_slots=num_slots,
            num_ws=world.num_ws,
            step_scale=world.step_scale,
            check_every=check_every,
            group_size=group_size,
        )
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[int, _Waiting] = {}
        self._task: asyncio.Task[None] | None = None
        self._step_seconds = 0.0

    @property
    def num_slots(self) -> int:
        """How many runs go on side by side."""
        return self._optimizer.num_slots

    @property
    def load(self) -> Load:
        """How busy the slots are."""
        return Load(self.num_slots, len(self._running), len(self._waiting), self._step_seconds)

    async def run(self, id: str, run: Run, on_progress: OnProgress | None = None) -> Outcome:
        """Optimise one run in the next free slot. Cancelling this coroutine frees the slot within one step.

        Raises `NonFiniteEdit` where the run left the finite numbers; any other error of a step ends all runs.
        """
        waiting = _Waiting(id, run, asyncio.get_running_loop().create_future(), on_progress)
        self._waiting.append(waiting)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._loop())
        return await waiting.done

    async def _loop(self) -> None:
        try:
            while self._waiting or self._running:
                self._leave_and_admit()
                if self._running:
                    ended, news = await self._step_aside()
                    self._tell(news)
                    for end in ended:
                        self._finish(end)
        except asyncio.CancelledError:  # the event loop shuts down
            for waiting in (*self._running.values(), *self._waiting):
                waiting.done.cancel()
            raise
        except Exception as error:
            # a bug, or no memory left: a silent loop would leave those who wait waiting for ever
            if isinstance(error, torch.OutOfMemoryError):
                error.add_note(f"Lower manipulator.num_slots (now {self.num_slots}).")
            for waiting in (*self._running.values(), *self._waiting):
                if not waiting.done.done():
                    waiting.done.set_exception(error)
        finally:
            self._waiting.clear()
            for slot in list(self._running):
                self._free(slot)

    async def _step_aside(self) -> tuple[list[Ended], list[tuple[_Waiting, Progress]]]:
        """Take one step on the executor's thread, and see it through even if this coroutine is cancelled."""
        step = asyncio.get_running_loop().run_in_executor(self._executor, self._step)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])  # slots must not be freed under a step that still runs
            raise

    def _leave_and_admit(self) -> None:
        for slot, waiting in list(self._running.items()):
            if waiting.done.done():  # cancelled, or failed by its listener
                self._free(slot)
        for slot in self._optimizer.free:
            while self._waiting and self._waiting[0].done.done():
                self._waiting.popleft()
            if not self._waiting:
                break
            waiting = self._running[slot] = self._waiting.popleft()
            self._objective.admit(slot, waiting.run)
            run = waiting.run
            self._optimizer.admit(slot, run.start, run.schedule, self._objective.for_run(run))

    def _step(self) -> tuple[list[Ended], list[tuple[_Waiting, Progress]]]:
        """Take one step and gather what listeners want to hear; runs on the executor's thread."""
        started = time.monotonic()
        ended = self._optimizer.step()
        self._step_seconds = time.monotonic() - started
        news = []
        for position, slot in enumerate(self._optimizer.stepped):
            waiting, steps = self._running[slot], self._optimizer.steps_of(slot)
            listener = waiting.on_progress
            if listener is not None and steps % listener.every == 0:
                news.append((waiting, self._progress(slot, position, waiting, steps, preview=listener.preview)))
        return ended, news

    def _tell(self, news: list[tuple[_Waiting, Progress]]) -> None:
        for waiting, progress in news:
            if waiting.on_progress is None or waiting.done.done():
                continue
            try:
                waiting.on_progress.tell(progress)
            except Exception as error:  # a listener's own failure, told to whoever brought it
                waiting.done.set_exception(error)

    def _progress(self, slot: int, position: int, waiting: _Waiting, steps: int, *, preview: bool) -> Progress:
        image = None
        if preview:
            with torch.no_grad():
                image = to_bytes(self._world.generator.synthesize(self._optimizer.ws[slot : slot + 1])[0])
        terms = {name: float(term[position]) for name, term in self._optimizer.terms.items()}
        num_steps = waiting.run.schedule.num_steps
        loss = float(self._optimizer.loss[slot])
        return Progress(waiting.id, waiting.run.phase, steps, num_steps, loss, terms, image, waiting.run.margin)

    def _finish(self, end: Ended) -> None:
        waiting = self._running[end.slot]
        theta = self._optimizer.theta[end.slot : end.slot + 1]
        gates = self._objective.gates(theta, torch.tensor([end.slot], device=theta.device))[0]
        outcome = Outcome(self._optimizer.ws[end.slot].clone(), gates, end.steps)
        self._free(end.slot)
        if waiting.done.done():  # cancelled while its last step ran
            return
        if end.finite:
            waiting.done.set_result(outcome)
        else:
            remedy = "Lower learning_rate, or check the latent code."
            waiting.done.set_exception(NonFiniteEdit(f"{waiting.id}: not finite after {end.steps} steps. {remedy}"))

    def _free(self, slot: int) -> None:
        del self._running[slot]
        self._optimizer.release(slot)
        self._objective.release(slot)


def default_num_slots(resolution: int, device: torch.device) -> int:
    """Return how many slots suit a device: many on a GPU; few on a CPU, and one for large pictures (memory-bound)."""
    if device.type == "cuda":
        return max(4, min(64, 64 * 256 // resolution))
    return 8 if resolution <= 64 else 4 if resolution <= 128 else 1


def default_group_size(num_slots: int, resolution: int, device: torch.device) -> int:
    """Return how many slots are computed in one call, filled up where fewer run.

    All slots on a GPU, where the batch is everything. On a CPU a picture of 256 px is no faster beside others; small
    ones are, and four of 64 px come close to the best speed without making a single edit much slower.
    """
    if device.type == "cuda":
        return num_slots
    return 4 if resolution <= 64 else 2 if resolution <= 128 else 1
