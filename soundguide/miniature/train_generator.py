"""Train the miniature's generator by regression: z -> factors -> rendered scene is the truth, no adversary is needed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from soundguide.miniature.scenes import Z_DIM, factors_from_z, render, sample_z
from soundguide.miniature.training import Training
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.models.stylegan2_layers import SynthesisLayer

GENERATOR = StyleGAN2Config(resolution=64, z_dim=Z_DIM, w_dim=128, mapping_layers=4, mapping_lr_multiplier=0.1, channels=(96, 96, 64, 48, 24))

BATCH = 32
POOL = 40_960  # rendered scenes kept at hand; each is seen about REUSE times before a fresh one takes its place
REUSE = 8
REFILL = 1024
MASK_WEIGHT = 4.0  # errors where an event shows count five times
CODE_NOISE = 0.35  # most noise on each layer's code, in its standard deviations: W+ around the manifold must stay on it


class ScenePool:
    """Scenes rendered ahead, as bytes; slowly replaced by fresh ones."""

    def __init__(self, resolution: int, size: int, generator: torch.Generator) -> None:
        self.resolution, self.generator, self.next = resolution, generator, 0
        self.z = torch.zeros(size, Z_DIM)
        self.images = torch.zeros(size, 3, resolution, resolution, dtype=torch.uint8)
        self.masks = torch.zeros(size, 1, resolution, resolution, dtype=torch.uint8)

    def refill(self, num: int) -> None:
        """Render ``num`` fresh scenes over the oldest ones, half of them crowded with events."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # hundreds of small operations: more threads only wait for each other
        for _ in range(num // 128):
            z = torch.cat([sample_z(96, self.generator, crowded=True), sample_z(32, self.generator)])
            rendered = render(factors_from_z(z), self.resolution)
            place = slice(self.next, self.next + len(z))
            self.z[place] = z
            self.images[place] = ((rendered.images + 1) * 127.5).round().to(torch.uint8)
            self.masks[place] = (rendered.event_mask * 255).round().to(torch.uint8)
            self.next = (self.next + len(z)) % len(self.z)
        torch.set_num_threads(threads)

    def draw(self, num: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``z``, images in [-1, 1] and event masks in [0, 1] of ``num`` random scenes."""
        rows = torch.randint(len(self.z), (num,), generator=self.generator)
        return self.z[rows], self.images[rows].float() / 127.5 - 1, self.masks[rows].float() / 255


def reconstruction_loss(images: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Return mean absolute error of pixels and of their differences to the right and below, events counting more."""
    weight = 1 + MASK_WEIGHT * mask
    loss = (weight * (images - truth).abs()).mean()
    for axis in (2, 3):
        size = images.shape[axis] - 1
        error = (images - truth).diff(dim=axis).abs()
        loss = loss + (weight.narrow(axis, 0, size) * error).mean()
    return loss


def train_generator(folder: Path, *, num_steps: int = 36_000, compiled: bool = True) -> StyleGAN2:
    """Train (or go on training) the generator in ``folder``; return the averaged one, with ``w_avg`` set."""
    model = StyleGAN2(GENERATOR).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in model.modules():
        if isinstance(module, SynthesisLayer):  # the constant noise is learned too: it tells where rain falls and stars stand
            module.noise_strength.data.fill_(0.1)
            noise = module.noise_const
            del module.noise_const
            module.noise_const = torch.nn.Parameter(noise)
    training = Training(model, folder, num_steps=num_steps, learning_rate=4e-3)
    synthesize = torch.compile(model.synthesize) if compiled else model.synthesize
    pool = ScenePool(GENERATOR.resolution, POOL, training.generator)
    pool.refill(POOL)
    for step in training.steps():
        if (step + 1) % (REFILL * REUSE // BATCH) == 0:
            pool.refill(REFILL)
        z, truth, mask = pool.draw(BATCH)
        ws = model.map(z)
        amount = CODE_NOISE * torch.rand(BATCH, 1, 1, generator=training.generator)
        noise = torch.randn(ws.shape, generator=training.generator) * amount
        ws = ws + noise * ws[:, :1].detach().std(0, keepdim=True)
        images = synthesize(ws)
        loss = reconstruction_loss(images, truth, mask)
        training.update(loss, error=(images.detach() - truth).abs().mean() / 2)
    return finished_generator(training.averaged)


def finished_generator(trained: torch.nn.Module) -> StyleGAN2:
    """Return an ordinary generator with the trained weights and the mean code of 16,384 seeds."""
    model = StyleGAN2(GENERATOR)
    model.load_state_dict(trained.state_dict())
    z = torch.randn(16_384, Z_DIM, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.mapping.w_avg.copy_(model.mapping(z).mean(0))
    return model.eval().requires_grad_(False)
