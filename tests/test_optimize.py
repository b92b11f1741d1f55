"""The slot optimiser on small objectives in float64: Adam, schedules, company, refill and stop rules."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from host_reads import HostReads
from torch import Tensor

from soundguide.optimize import Ended, LatentOptimizer, Objective, Schedule, Terms

NUM_WS, W_DIM = 3, 4
Seeded = Callable[[int], torch.Generator]


def rows(generator: Seeded, seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


class Valley:
    """A curved loss with another minimum in each slot's goal; goals follow edits, not slots."""

    def __init__(self, goals: dict[int, Tensor]) -> None:
        self.goals = goals  # slot -> [L, D]

    def __call__(self, ws: Tensor, theta: Tensor, slots: Tensor) -> tuple[Tensor, Terms]:
        goals = torch.stack([self.goals[int(slot)] for slot in slots])
        distance = (ws - goals).square()
        loss = torch.log1p(distance).sum((1, 2)) + (torch.softmax(theta, 1) * distance.sum(2)).sum(1)
        return loss, {"loss": loss}


def make(objective: Objective, *, num_slots: int, step_scale: Tensor | None = None, check: int = 10) -> LatentOptimizer:
    scale = torch.linspace(0.5, 2, W_DIM, dtype=torch.float64) if step_scale is None else step_scale
    return LatentOptimizer(objective, num_slots=num_slots, num_ws=NUM_WS, step_scale=scale, check_every=check)


def finish(optimizer: LatentOptimizer, *, max_steps: int = 1000) -> dict[int, Ended]:
    """Step until every slot has ended, releasing each as it ends."""
    done: dict[int, Ended] = {}
    for _ in range(max_steps):
        if not optimizer.active:
            break
        for end in optimizer.step():
            optimizer.release(end.slot)
            done[end.slot] = end
    return done


def alone(start: Tensor, goal: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor, Ended]:
    optimizer = make(Valley({0: goal}), num_slots=1)
    optimizer.admit(0, start, schedule)
    ended = finish(optimizer)[0]
    return optimizer.ws[0].clone(), optimizer.theta[0].clone(), ended


EDITS = [  # settings that differ in everything
    Schedule(12, 0.1),
    Schedule(30, 0.3, rampup=0.5, rampdown=0.5, tied=True),
    Schedule(21, 0.05, rampup=0.0, rampdown=0.0, gate_learning_rate=0.05),
    Schedule(7, 0.2, rampdown=1.0, rampup=0.0, tied=True, gate_learning_rate=0.01),
]


@pytest.fixture
def edits(generator: Seeded) -> list[tuple[Tensor, Tensor, Schedule]]:
    """Start ``[L, D]``, goal ``[L, D]`` and schedule of four edits."""
    starts, goals = rows(generator, 0, 4, NUM_WS, W_DIM), rows(generator, 1, 4, NUM_WS, W_DIM)
    return list(zip(starts, goals, EDITS, strict=True))


