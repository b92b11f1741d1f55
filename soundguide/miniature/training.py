"""What the training loops share: a resumable state, a rate that warms up and anneals, averaged weights.

Kernels and weight matrices inside a network may be learned by Muon (Jordan et al. 2024), which takes steps of equal
size in all directions of a matrix: on the miniature's networks it needs several times fewer steps than Adam.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn

from soundguide.pretraining.optimizers import adam_and_muon

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 240.0
LOG_EVERY_S = 20.0
WORTH_COMPILING = 500  # steps


class Training:
    """A resumable optimisation of one module: warm-up then cosine annealing, exponentially averaged weights.

    ``folder`` holds ``state.pt``; where it exists, training goes on from it. ``num_steps`` is the length of the
    whole schedule. The parameters in ``matrices``, of two dimensions or more, are learned by Muon at
    ``matrix_rate`` (which multiplies updates of the size of Adam's), all others by Adam at ``learning_rate``.
    """

    def __init__(
        self,
        module: nn.Module,
        folder: Path,
        *,
        num_steps: int,
        learning_rate: float,
        matrices: Iterable[nn.Parameter] = (),
        matrix_rate: float = 0.1,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
        average_over: int = 500,
        seed: int = 0,
    ) -> None:
        self.module, self.folder, self.num_steps = module, folder, num_steps
        self.averaged = copy.deepcopy(module).requires_grad_(False)
        self.keep = 1 - 1 / average_over
        self._matrices = [(p, nn.Parameter(as_matrix(p.data, p))) for p in matrices]  # shares memory
        apart = {id(p) for p, _ in self._matrices}
        trained = [p for p in module.parameters() if p.requires_grad and id(p) not in apart]
        self.optimizers = adam_and_muon(
            trained,
            [matrix for _, matrix in self._matrices],
            learning_rate=learning_rate,
            matrix_rate=matrix_rate,
            weight_decay=weight_decay,
            betas=betas,
        )
        self._current_tensors: list[Tensor] = [p.detach() for p in module.parameters()]
        self._averaged_tensors: list[Tensor] = list(self.averaged.parameters())
        self.step = 0
        self.generator = torch.Generator().manual_seed(seed)
        logger.info("training %s: %d steps, state in %s", type(module).__name__, num_steps, folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def steps(self) -> Iterator[int]:
        """Yield the numbers of the steps left, logging now and then and saving every few minutes and at the end.

        Ctrl-C is heeded at the end of a step, which is then saved; `KeyboardInterrupt` says how to go on.
        """
        first = self.step
        with _interrupts_held() as interrupted:
            yield from self._steps(interrupted)
        self._copy_buffers()
        logger.info("done: %d steps in this run", self.step - first)

    def _steps(self, interrupted: Event) -> Iterator[int]:
        saved = logged = time.monotonic()
        while self.step < self.num_steps:
            warm = min(1.0, (self.step + 1) / max(1, min(500, self.num_steps // 20)))
            share = warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.step / self.num_steps)))
            for optimizer, rate in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * share
            self.report: dict[str, Tensor] = {}
            yield self.step
            self.step += 1
            now = time.monotonic()
            if now - logged > LOG_EVERY_S or self.step == self.num_steps:
                values = " ".join(f"{name} {float(value):.4f}" for name, value in self.report.items())
                logger.info("step %d/%d rate %.3f %s", self.step, self.num_steps, share, values)
                logged = now
            if now - saved > SAVE_EVERY_S or self.step == self.num_steps or interrupted.is_set():
                self.save()
                saved = now
            if interrupted.is_set():
                raise KeyboardInterrupt(
                    f"Step {self.step} of {self.num_steps} is saved in {self.folder}. "
                    "Give the same command again to go on."
                )

    def update(self, loss: Tensor, **report: Tensor) -> None:
        """Take one step down ``loss`` and follow with the averaged weights."""
        self.module.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        for parameter, matrix in self._matrices:
            matrix.grad = None if parameter.grad is None else as_matrix(parameter.grad, parameter)
        for optimizer, _ in self.optimizers:
            optimizer.step()
        keep = min(self.keep, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(self._averaged_tensors, self._current_tensors, 1 - keep)
        self.report = {"loss": loss.detach(), **report}

    def save(self) -> None:
        """Write the state atomically."""
        self._copy_buffers()
        state = {
            "module": self.module.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
            "generator": self.generator.get_state(),
            "step": self.step,
        }
        temporary = self.folder / f"state.{os.getpid()}.tmp"
        torch.save(state, temporary)
        temporary.replace(self.folder / "state.pt")

    def _copy_buffers(self) -> None:
        """Give the averaged module the running statistics of the trained one: batch normalisation averages its own."""
        for mean, buffer in zip(self.averaged.buffers(), self.module.buffers(), strict=True):
            mean.copy_(buffer)

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        if path.exists():
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
            self.module.load_state_dict(state["module"])
            self.averaged.load_state_dict(state["averaged"])
            for (optimizer, _), saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.generator.set_state(state["generator"])
            self.step = int(state["step"])
            logger.info("resumed %s at step %d", path, self.step)


@contextmanager
def _interrupts_held() -> Iterator[Event]:
    """Note the first Ctrl-C instead of raising it, so that no step is cut in half; the second is raised as ever."""
    interrupted = Event()
    ours = threading.current_thread() is threading.main_thread()  # only there may handlers be set
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupted  # whoever else handles or ignores the signal goes on doing so
        return

    def note(*_: object) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def compiled(function: Callable[[Tensor], Tensor], *, num_steps: int) -> Callable[[Tensor], Tensor]:
    """Return a function compiled for a training that is long enough to repay it, where there is a C++ compiler."""
    if num_steps < WORTH_COMPILING or shutil.which("g++") is None:
        return function
    made: Callable[[Tensor], Tensor] = torch.compile(function)
    return made


def as_matrix(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a ``parameter`` ``[out, ...]`` or its gradient as ``[out, rest]``, in the order of the parameter's memory.

    Of the parameter itself it is a view.
    """
    if parameter.dim() == 4 and not parameter.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)  # channels last
    return tensor.flatten(1)
