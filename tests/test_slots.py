"""Continuous batching on a world of random weights: refill, cancellation, news, and failures that reach who waits."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_world import write_tiny_world
from torch import Tensor

from soundguide.config import EditSettings
from soundguide.errors import InvalidSettings, NonFiniteEdit
from soundguide.models.protocols import Generator
from soundguide.objective import Run
from soundguide.records import Progress
from soundguide.slots import OnProgress, SlotLoop, default_num_slots
from soundguide.world import World, to_bytes

FAST = EditSettings(num_views=1, latent_space="w+", lambda_spread=0)


class Watched:
    """A generator that notes how many codes each step draws, and can be told to fail."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.num_ws, self.w_dim, self.z_dim = generator.num_ws, generator.w_dim, generator.z_dim
        self.resolution, self.w_avg = generator.resolution, generator.w_avg
        self.batches: list[int] = []
        self.fails = False

    def map(self, z: Tensor, *, truncation_psi: float | Tensor = 1.0) -> Tensor:
        return self.generator.map(z, truncation_psi=truncation_psi)

    def synthesize(self, ws: Tensor) -> Tensor:
        if self.fails:
            raise RuntimeError("the device is gone")
        if torch.is_grad_enabled():  # a step, not a preview
            self.batches.append(len(ws))
        return self.generator.synthesize(ws)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(write_tiny_world(tmp_path_factory.mktemp("world")))


@pytest.fixture
def watched(tiny: World, monkeypatch: pytest.MonkeyPatch) -> Watched:
    generator = Watched(tiny.generator)
    monkeypatch.setattr(tiny, "generator", generator)
    return generator


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def make_run(world: World, seed: int, num_steps: int, **settings: object) -> Run:
    draw = torch.Generator().manual_seed(seed)
    target = torch.nn.functional.normalize(torch.randn(world.image_text.embed_dim, generator=draw), dim=0)
    chosen = FAST.override({"num_steps": num_steps, **settings})
    return Run("edit", world.code(seed, None, 1.0), target, chosen, margin=chosen.margin)


def make_loop(world: World, executor: ThreadPoolExecutor, *, num_slots: int, check_every: int = 10) -> SlotLoop:
    return SlotLoop(world, executor, num_slots=num_slots, check_every=check_every)


async def reached(news: list[Progress], step: int) -> None:
    async with asyncio.timeout(120):
        while not news or news[-1].step < step:
            await asyncio.sleep(0.001)


def test_slots_are_refilled_as_runs_end(tiny: World, watched: Watched, executor: ThreadPoolExecutor) -> None:
    slots = make_loop(tiny, executor, num_slots=2)

    async def main() -> list[int]:
        lengths = (2, 5, 3, 1, 2)
        runs = (slots.run(str(i), make_run(tiny, i, length)) for i, length in enumerate(lengths))
        return [outcome.steps for outcome in await asyncio.gather(*runs)]

    assert asyncio.run(main()) == [2, 5, 3, 1, 2]
    # 0 and 1 for two steps, 2 and 1 for three, then 3 and 4, then 4 alone; each time in one call of a fixed size
    assert watched.batches == [4] * 7
    assert (slots.load.num_running, slots.load.num_waiting) == (0, 0)


def test_run_in_company_is_the_run_alone(tiny: World, executor: ThreadPoolExecutor) -> None:
    async def together() -> list[Tensor]:
        slots = make_loop(tiny, executor, num_slots=3)
        runs = (slots.run(str(i), make_run(tiny, i, 6 + i, num_views=1 + i % 2)) for i in range(5))
        return [outcome.ws for outcome in await asyncio.gather(*runs)]

    async def alone(seed: int) -> Tensor:
        run = make_run(tiny, seed, 6 + seed, num_views=1 + seed % 2)
        return (await make_loop(tiny, executor, num_slots=1).run("", run)).ws

    for seed, ws in enumerate(asyncio.run(together())):
        assert torch.equal(ws, asyncio.run(alone(seed)))


def test_cancelled_run_frees_its_slot_within_one_step(
    tiny: World, watched: Watched, executor: ThreadPoolExecutor
) -> None:
    slots = make_loop(tiny, executor, num_slots=1)

    async def main() -> int:
        news: list[Progress] = []
        long = asyncio.ensure_future(slots.run("a", make_run(tiny, 0, 10_000), OnProgress(1, news.append, False)))
        waiting = asyncio.ensure_future(slots.run("b", make_run(tiny, 1, 3)))
        await reached(news, 2)
        steps = len(watched.batches)
        long.cancel()
        assert (await waiting).steps == 3
        return len(watched.batches) - steps

    assert asyncio.run(asyncio.wait_for(main(), 120)) <= 3 + 1
    assert slots.load.num_running == 0


