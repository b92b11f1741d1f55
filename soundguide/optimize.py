"""Latent optimisation over slots: a pure loop in which every slot is an edit of its own.

Each slot has its own Adam state, step counter, schedule and stop rule; the loss is the sum over slots, so no slot feels
another. A slot that ended is free for the next edit at the next step (continuous batching). Nothing here knows images,
sounds or models: the objective is a callable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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

    ``learning_rate`` is in step scales (standard deviations of codes); it rises over the share ``rampup`` of the steps
    and falls along a cosine over the last share ``rampdown`` (Karras et al. 2020, appendix D). ``tied`` moves all
    layers alike (plain W). ``gate_learning_rate`` 0 leaves theta alone. ``plateau_steps`` 0: no early stop.
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


@dataclass(frozen=True, slots=True)
class _Flags:
    """The stop flags of all slots after one step, on their way to the host."""

    values: Tensor  # [B, 2]: finite, on its plateau
    arrived: torch.cuda.Event | None

    @classmethod
    def send(cls, values: Tensor) -> _Flags:
        if values.device.type != "cuda":
            return cls(values, None)
        host = values.to("cpu", non_blocking=True)  # into pinned memory: does not wait
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(values.device))
        return cls(host, arrived)

    def read(self, slot: int) -> tuple[bool, bool]:
        if self.arrived is not None:
            self.arrived.synchronize()  # the copy may still be on its way: without this, the memory holds anything
        finite, plateau = self.values[slot].tolist()
        return finite, plateau


@dataclass(frozen=True, slots=True)
class _Group:
    """Slots whose objective is evaluated in one call; ``rows`` repeats the last one up to the group's size."""

    objective: Objective
    slots: tuple[int, ...]
    rows: Tensor


