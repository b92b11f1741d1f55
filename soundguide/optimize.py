"""Latent optimisation over slots: a pure loop in which every slot is an edit of its own.

Each slot has its own Adam state, step counter, schedule and stop rule; the loss is the sum over slots, so no slot feels another. A slot that
ended is free for the next edit at the next step (continuous batching). Nothing here knows images, sounds or models: the objective is a callable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Terms = dict[str, Tensor]
Objective = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Terms]]
"""``(ws [B, L, D], theta [B, L], slots [B]) -> (loss [B], terms by name, each [B])``."""

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam, Kingma & Ba 2015


@dataclass(frozen=True, slots=True)
class Schedule:
    """How one slot moves and when it stops.

    ``learning_rate`` is in step scales (standard deviations of codes); it rises over the share ``rampup`` of the steps and falls along a cosine
    over the last share ``rampdown`` (Karras et al. 2020, appendix D). ``tied`` moves all layers alike (plain W). ``gate_learning_rate`` 0 leaves
    theta alone. ``plateau_steps`` 0: no early stop.
    """

    num_steps: int
    learning_rate: float
    rampup: float = 0.05
    rampdown: float = 0.25
    tied: bool = False
    gate_learning_rate: float = 0.0
    plateau_steps: int = 0
    plateau_tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A slot whose run is over: ``finite`` is False where it left the finite numbers."""

    slot: int
    steps: int
    finite: bool


