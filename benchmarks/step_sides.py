"""The sides of edit_step.py: the networks that they share, and what each of them does in a step."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from peer_loop import PeerLoop
from torch import Tensor

from soundguide.config import EditSettings
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.lee_audio import LeeAudioConfig, LeeAudioEncoder
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.objective import EditObjective, Run
from soundguide.optimize import LatentOptimizer
from soundguide.precision import autocast, compute_dtype


@dataclass(frozen=True)
class Side:
    """Who takes steps: ``kind`` peers, peers depthwise, ours or ceiling; ``dtype`` 'fp32', 'bf16' or 'bf16 forced'."""

    kind: str
    dtype: str = "fp32"
    batch: int = 1
    views: int = 1
    compiled: bool = False

    @property
    def name(self) -> str:
        views = f", {self.views} views" if self.views > 1 else ""
        batch = f", batch {self.batch}" if self.batch > 1 else ""
        return f"{self.kind} {self.dtype}{batch}{views}{', compiled' if self.compiled else ''}"

    @property
    def home(self) -> str:
        """The process of this side: peers have one of their own, and others share one with the same format."""
        return self.kind if self.kind.startswith("peers") else self.dtype


@dataclass(frozen=True)
class Plan:
    """What is measured; the help of the flags of the same names says more."""

    steps: int = 20
    repeats: int = 7
    turn: int = 3
    channel_base: int = 32768
    resolution: int = 256
    device: str = "cpu"
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)


class World:
    """Random networks, a source and a sound, the same in every process. CLIP gets pictures as the peers give them."""

    def __init__(
        self, plan: Plan, image_text: OpenClipConfig | None = None, audio: LeeAudioConfig | None = None
    ) -> None:
        self.device = torch.device(plan.device)
        config = image_text or OpenClipConfig(architecture="ViT-B-32", mean=(0.5,) * 3, std=(0.5,) * 3)
        generator = StyleGAN2(StyleGAN2Config(resolution=plan.resolution, channel_base=plan.channel_base), seed=1)
        self.generator = _frozen(generator, self.device)
        self.image_text = _frozen(OpenClipEncoder(config, seed=2), self.device)
        self._audio = audio or LeeAudioConfig()
        z = torch.randn(64, generator.z_dim, generator=torch.Generator().manual_seed(4))
        with torch.no_grad():
            self.codes = self.generator.map(z.to(self.device))
            self.step_scale = self.codes[:, 0].std(0)

    @cached_property
    def audio(self) -> LeeAudioEncoder:
        return _frozen(LeeAudioEncoder(self._audio, seed=3), self.device)

    @cached_property
    def log_mel(self) -> Tensor:
        sound = torch.randn(1, self.audio.num_samples, generator=torch.Generator().manual_seed(5)) * 0.1
        return self.audio.log_mel(sound.to(self.device))

    @property
    def target(self) -> Tensor:
        """The embedding of the sound, ``[E]``."""
        with torch.no_grad():
            sound = torch.randn(1, self.audio.num_samples, generator=torch.Generator().manual_seed(5)) * 0.1
            return self.audio.encode_audio(sound.to(self.device))[0]


def _frozen(network: Any, device: torch.device) -> Any:
    return network.to(device).eval().requires_grad_(False)


def settings(steps: int, views: int) -> EditSettings:
    """Return our settings for what both sides minimise: 1 - cosine and the squared distance to the source."""
    return EditSettings(
        num_steps=steps,
        num_views=views,
        exploration=0.0,
        lambda_spread=0.0,
        rampup=0.0,
        rampdown=0.0,
        learning_rate=0.05,
    )


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """Return the format in which a side computes."""
    return torch.bfloat16 if name == "bf16 forced" else compute_dtype("bf16" if name == "bf16" else "fp32", device)


def our_optimizer(world: World, side: Side, steps: int) -> LatentOptimizer:
    """Return our optimiser with a run in each of its slots, as the manipulator sets it up."""
    dtype = dtype_of(side.dtype, world.device)
    if side.compiled:
        world.generator.synthesis.compile(dynamic=False)
        world.image_text.clip.visual.compile(dynamic=False)
    objective = EditObjective(
        world.generator, world.image_text, None, num_slots=side.batch, step_scale=world.step_scale, dtype=dtype
    )
    optimizer = LatentOptimizer(
        objective,
        num_slots=side.batch,
        num_ws=world.generator.num_ws,
        step_scale=world.step_scale,
        group_size=side.batch,
    )
    for slot in range(side.batch):
        run = Run("edit", world.codes[slot], world.target, settings(steps, side.views))
        objective.admit(slot, run)
        optimizer.admit(slot, run.start, run.schedule, objective.for_run(run))
    return optimizer


def bare_step(world: World, side: Side) -> Callable[[], None]:
    """Return the ceiling: forward and backward of both networks, the picture resized, and nothing else."""
    dtype = dtype_of(side.dtype, world.device)
    size = world.image_text.resolution
    start, target = world.codes[: side.batch].clone().requires_grad_(), world.target

    def step() -> None:
        with autocast(world.device, dtype):
            images = world.generator.synthesize(start)
            seen = torch.nn.functional.interpolate(images, size=(size, size), mode="bilinear", antialias=False)
            embedded = world.image_text.encode_image(seen)
        torch.autograd.grad((embedded @ target).sum(), start)

    return step


def make_step(side: Side, steps: int, world: World) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    """Return what takes a step of a side, and what returns its codes ``[B, L, D]``."""
    if side.kind.startswith("peers"):
        start = world.codes[: side.batch]
        # their rate is in units of w, ours in deviations of each of its dimensions
        rate, reg = settings(steps, 1).learning_rate * float(world.step_scale.mean()), settings(steps, 1).lambda_reg
        loop = PeerLoop(
            world.generator,
            world.image_text,
            world.audio,
            ws=start,
            log_mel=world.log_mel,
            learning_rate=rate,
            lambda_reg=reg,
            depthwise=side.kind == "peers depthwise",
        )
        return loop.step, lambda: loop.ws.detach()
    if side.kind == "ceiling":
        return bare_step(world, side), lambda: world.codes[: side.batch]
    optimizer = our_optimizer(world, side, steps)
    return optimizer.step, lambda: optimizer.ws