def test_cancelled_run_does_not_touch_its_neighbour(tiny: World, executor: ThreadPoolExecutor) -> None:
    slots = make_loop(tiny, executor, num_slots=2)

    async def main() -> tuple[Tensor, Tensor]:
        news: list[Progress] = []
        long = asyncio.ensure_future(slots.run("a", make_run(tiny, 0, 10_000), OnProgress(1, news.append, False)))
        neighbour = asyncio.ensure_future(slots.run("b", make_run(tiny, 1, 12)))
        await reached(news, 4)
        long.cancel()
        return (await neighbour).ws, (await slots.run("b", make_run(tiny, 1, 12))).ws

    torch.testing.assert_close(*asyncio.run(main()), rtol=1e-3, atol=1e-3)


def test_run_cancelled_while_it_waits_is_never_begun(
    tiny: World, watched: Watched, executor: ThreadPoolExecutor
) -> None:
    slots = make_loop(tiny, executor, num_slots=1)

    async def main() -> None:
        running, waiting = (asyncio.ensure_future(slots.run(str(i), make_run(tiny, i, 5))) for i in range(2))
        await asyncio.sleep(0)
        waiting.cancel()
        assert (await running).steps == 5

    asyncio.run(main())
    assert watched.batches == [4] * 5
    assert slots.load.num_waiting == 0


def test_news_comes_every_so_many_steps(tiny: World, executor: ThreadPoolExecutor) -> None:
    news: list[Progress] = []
    slots = make_loop(tiny, executor, num_slots=2)

    async def main() -> Tensor:
        other = slots.run("other", make_run(tiny, 1, 9))
        mine = slots.run("mine", make_run(tiny, 0, 6), OnProgress(2, news.append))
        return (await asyncio.gather(mine, other))[0].ws

    ws = asyncio.run(main())
    assert [(p.id, p.phase, p.step, p.num_steps) for p in news] == [("mine", "edit", step, 6) for step in (2, 4, 6)]
    assert news[-1].preview is not None
    with torch.no_grad():
        np.testing.assert_array_equal(news[-1].preview, to_bytes(tiny.generator.synthesize(ws[None])[0]))
    assert all(abs(p.loss - p.terms["guidance"] - FAST.lambda_reg * p.terms["reg"]) < 1e-5 for p in news)


def test_news_without_preview_draws_nothing(tiny: World, executor: ThreadPoolExecutor) -> None:
    news: list[Progress] = []
    slots = make_loop(tiny, executor, num_slots=1)
    asyncio.run(slots.run("a", make_run(tiny, 0, 3), OnProgress(1, news.append, preview=False)))
    assert [p.preview for p in news] == [None, None, None]


def test_run_of_no_steps_repeats_no_news_of_its_neighbours(tiny: World, executor: ThreadPoolExecutor) -> None:
    news: list[Progress] = []
    slots = make_loop(tiny, executor, num_slots=2)
    late = make_run(tiny, 1, 0)

    async def main() -> Tensor:
        long = asyncio.ensure_future(slots.run("a", make_run(tiny, 0, 20), OnProgress(1, news.append, False)))
        await reached(news, 2)
        outcome = await slots.run("b", late, OnProgress(1, news.append, False))
        await long
        return outcome.ws

    assert torch.equal(asyncio.run(main()), late.start)
    assert [(p.id, p.step) for p in news] == [("a", step) for step in range(1, 21)]


def test_progress_every_zero_steps_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="1 or more"):
        OnProgress(0, print)


def test_gates_of_an_adaptive_run_are_told(tiny: World, executor: ThreadPoolExecutor) -> None:
    slots = make_loop(tiny, executor, num_slots=2)

    async def main() -> list[Tensor]:
        adaptive = make_run(tiny, 0, 10, layer_gates="adaptive", lambda_reg=0.5)
        outcomes = await asyncio.gather(slots.run("a", adaptive), slots.run("b", make_run(tiny, 1, 10)))
        return [outcome.gates for outcome in outcomes]

    adaptive, uniform = asyncio.run(main())
    assert torch.equal(uniform, torch.ones(tiny.num_ws))
    assert (adaptive - 1).abs().max() > 1e-3
    torch.testing.assert_close(adaptive.sum(), torch.tensor(float(tiny.num_ws)))


