"""Train a generator of the miniature by regression: z -> factors -> rendered picture is the truth, without adversary.

First the mapping network alone learns to lay the factors out linearly in w, each along a direction of its own; then
the synthesis network learns to paint them. Learned together, the mapping is the slow part and the pictures stay a
blur for hours.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.latents import Z_DIM, Latents
from soundguide.miniature.training import Training
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.models.stylegan2_layers import SynthesisLayer

GENERATOR = StyleGAN2Config(
    resolution=64, z_dim=Z_DIM, w_dim=128, mapping_layers=3, mapping_lr_multiplier=1.0, channels=(96, 96, 64, 48, 24)
)

logger = logging.getLogger(__name__)

LIFT = 4.0  # w is the output of a leaky ReLU: far above zero the last layer can be linear in what the first ones found

BATCH = 32
POOL = 20_480  # rendered scenes kept at hand; each is seen about REUSE times before a fresh one takes its place
REUSE = 8
REFILL = 1024
MASK_WEIGHT = 4.0  # errors where an event shows count five times
CODE_NOISE = 0.3  # in standard deviations: W+ around the manifold must stay on it


class ScenePool:
    """Pictures of a world rendered ahead, as bytes; slowly replaced by fresh ones."""

    def __init__(self, domain: Domain, resolution: int, size: int, generator: torch.Generator) -> None:
        self.domain, self.resolution, self.generator, self.next = domain, resolution, generator, 0
        self.z = torch.zeros(size, Z_DIM)
        self.images = torch.zeros(size, 3, resolution, resolution, dtype=torch.uint8)
        self.masks = torch.zeros(size, 1, resolution, resolution, dtype=torch.uint8)

    def refill(self, num: int) -> None:
        """Render ``num`` fresh pictures over the oldest ones, three of four crowded with events."""
        latents, threads = self.domain.latents, torch.get_num_threads()
        torch.set_num_threads(1)  # hundreds of small operations: more threads only wait for each other
        for _ in range(num // 128):
            crowded = latents.sample(96, self.generator, crowded=True)
            z = torch.cat([crowded, latents.sample(32, self.generator, crowded=False)])
            rendered = self.domain.render(latents.factors(z), self.resolution)
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


def factor_layout(w_dim: int, latents: Latents = LANDSCAPE.latents) -> tuple[Tensor, Tensor]:
    """Return directions ``[num_factors, D]`` and offsets: w = LIFT + (factors - offsets) @ directions.

    A continuous factor spans +-1.7 units along its direction; an event at full strength lies 2.5 units from its
    absence.
    """
    generator = torch.Generator().manual_seed(2)
    num_factors, num_continuous = latents.num_factors, latents.num_continuous
    basis = torch.linalg.qr(torch.randn(w_dim, num_factors, generator=generator))[0].T * w_dim**0.5 / num_factors**0.5
    size = torch.full((num_factors,), 2.5)
    size[:num_continuous] = 12**0.5
    offsets = torch.zeros(num_factors)
    offsets[:num_continuous] = 0.5
    return basis * size[:, None], offsets


def codes_of(factors: Tensor, model: StyleGAN2, latents: Latents) -> Tensor:
    """Return the codes ``[B, L, D]`` at which `fit_mapping` lays pictures of ``factors`` ``[B, num_factors]``."""
    directions, offsets = factor_layout(model.w_dim, latents)
    return (LIFT + (factors - offsets) @ directions)[:, None].expand(-1, model.num_ws, -1)


def fit_mapping(model: StyleGAN2, *, num_steps: int, latents: Latents = LANDSCAPE.latents) -> float:
    """Teach the mapping network the layout of factors in w; return its last root mean square error, in w units."""
    generator = torch.Generator().manual_seed(3)
    optimizer = torch.optim.Adam(model.mapping.parameters(), lr=3e-3, betas=(0.9, 0.99))
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    loss = torch.zeros(())
    for _ in range(num_steps):
        z = torch.cat([latents.sample(256, generator, crowded=crowded) for crowded in (False, True)])
        target = codes_of(latents.factors(z), model, latents)[:, 0]
        loss = (model.mapping(z) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        annealing.step()
    return float(loss.detach().sqrt())


def train_generator(
    folder: Path,
    *,
    domain: Domain = LANDSCAPE,
    config: StyleGAN2Config = GENERATOR,
    num_steps: int = 8000,
    mapping_steps: int = 8000,
    pool_size: int = POOL,
    compiled: bool = True,
) -> StyleGAN2:
    """Train (or go on training) the generator of a world in ``folder``; return the averaged one, with ``w_avg`` set.

    ``pool_size``: rendered pictures kept at hand.
    """
    model = StyleGAN2(config).to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, SynthesisLayer):  # the constant noise is learned too: it tells places apart
            module.noise_strength.data.fill_(0.1)
            noise = module.noise_const
            del module.noise_const
            module.noise_const = torch.nn.Parameter(noise)
    logger.info("fitting the mapping first: %d steps", mapping_steps)
    error = fit_mapping(model, num_steps=mapping_steps, latents=domain.latents)
    logger.info("mapping fitted: error %.3f w units", error)
    model.mapping.requires_grad_(False)
    training = Training(model, folder, num_steps=num_steps, learning_rate=1e-2, matrices=hidden_weights(model))
    synthesize = torch.compile(model.synthesize) if compiled else model.synthesize
    pool = ScenePool(domain, config.resolution, pool_size, training.generator)
    pool.refill(pool_size)
    for step in training.steps():
        if (step + 1) % (REFILL * REUSE // BATCH) == 0:
            pool.refill(REFILL)
        z, truth, mask = pool.draw(BATCH)
        ws = model.map(z)
        images = synthesize(ws + beside(ws, training.generator, domain.latents))
        loss = reconstruction_loss(images, truth, mask)
        training.update(loss, error=(images.detach() - truth).abs().mean() / 2)
    return finished_generator(training.averaged, config)


def hidden_weights(model: StyleGAN2) -> list[torch.nn.Parameter]:
    """Return the kernels and style matrices of all synthesis layers."""
    layers = [module for module in model.modules() if isinstance(module, SynthesisLayer)]
    return [weight for layer in layers for weight in (layer.weight, layer.affine.weight)]


def beside(ws: Tensor, generator: torch.Generator, latents: Latents = LANDSCAPE.latents) -> Tensor:
    """Return moves ``[B, L, D]`` away from where scenes lie, of up to `CODE_NOISE` standard deviations.

    Each layer moves for itself, and all together in directions that no factor has: a common move along a factor's
    direction is another scene, and to paint the old one there would teach blur.
    """
    directions, _ = factor_layout(ws.shape[2], latents)
    basis = torch.nn.functional.normalize(directions, dim=1)
    common = torch.randn(len(ws), 1, ws.shape[2], generator=generator)
    common = common - common @ basis.T @ basis
    noise = torch.randn(ws.shape, generator=generator) + common
    return noise * CODE_NOISE * torch.rand(len(ws), 1, 1, generator=generator) * ws[:, :1].std(0, keepdim=True)


def finished_generator(trained: torch.nn.Module, config: StyleGAN2Config) -> StyleGAN2:
    """Return an ordinary generator with the trained weights and the mean code of 16,384 seeds."""
    model = StyleGAN2(config)
    model.load_state_dict(trained.state_dict())
    z = torch.randn(16_384, Z_DIM, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.mapping.w_avg.copy_(model.mapping(z).mean(0))
    return model.eval().requires_grad_(False)
