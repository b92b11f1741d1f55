"""Held-out scenes: seeds that no training has seen, as the renderer paints them and as the generator draws them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.models.protocols import Generator
from soundguide.world import seeded_z

FIRST_SEED = 10_000_000  # of the scenes; training draws its latents from other streams
FIRST_SOURCE_SEED = 20_000_000  # where the search for the edits' sources begins
SEEDS_PER_REPORT = 100_000  # so that reports of different seeds share no scene
BATCH = 64


@dataclass(frozen=True, slots=True)
class Scenes:
    """Pictures of the same seeds: ``generated`` and, where they were asked for, ``rendered`` with ``masks``.

    ``factors`` ``[S, num_factors]`` of a ``domain``; pictures ``[S, 3, R, R]`` uint8, as they are seen; masks
    ``[S, 1, R, R]``, 0..1.
    """

    factors: Tensor
    generated: Tensor
    rendered: Tensor
    masks: Tensor
    domain: Domain = LANDSCAPE


@torch.no_grad()
def held_out_scenes(
    generator: Generator,
    *,
    num: int,
    seed: int,
    device: torch.device,
    rendered: bool = True,
    domain: Domain = LANDSCAPE,
) -> Scenes:
    """Draw (and render) ``num`` held-out scenes of a world; ``seed`` chooses another set of them."""
    first = FIRST_SEED + seed * SEEDS_PER_REPORT
    z = torch.cat([seeded_z(first + i, generator.z_dim) for i in range(num)])
    factors = domain.latents.factors(z)
    size = generator.resolution
    images = torch.cat(
        [as_bytes(generator.synthesize(generator.map(part.to(device)))) for part in torch.split(z, BATCH)]
    )
    if not rendered:
        return Scenes(factors, images, torch.zeros(0, 3, size, size), torch.zeros(0, 1, size, size), domain)
    paintings = [domain.render(part, size) for part in torch.split(factors, BATCH)]
    truth = torch.cat([as_bytes(painting.images) for painting in paintings])
    masks = torch.cat([painting.event_mask for painting in paintings])
    return Scenes(factors, images, truth, masks, domain)


def as_bytes(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as they are stored and seen: clamped, uint8, on the CPU."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def as_floats(images: Tensor) -> Tensor:
    """Return stored images, uint8, in [-1, 1]."""
    return images.float() / 127.5 - 1
