"""Scenes of the miniature world as pictures, by seed and by what is to be heard in them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidConfig
from soundguide.images import Pixels
from soundguide.miniature.labels import LABELS
from soundguide.miniature.models import load_generator
from soundguide.miniature.scenes import CONTINUOUS, NUM_FACTORS, Z_DIM, factors_from_z, render
from soundguide.world import seeded_z, to_bytes

_BATCH = 16
_NUM_BISECTIONS = 40


def scene_latents(num: int, seed: int, labels: Sequence[str], *, intensity: float) -> Tensor:
    """Return normalised latents ``[num, Z_DIM]`` of seeds ``seed``, ``seed + 1`` ..., the scenes that edits start from.

    With ``labels`` all other events are calmed and these have the intensity 0..1.
    """
    z = torch.cat([seeded_z(seed + index, Z_DIM) for index in range(num)])
    z = _normalised(z)
    if not labels:
        return z
    events = slice(len(CONTINUOUS), NUM_FACTORS)
    z[:, events] = z[:, events].clamp(max=0)  # and so calm at any scale
    chosen = [len(CONTINUOUS) + LABELS.index(label) for label in labels]
    # What is set stays as it is; all else shrinks or grows until the whole is normalised again.
    value = _value_of(intensity)
    room = Z_DIM - len(chosen) * value**2
    if room <= 0:
        raise InvalidConfig(f"{len(chosen)} labels do not fit into one scene at intensity {intensity:g}. Give fewer.")
    z[:, chosen] = 0
    z = z * (room / z.square().sum(1, keepdim=True)).sqrt()
    z[:, chosen] = value
    return z


def draw_scenes(z: Tensor, resolution: int) -> list[Pixels]:
    """Return the renderer's pictures ``[resolution, resolution, 3]`` of latents ``[B, Z_DIM]``."""
    return [to_bytes(image) for part in z.split(_BATCH) for image in render(factors_from_z(part), resolution).images]


@torch.no_grad()
def generate_scenes(z: Tensor, config: ManipulatorConfig) -> list[Pixels]:
    """Return the generator's pictures of latents ``[B, Z_DIM]``; raise `InvalidConfig` for another world's."""
    generator = load_generator(config.generator)
    if generator.z_dim != Z_DIM:
        raise InvalidConfig(f"{config.generator}: no generator of miniature scenes (z of {Z_DIM}). Use 'miniature'.")
    return [to_bytes(image) for part in z.split(_BATCH) for image in generator.synthesize(generator.map(part))]


def _normalised(z: Tensor) -> Tensor:
    return z * torch.rsqrt(z.square().mean(1, keepdim=True))


def _value_of(intensity: float) -> float:
    """Return the component of a normalised z at which an event has this intensity, found by bisection."""
    low, high = 0.0, math.sqrt(Z_DIM)
    for _ in range(_NUM_BISECTIONS):
        middle = (low + high) / 2
        z = torch.zeros(1, Z_DIM)
        z[0, 0], z[0, len(CONTINUOUS)] = math.sqrt(Z_DIM - middle**2), middle
        if float(factors_from_z(z)[0, len(CONTINUOUS)]) < intensity:
            low = middle
        else:
            high = middle
    return high