class LatentOptimizer:
    """Adam over ``num_slots`` codes ``[L, D]`` at once, each on its own schedule.

    ``step_scale`` ``[D]``: the unit of the learning rate in each dimension. ``check_every``: a slot's stop flags are copied to the host at every
    so many of its own steps and read one check later, so that the device never waits; its path depends on its own steps alone.
    """

    def __init__(
        self, objective: Objective, *, num_slots: int, num_ws: int, step_scale: Tensor, check_every: int = 10
    ) -> None:
        device, w_dim = step_scale.device, len(step_scale)
        self.objective, self.num_slots, self.check_every = objective, num_slots, check_every
        self.step_scale = step_scale
        self.ws = torch.zeros(num_slots, num_ws, w_dim, device=device)
        self.theta = torch.zeros(num_slots, num_ws, device=device)
        self.loss = torch.zeros(num_slots, device=device)
        self.terms: Terms = {}
        self._first, self._second = torch.zeros_like(self.ws), torch.zeros_like(self.ws)
        self._gate_first, self._gate_second = torch.zeros_like(self.theta), torch.zeros_like(self.theta)
        # per slot, on the device: step, num_steps, rate, rampup, rampdown, tied, gate rate, plateau steps, tolerance
        self._plan = torch.zeros(num_slots, 9, device=device, dtype=torch.float64)
        self._best = torch.full((num_slots,), math.inf, device=device)
        self._since = torch.zeros(num_slots, device=device)
        self._schedules: dict[int, Schedule] = {}
        self._steps: dict[int, int] = {}
        self._flags: dict[int, Tensor] = {}  # slot -> (finite, on plateau) as of its last check
        self._rows = torch.zeros(0, dtype=torch.long, device=device)

    @property
    def active(self) -> tuple[int, ...]:
        """The slots that are running, in order."""
        return tuple(sorted(self._schedules))

    @property
    def free(self) -> tuple[int, ...]:
        """The slots that can take an edit."""
        return tuple(slot for slot in range(self.num_slots) if slot not in self._schedules)

    def steps_of(self, slot: int) -> int:
        """Return how many steps the slot has taken."""
        return self._steps[slot]

    def admit(self, slot: int, ws: Tensor, schedule: Schedule) -> None:
        """Start a run in a free slot from the code ``ws`` ``[L, D]``."""
        assert slot not in self._schedules, slot
        self.ws[slot] = ws
        for state in (self.theta, self._first, self._second, self._gate_first, self._gate_second, self._since, self.loss):
            state[slot] = 0
        self._best[slot] = math.inf
        plan = (0, schedule.num_steps, schedule.learning_rate, schedule.rampup, schedule.rampdown, schedule.tied)
        gates_and_stop = (schedule.gate_learning_rate, schedule.plateau_steps, schedule.plateau_tolerance)
        self._plan[slot] = torch.tensor([*map(float, plan), *map(float, gates_and_stop)], dtype=torch.float64)
        self._schedules[slot], self._steps[slot] = schedule, 0
        self._rows = torch.tensor(self.active, dtype=torch.long, device=self.ws.device)

    def release(self, slot: int) -> None:
        """Free a slot, whether its run ended or is cancelled; its ``ws`` and ``theta`` stay readable until the next `admit`."""
        del self._schedules[slot]
        self._flags.pop(slot, None)
        self._rows = torch.tensor(self.active, dtype=torch.long, device=self.ws.device)

    def step(self) -> list[Ended]:
        """Take one step in every running slot; return the slots whose runs are over. They stay taken until released."""
        ended = [Ended(slot, 0, True) for slot, schedule in self._schedules.items() if schedule.num_steps == 0]
        if ended or not self._schedules:
            return ended
        rows = self._rows
        ws = self.ws[rows].requires_grad_()
        theta = self.theta[rows].requires_grad_()
        loss, self.terms = self.objective(ws, theta, rows)
        grad, gate_grad = torch.autograd.grad(loss.sum(), (ws, theta), allow_unused=True)  # sum: slots stay independent
        with torch.no_grad():
            self.loss[rows] = loss.detach()
            self._move(rows, ws, grad, theta, gate_grad)
            self._watch(rows, loss)
        return self._ended()

    def _move(self, rows: Tensor, ws: Tensor, grad: Tensor | None, theta: Tensor, gate_grad: Tensor | None) -> None:
        plan = self._plan[rows]
        step, rate = plan[:, 0] + 1, _rate(plan)
        if grad is not None:
            grad = grad * self.step_scale
            # one shared step for all layers is plain W; Adam's state is then equal in all layers too
            grad = torch.where(plan[:, 5, None, None] > 0, grad.mean(1, keepdim=True).expand_as(grad), grad)
            move = _adam(self._first, self._second, rows, grad, step, rate)
            self.ws[rows] = ws - move * self.step_scale
        if gate_grad is not None:
            self.theta[rows] = theta - _adam(self._gate_first, self._gate_second, rows, gate_grad, step, plan[:, 6])
        self._plan[rows, 0] = step

    def _watch(self, rows: Tensor, loss: Tensor) -> None:
        plan = self._plan[rows]
        improved = loss < self._best[rows] - plan[:, 8]
        self._best[rows] = torch.where(improved, loss, self._best[rows])
        self._since[rows] = torch.where(improved, 0.0, self._since[rows] + 1)
        for slot in self._schedules:
            self._steps[slot] += 1
        if any(self._steps[slot] % self.check_every == 0 for slot in self._schedules):
            finite = torch.isfinite(self.loss) & torch.isfinite(self.ws).all(2).all(1)
            plateau = (self._plan[:, 7] > 0) & (self._since >= self._plan[:, 7])
            self._latest = torch.stack([finite, plateau], 1).to("cpu", non_blocking=True)

    def _ended(self) -> list[Ended]:
        ended = []
        for slot, schedule in self._schedules.items():
            steps = self._steps[slot]
            finite = plateau = None
            if steps % self.check_every == 0:
                if slot in self._flags:
                    finite, plateau = self._flags[slot].tolist()
                self._flags[slot] = self._latest[slot]
            if steps >= schedule.num_steps:
                ended.append(Ended(slot, steps, bool(torch.isfinite(self.ws[slot]).all() & torch.isfinite(self.loss[slot]))))
            elif finite is False or plateau:
                ended.append(Ended(slot, steps, finite is not False))
        return ended


def _rate(plan: Tensor) -> Tensor:
    """Return each slot's learning rate at its step, ``[B]``."""
    step, num_steps, rate, rampup, rampdown = plan[:, :5].unbind(1)
    done = step / num_steps
    down = ((1 - done) / rampdown.clamp_min(1e-9)).clamp(max=1)
    up = ((step + 1) / (num_steps * rampup).clamp_min(1e-9)).clamp(max=1)
    return rate * (0.5 - 0.5 * torch.cos(math.pi * down)) * up


def _adam(first: Tensor, second: Tensor, rows: Tensor, grad: Tensor, step: Tensor, rate: Tensor) -> Tensor:
    """Update the moments of some rows and return Adam's move, in units of the rate."""
    shape = (-1, *[1] * (grad.dim() - 1))
    first[rows] = torch.lerp(grad, first[rows], BETA1)
    second[rows] = torch.lerp(grad.square(), second[rows], BETA2)
    correction1, correction2 = ((1 - beta**step).reshape(shape).to(grad.dtype) for beta in (BETA1, BETA2))
    return rate.reshape(shape).to(grad.dtype) * (first[rows] / correction1) / ((second[rows] / correction2).sqrt() + EPSILON)
