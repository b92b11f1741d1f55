"""Scenes of the miniature world as pictures, by seed and by what is to be heard in them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from soundguide.errors import InvalidConfig
from soundguide.images import Pixels
from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.latents import Z_DIM
from soundguide.miniature.models import load_generator
from soundguide.world import seeded_z, to_bytes

_BATCH = 16
_NUM_BISECTIONS = 40


def scene_latents(
    num: int, seed: int, labels: Sequence[str], *, intensity: float, domain: Domain = LANDSCAPE
) -> Tensor:
    """Return normalised latents ``[num, Z_DIM]`` of seeds ``seed``, ``seed + 1`` ..., the scenes that edits start from.

    With ``labels`` all other events are calmed and these have the intensity 0..1.
    """
    z = torch.cat([seeded_z(seed + index, Z_DIM) for index in range(num)])
    z = _normalised(z)
    if not labels:
        return z
    first = domain.latents.num_continuous
    events = slice(first, domain.latents.num_factors)
    z[:, events] = z[:, events].clamp(max=0)  # and so calm at any scale
    chosen = [first + domain.labels.index(label) for label in labels]
    # What is set stays as it is; all else shrinks or grows until the whole is normalised again.
    value = _value_of(intensity, domain)
    room = Z_DIM - len(chosen) * value**2
    if room <= 0:
        raise InvalidConfig(f"{len(chosen)} labels do not fit into one scene at intensity {intensity:g}. Give fewer.")
    z[:, chosen] = 0
    z = z * (room / z.square().sum(1, keepdim=True)).sqrt()
    z[:, chosen] = value
    return z


def draw_scenes(z: Tensor, resolution: int, domain: Domain) -> list[Pixels]:
    """Return the renderer's pictures ``[resolution, resolution, 3]`` of latents ``[B, Z_DIM]``."""
    parts = [domain.render(domain.latents.factors(part), resolution).images for part in z.split(_BATCH)]
    return [to_bytes(image) for part in parts for image in part]


@torch.no_grad()
def generate_scenes(z: Tensor, name: str) -> list[Pixels]:
    """Return the pictures of latents ``[B, Z_DIM]`` by a generator; raise `InvalidConfig` for another world's."""
    generator = load_generator(name)
    if generator.z_dim != Z_DIM:
        raise InvalidConfig(f"{name}: no generator of miniature scenes (z of {Z_DIM}). Use 'miniature'.")
    return [to_bytes(image) for part in z.split(_BATCH) for image in generator.synthesize(generator.map(part))]


def _normalised(z: Tensor) -> Tensor:
    return z * torch.rsqrt(z.square().mean(1, keepdim=True))


def _value_of(intensity: float, domain: Domain) -> float:
    """Return the component of a normalised z at which an event has this intensity, found by bisection."""
    low, high = 0.0, math.sqrt(Z_DIM)
    for _ in range(_NUM_BISECTIONS):
        middle = (low + high) / 2
        z = torch.zeros(1, Z_DIM)
        first = domain.latents.num_continuous
        z[0, 0], z[0, first] = math.sqrt(Z_DIM - middle**2), middle
        if float(domain.latents.factors(z)[0, first]) < intensity:
            low = middle
        else:
            high = middle
    return high