def test_constant_rate_is_torch_adam(generator: Seeded) -> None:
    start, goal = rows(generator, 0, NUM_WS, W_DIM), rows(generator, 1, NUM_WS, W_DIM)
    scale = torch.linspace(0.5, 2, W_DIM, dtype=torch.float64)
    moved, theta, ended = alone(start, goal, Schedule(40, 0.1, rampup=0, rampdown=0, gate_learning_rate=0.03))
    # the same in units of the scale: w = scale * u
    u = (start / scale).requires_grad_()
    gates = torch.zeros(1, NUM_WS, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([{"params": [u], "lr": 0.1}, {"params": [gates], "lr": 0.03}])
    objective = Valley({0: goal})
    for _ in range(40):
        adam.zero_grad()
        objective((u * scale)[None], gates, torch.tensor([0]))[0].sum().backward()
        adam.step()
    torch.testing.assert_close(moved, (u * scale).detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(theta, gates.detach()[0], rtol=1e-10, atol=1e-10)
    assert ended == Ended(0, 40, True)


def test_tied_layers_are_plain_w(generator: Seeded) -> None:
    start, goal = rows(generator, 0, NUM_WS, W_DIM), rows(generator, 1, NUM_WS, W_DIM)
    scale = torch.linspace(0.5, 2, W_DIM, dtype=torch.float64)
    moved, _, _ = alone(start, goal, Schedule(40, 0.1, rampup=0, rampdown=0, tied=True))
    shared = torch.zeros(W_DIM, dtype=torch.float64, requires_grad=True)  # one move for all layers
    adam = torch.optim.Adam([shared], lr=0.1)
    objective, gates = Valley({0: goal}), torch.zeros(1, NUM_WS, dtype=torch.float64)
    for _ in range(40):
        adam.zero_grad()
        objective((start + shared * scale)[None], gates, torch.tensor([0]))[0].sum().backward()
        adam.step()
    torch.testing.assert_close(moved, (start + shared * scale).detach(), rtol=1e-10, atol=1e-10)


def test_rate_rises_then_falls_along_a_cosine() -> None:
    def slope(ws: Tensor, theta: Tensor, slots: Tensor) -> tuple[Tensor, Terms]:
        return ws.sum((1, 2)), {}  # a constant gradient: Adam's move is the rate itself

    optimizer = make(slope, num_slots=1, step_scale=torch.ones(W_DIM, dtype=torch.float64))
    optimizer.admit(0, torch.zeros(NUM_WS, W_DIM, dtype=torch.float64), Schedule(20, 0.1, rampup=0.2, rampdown=0.5))
    moves, before = [], 0.0
    while optimizer.active:
        ended = optimizer.step()
        moves.append(before - float(optimizer.ws[0, 0, 0]))
        before = float(optimizer.ws[0, 0, 0])
        for end in ended:
            optimizer.release(end.slot)
    up = [0.1 * (step + 1) / 4 for step in range(4)]  # a fifth of 20 steps
    flat = [0.1] * 6
    down = [0.1 * (0.5 - 0.5 * math.cos(math.pi * (20 - step) / 10)) for step in range(10, 20)]  # half of 20 steps
    assert moves == pytest.approx([*up, *flat, *down], rel=1e-6)


def test_staggered_batch_of_four_is_four_singles(edits: list[tuple[Tensor, Tensor, Schedule]]) -> None:
    singles = [alone(*edit) for edit in edits]
    objective = Valley({})
    optimizer = make(objective, num_slots=4)
    for slot, (start, goal, schedule) in enumerate(edits):
        objective.goals[slot] = goal
        optimizer.admit(slot, start, schedule)
        for _ in range(2):  # the next edit joins two steps later
            assert optimizer.step() == []
    ended = finish(optimizer)
    for slot, (ws, theta, end) in enumerate(singles):
        torch.testing.assert_close(optimizer.ws[slot], ws, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(optimizer.theta[slot], theta, rtol=1e-10, atol=1e-12)
        assert ended[slot].steps == end.steps == EDITS[slot].num_steps


def test_single_precision_batch_of_four_is_four_singles(edits: list[tuple[Tensor, Tensor, Schedule]]) -> None:
    scale = torch.linspace(0.5, 2, W_DIM)
    together = make(Valley({i: edit[1].float() for i, edit in enumerate(edits)}), num_slots=4, step_scale=scale)
    for slot, (start, _, schedule) in enumerate(edits):
        together.admit(slot, start.float(), schedule)
    finish(together)
    for slot, (start, goal, schedule) in enumerate(edits):
        single = make(Valley({0: goal.float()}), num_slots=1, step_scale=scale)
        single.admit(0, start.float(), schedule)
        finish(single)
        assert single.ws.dtype == torch.float32
        torch.testing.assert_close(together.ws[slot], single.ws[0], rtol=1e-4, atol=1e-5)


def test_permuting_the_slots_permutes_the_results(edits: list[tuple[Tensor, Tensor, Schedule]]) -> None:
    order = [2, 0, 3, 1]
    straight = make(Valley({i: edit[1] for i, edit in enumerate(edits)}), num_slots=4)
    permuted = make(Valley({order[i]: edit[1] for i, edit in enumerate(edits)}), num_slots=4)
    for index, (start, _, schedule) in enumerate(edits):
        straight.admit(index, start, schedule)
        permuted.admit(order[index], start, schedule)
    finish(straight)
    finish(permuted)
    torch.testing.assert_close(permuted.ws[order], straight.ws, rtol=1e-10, atol=1e-12)


def test_refilled_slot_starts_afresh(edits: list[tuple[Tensor, Tensor, Schedule]]) -> None:
    objective = Valley({0: edits[2][1]})
    optimizer = make(objective, num_slots=1)
    optimizer.admit(0, edits[2][0], replace(edits[2][2], plateau_steps=900))
    finish(optimizer)
    objective.goals[0] = edits[0][1]
    optimizer.admit(0, edits[0][0], edits[0][2])
    assert finish(optimizer)[0].steps == EDITS[0].num_steps
    ws, theta, _ = alone(*edits[0])
    assert torch.equal(optimizer.ws[0], ws)
    assert torch.equal(optimizer.theta[0], theta)


def test_cancelled_slot_leaves_the_others_alone(edits: list[tuple[Tensor, Tensor, Schedule]]) -> None:
    optimizer = make(Valley({i: edit[1] for i, edit in enumerate(edits)}), num_slots=4)
    for slot, (start, _, schedule) in enumerate(edits):
        optimizer.admit(slot, start, schedule)
    optimizer.step()
    optimizer.release(1)
    assert optimizer.free == (1,)
    assert sorted(finish(optimizer)) == [0, 2, 3]
    for slot in (0, 2, 3):
        torch.testing.assert_close(optimizer.ws[slot], alone(*edits[slot])[0], rtol=1e-10, atol=1e-12)


def test_no_steps_return_the_source_and_cost_the_others_none(edits: list[tuple[Tensor, Tensor, Schedule]]) -> None:
    optimizer = make(Valley({0: edits[0][1], 1: edits[1][1]}), num_slots=2)
    optimizer.admit(0, edits[0][0], edits[0][2])
    optimizer.admit(1, edits[1][0], Schedule(0, 0.1))
    assert optimizer.step() == [Ended(1, 0, True)]
    assert optimizer.stepped == (0,)
    assert optimizer.steps_of(0) == 1
    assert torch.equal(optimizer.ws[1], edits[1][0])


def test_loss_of_weight_zero_leaves_the_code_unchanged(edits: list[tuple[Tensor, Tensor, Schedule]]) -> None:
    valley = Valley({0: edits[0][1]})

    def nothing(ws: Tensor, theta: Tensor, slots: Tensor) -> tuple[Tensor, Terms]:
        loss, terms = valley(ws, theta, slots)
        return 0 * loss, terms

    optimizer = make(nothing, num_slots=1)
    optimizer.admit(0, edits[0][0], Schedule(25, 0.5))
    finish(optimizer)
    assert torch.equal(optimizer.ws[0], edits[0][0])


def test_objective_that_ignores_the_gates_leaves_them_alone(edits: list[tuple[Tensor, Tensor, Schedule]]) -> None:
    def plain(ws: Tensor, theta: Tensor, slots: Tensor) -> tuple[Tensor, Terms]:
        return ws.square().sum((1, 2)), {}

    optimizer = make(plain, num_slots=1)
    optimizer.admit(0, edits[0][0], Schedule(5, 0.1, gate_learning_rate=0.1))
    finish(optimizer)
    assert not optimizer.theta.any()


def test_slot_that_is_not_finite_ends_alone(edits: list[tuple[Tensor, Tensor, Schedule]]) -> None:
    goals = {i: edit[1] for i, edit in enumerate(edits)}
    healthy = make(Valley(goals), num_slots=4)
    poisoned = make(Valley({**goals, 1: torch.full_like(goals[1], math.nan)}), num_slots=4, check=5)
    for slot, (start, _, schedule) in enumerate(edits):
        healthy.admit(slot, start, schedule)
        poisoned.admit(slot, start, schedule)
    ended, _ = finish(poisoned), finish(healthy)
    assert ended[1] == Ended(1, 10, finite=False)  # seen at step 5, read at step 10 of 30
    assert all(ended[slot].finite for slot in (0, 2, 3))
    for slot in (0, 2, 3):
        assert torch.equal(poisoned.ws[slot], healthy.ws[slot])


def test_not_finite_at_the_last_step_is_noticed(generator: Seeded) -> None:
    start = rows(generator, 0, NUM_WS, W_DIM)
    _, _, ended = alone(start, torch.full_like(start, math.inf), Schedule(3, 0.1))
    assert ended == Ended(0, 3, finite=False)


def falling_until(last: int) -> Objective:
    """Return a loss that falls by 1 in each of a slot's first ``last`` steps and then stays."""
    steps = torch.zeros(8, dtype=torch.float64)

    def objective(ws: Tensor, theta: Tensor, slots: Tensor) -> tuple[Tensor, Terms]:
        steps[slots] += 1
        return 100 - steps[slots].clamp(max=last) + 0 * ws.sum((1, 2)), {}

    return objective


def test_plateau_ends_the_run_one_check_after_it_is_seen() -> None:
    optimizer = make(falling_until(7), num_slots=1, check=5)
    start = torch.zeros(NUM_WS, W_DIM, dtype=torch.float64)
    optimizer.admit(0, start, Schedule(100, 0.1, plateau_steps=6, plateau_tolerance=0.5))
    # no progress since step 7: six steps without are full at 13, seen by the check at 15, read by the one at 20
    assert finish(optimizer)[0] == Ended(0, 20, True)


def test_plateau_tolerance_says_what_counts_as_progress() -> None:
    optimizer = make(falling_until(1000), num_slots=1, check=1)
    start = torch.zeros(NUM_WS, W_DIM, dtype=torch.float64)
    optimizer.admit(0, start, Schedule(40, 0.1, plateau_steps=3, plateau_tolerance=1.5))
    # falls of 1 add up to 2 every second step, so that three steps without progress never come together
    assert finish(optimizer)[0].steps == 40


def test_refilled_slot_forgets_the_best_loss_of_the_last_run() -> None:
    losses = iter([*range(20, 0, -1), *range(120, 100, -1)])  # both runs fall at every step, the second from above

    def falling(ws: Tensor, theta: Tensor, slots: Tensor) -> tuple[Tensor, Terms]:
        return next(losses) + 0 * ws.sum((1, 2)), {}

    optimizer = make(falling, num_slots=1, check=1)
    for _ in range(2):
        start = torch.zeros(NUM_WS, W_DIM, dtype=torch.float64)
        optimizer.admit(0, start, Schedule(20, 0.1, plateau_steps=4, plateau_tolerance=0.5))
        assert finish(optimizer)[0].steps == 20


def test_plateau_never_ends_a_run_that_did_not_ask() -> None:
    optimizer = make(falling_until(0), num_slots=1, check=1)
    optimizer.admit(0, torch.zeros(NUM_WS, W_DIM, dtype=torch.float64), Schedule(40, 0.1))
    assert finish(optimizer)[0].steps == 40


@pytest.mark.parametrize("delay", [1, 3, 5, 8])
def test_stop_depends_on_own_steps_alone(delay: int) -> None:
    optimizer = make(falling_until(7), num_slots=2, check=5)
    start = torch.zeros(NUM_WS, W_DIM, dtype=torch.float64)
    schedule = Schedule(100, 0.1, plateau_steps=6, plateau_tolerance=0.5)
    optimizer.admit(0, start, schedule)
    for _ in range(delay):
        optimizer.step()
    optimizer.admit(1, start, schedule)
    assert {slot: end.steps for slot, end in finish(optimizer).items()} == {0: 20, 1: 20}


def test_steps_read_nothing_but_the_flags_one_check_late(generator: Seeded) -> None:
    def bowl(ws: Tensor, theta: Tensor, slots: Tensor) -> tuple[Tensor, Terms]:
        loss = ws.square().sum((1, 2)) + theta.square().sum(1)
        return loss, {"bowl": loss}

    optimizer = make(bowl, num_slots=2, check=10)
    for slot in range(2):
        optimizer.admit(slot, rows(generator, slot, NUM_WS, W_DIM), Schedule(100, 0.1, tied=slot == 0))
    reads = []
    for _ in range(30):
        with HostReads() as host:
            optimizer.step()
        reads.append(host.names)
    assert [step for step, names in enumerate(reads, 1) if names] == [20, 30]
    assert reads[19] == ["tolist", "tolist"]  # one small row for each slot


def test_step_works_where_its_caller_switched_gradients_off(edits: list[tuple[Tensor, Tensor, Schedule]]) -> None:
    with torch.no_grad():
        ws, _, _ = alone(*edits[0])
    assert torch.equal(ws, alone(*edits[0])[0])