class LatentOptimizer:
    """Adam over ``num_slots`` codes ``[L, D]`` at once, each on its own schedule.

    The objective is evaluated on groups of ``group_size`` slots, filled up where fewer run: kernels choose their
    arithmetic by the shape, and rounding grows to visible differences within tens of steps, so only equal shapes make
    a slot's path independent of its company to the bit. 0: all running slots in one call, whatever their number.
    ``step_scale`` ``[D]``: the unit of the learning rate in each dimension; its device and dtype are those of all
    state. ``check_every``: a slot's stop flags are copied to the host at every so many of its own steps and read one
    check later, so that the device never waits for them; its path depends on its own steps alone.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        num_slots: int,
        num_ws: int,
        step_scale: Tensor,
        check_every: int = 10,
        group_size: int = 0,
    ) -> None:
        self.objective, self.num_slots, self.check_every = objective, num_slots, check_every
        self.group_size = group_size
        self.step_scale = step_scale
        self.ws = step_scale.new_zeros(num_slots, num_ws, len(step_scale))
        self.theta = step_scale.new_zeros(num_slots, num_ws)
        self.loss = step_scale.new_zeros(num_slots)
        self.stepped: tuple[int, ...] = ()  # the slots that took the latest step, in the order of `terms`
        self.terms: Terms = {}
        self._first, self._second = torch.zeros_like(self.ws), torch.zeros_like(self.ws)
        self._gate_first, self._gate_second = torch.zeros_like(self.theta), torch.zeros_like(self.theta)
        # per slot: step, num_steps, rate, rampup, rampdown, tied, gate rate, plateau steps, tolerance
        self._plan = step_scale.new_zeros(num_slots, 9, dtype=torch.float64)
        self._best = torch.full_like(self.loss, math.inf)
        self._since = torch.zeros_like(self.loss)
        self._schedules: dict[int, Schedule] = {}
        self._steps: dict[int, int] = {}
        self._flags: dict[int, _Flags] = {}  # slot -> flags as of its latest check
        self._objectives: dict[int, Objective] = {}
        self._groups: list[_Group] = []
        self._rows = torch.zeros(0, dtype=torch.long, device=step_scale.device)

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

    def admit(self, slot: int, ws: Tensor, schedule: Schedule, objective: Objective | None = None) -> None:
        """Start a run in a free slot from the code ``ws`` ``[L, D]``; only slots of one ``objective`` share a group."""
        assert slot not in self._schedules, slot
        self.ws[slot] = ws
        moments = (self._first, self._second, self._gate_first, self._gate_second)
        for state in (self.theta, self.loss, self._since, *moments):
            state[slot] = 0
        self._best[slot] = math.inf
        plan = (0, schedule.num_steps, schedule.learning_rate, schedule.rampup, schedule.rampdown, schedule.tied)
        gates_and_stop = (schedule.gate_learning_rate, schedule.plateau_steps, schedule.plateau_tolerance)
        self._plan[slot] = torch.tensor([float(value) for value in (*plan, *gates_and_stop)], dtype=torch.float64)
        self._schedules[slot], self._steps[slot] = schedule, 0
        self._objectives[slot] = objective or self.objective
        self._list_rows()

    def release(self, slot: int) -> None:
        """Free a slot, whether its run ended or is cancelled; ``ws`` and ``theta`` stay readable until next `admit`."""
        self._schedules.pop(slot, None)
        self._objectives.pop(slot, None)
        self._flags.pop(slot, None)
        self._list_rows()

    def step(self) -> list[Ended]:
        """Take one step in every running slot; return the slots whose runs are over, to be released by the caller."""
        ended = [Ended(slot, 0, True) for slot in self.active if self._schedules[slot].num_steps == 0]
        self.stepped = tuple(slot for group in self._groups for slot in group.slots)
        if not self.stepped:
            return ended
        rows = self._rows
        parts = [self._differentiate(group) for group in self._groups]
        ws, theta = self.ws[rows], self.theta[rows]
        losses, grads, gate_grads, terms = zip(*parts, strict=True)
        loss, grad, gate_grad = torch.cat(losses), _join(grads), _join(gate_grads)
        with torch.no_grad():
            self.terms = {name: torch.cat([part[name] for part in terms]) for name in terms[0]}
            self.loss[rows] = loss
            self._move(rows, ws, grad, theta, gate_grad)
            self._watch(rows, loss)
        return ended + self._check()

    def _differentiate(self, group: _Group) -> tuple[Tensor, Tensor | None, Tensor | None, Terms]:
        """Return loss ``[B]``, gradients and terms of a group's slots."""
        num = len(group.slots)
        with torch.enable_grad():
            ws = self.ws[group.rows].requires_grad_()
            theta = self.theta[group.rows].requires_grad_()
            loss, terms = group.objective(ws, theta, group.rows)
            # sum, not mean: a slot's step must not depend on its neighbours
            grads = torch.autograd.grad(loss.sum(), (ws, theta), allow_unused=True)
        grad, gate_grad = (None if each is None else each[:num] for each in grads)
        return loss.detach()[:num], grad, gate_grad, {name: term.detach()[:num] for name, term in terms.items()}

    def _list_rows(self) -> None:
        alike: dict[Objective, list[int]] = {}
        for slot in self.active:
            if self._schedules[slot].num_steps > 0:
                alike.setdefault(self._objectives[slot], []).append(slot)
        self._groups = []
        for objective, slots in alike.items():
            size = self.group_size or len(slots)
            for start in range(0, len(slots), size):
                part = slots[start : start + size]
                filled = part + part[-1:] * (size - len(part))
                self._groups.append(_Group(objective, tuple(part), self._index(filled)))
        self._rows = self._index([slot for group in self._groups for slot in group.slots])

    def _index(self, slots: list[int]) -> Tensor:
        return torch.tensor(slots, dtype=torch.long, device=self.ws.device)

    def _move(self, rows: Tensor, ws: Tensor, grad: Tensor | None, theta: Tensor, gate_grad: Tensor | None) -> None:
        plan = self._plan[rows]
        step, rate = plan[:, 0] + 1, _rate(plan)
        if grad is not None:
            grad = grad * self.step_scale
            # the gradient of one vector shared by all layers; Adam's state is then equal in all layers too
            grad = torch.where(plan[:, 5, None, None] > 0, grad.sum(1, keepdim=True).expand_as(grad), grad)
            move = _adam(self._first, self._second, rows, grad, step, rate)
            self.ws[rows] = ws - move * self.step_scale
        if gate_grad is not None:
            self.theta[rows] = theta - _adam(self._gate_first, self._gate_second, rows, gate_grad, step, plan[:, 6])
        self._plan[rows, 0] = step

    def _watch(self, rows: Tensor, loss: Tensor) -> None:
        """Keep each slot's lowest loss, and for how many steps it has not fallen by the tolerance."""
        best = self._best[rows]
        improved = loss < best - self._plan[rows, 8]
        self._best[rows] = torch.where(improved, loss, best)
        self._since[rows] = torch.where(improved, 0.0, self._since[rows] + 1)

    def _check(self) -> list[Ended]:
        """Count the step and return the runs that are over, by their number of steps or by the flags one check ago."""
        last = {}
        for slot in self.stepped:
            self._steps[slot] += 1
            last[slot] = self._steps[slot] >= self._schedules[slot].num_steps
        checked = [slot for slot in self.stepped if last[slot] or self._steps[slot] % self.check_every == 0]
        if not checked:
            return []
        finite = self.loss.isfinite() & self.ws.isfinite().all(2).all(1)
        plateau = (self._plan[:, 7] > 0) & (self._since >= self._plan[:, 7])
        flags, ended = _Flags.send(torch.stack([finite, plateau], 1)), []
        for slot in checked:
            # a last step is checked as it is: whoever reads the result waits for it anyway
            before = flags if last[slot] else self._flags.get(slot)
            self._flags[slot] = flags
            is_finite, is_on_plateau = before.read(slot) if before is not None else (True, False)
            if last[slot] or is_on_plateau or not is_finite:
                ended.append(Ended(slot, self._steps[slot], is_finite))
        return ended


def _join(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate what all groups have; None where none has it."""
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


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
    scaled = (first[rows] / correction1) / ((second[rows] / correction2).sqrt() + EPSILON)
    return rate.reshape(shape).to(grad.dtype) * scaled