def test_run_that_leaves_the_finite_numbers_fails_alone(tiny: World, executor: ThreadPoolExecutor) -> None:
    slots = make_loop(tiny, executor, num_slots=3, check_every=2)
    poisoned = make_run(tiny, 1, 50)
    poisoned.start[0, 0] = torch.nan

    async def main() -> list[object]:
        runs = [make_run(tiny, 0, 8), poisoned, make_run(tiny, 2, 8)]
        return list(
            await asyncio.gather(*(slots.run(f"edit-{i}", r) for i, r in enumerate(runs)), return_exceptions=True)
        )

    first, failed, last = asyncio.run(main())
    assert isinstance(failed, NonFiniteEdit)
    assert "edit-1" in str(failed)
    for outcome in (first, last):
        assert not isinstance(outcome, BaseException)
        assert outcome.steps == 8


def test_failure_of_the_model_reaches_all_who_wait(tiny: World, watched: Watched, executor: ThreadPoolExecutor) -> None:
    slots = make_loop(tiny, executor, num_slots=2)

    async def main() -> None:
        watched.fails = True
        runs = (slots.run(str(i), make_run(tiny, i, 5)) for i in range(5))  # three of them still wait for a slot
        errors = await asyncio.wait_for(asyncio.gather(*runs, return_exceptions=True), 120)
        assert [str(error) for error in errors] == ["the device is gone"] * 5
        watched.fails = False
        assert (slots.load.num_running, slots.load.num_waiting) == (0, 0)
        assert (await slots.run("after", make_run(tiny, 0, 5))).steps == 5

    asyncio.run(main())


def test_failure_of_a_listener_is_its_own_edits(tiny: World, executor: ThreadPoolExecutor) -> None:
    slots = make_loop(tiny, executor, num_slots=2)

    def fail(progress: Progress) -> None:
        raise OSError("the pipe is closed")

    async def main() -> None:
        broken = slots.run("a", make_run(tiny, 0, 5), OnProgress(2, fail))
        failure, outcome = await asyncio.gather(broken, slots.run("b", make_run(tiny, 1, 5)), return_exceptions=True)
        assert str(failure) == "the pipe is closed"
        assert not isinstance(outcome, BaseException)
        assert outcome.steps == 5

    asyncio.run(main())


def test_next_event_loop_goes_on_where_the_last_was_shut_down(tiny: World, executor: ThreadPoolExecutor) -> None:
    slots = make_loop(tiny, executor, num_slots=2)

    async def leave_in_the_middle() -> None:
        news: list[Progress] = []
        run = slots.run("a", make_run(tiny, 0, 10_000), OnProgress(1, news.append, False))
        abandoned = asyncio.ensure_future(run)
        await reached(news, 3)
        assert not abandoned.done()

    async def again() -> Tensor:
        return (await slots.run("b", make_run(tiny, 1, 6))).ws

    asyncio.run(leave_in_the_middle())
    assert (slots.load.num_running, slots.load.num_waiting) == (0, 0)
    first = asyncio.run(asyncio.wait_for(again(), 120))
    assert torch.equal(asyncio.run(again()), first)


def test_one_slot_gives_the_same_bits_twice(tiny: World, executor: ThreadPoolExecutor) -> None:
    slots = make_loop(tiny, executor, num_slots=1)
    first, second = (asyncio.run(slots.run("a", make_run(tiny, 0, 10, num_views=3))).ws for _ in range(2))
    assert torch.equal(first, second)


def test_plateau_ends_a_run_early(tiny: World, executor: ThreadPoolExecutor) -> None:
    slots = make_loop(tiny, executor, num_slots=1, check_every=2)
    still = make_run(tiny, 0, 500, margin=0, plateau_steps=4)
    resting = Run("edit", still.start, still.target, still.settings, source_similarity=-5.0)  # nothing left to gain
    outcome = asyncio.run(slots.run("a", resting))
    assert outcome.steps == 8  # the fifth step is the fourth without progress: seen at 6, read at 8
    assert torch.equal(outcome.ws, still.start)


def test_large_pictures_get_fewer_slots() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [default_num_slots(size, cpu) for size in (64, 128, 256, 1024)] == [8, 4, 1, 1]
    assert default_num_slots(256, cuda) > default_num_slots(1024, cuda) > default_num_slots(1024, cpu)
