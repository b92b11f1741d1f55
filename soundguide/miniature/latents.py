"""From a normalised latent to the factors of a picture: continuous ones spread evenly, events mostly absent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Z_DIM = 32


@dataclass(frozen=True, slots=True)
class Latents:
    """How a world's latents ``[B, Z_DIM]`` hold its factors: first the continuous ones, then the labels' intensities.

    ``threshold``: where a label begins to show, ``span``: from there to full strength, in standard deviations.
    ``crowd``: how many labels a crowded picture shows on average.
    """

    num_continuous: int
    num_labels: int
    threshold: float
    span: float
    crowd: float

    @property
    def num_factors(self) -> int:
        """Number of all factors."""
        return self.num_continuous + self.num_labels

    def factors(self, z: Tensor) -> Tensor:
        """Return the factors ``[B, num_factors]`` in [0, 1] of ``z`` ``[B, Z_DIM]``, as functions of its direction."""
        z = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        uniform = torch.special.ndtr(z[:, : self.num_continuous])
        intensity = ((z[:, self.num_continuous : self.num_factors] - self.threshold) / self.span).clamp(0, 1)
        return torch.cat([uniform, intensity], 1)

    def sample(self, num: int, generator: torch.Generator, *, crowded: bool) -> Tensor:
        """Draw latents ``[num, Z_DIM]``; ``crowded`` pushes a label or two up, so that all are seen often."""
        z = torch.randn(num, Z_DIM, generator=generator)
        if crowded:
            chosen = torch.rand(num, self.num_labels, generator=generator) < self.crowd / self.num_labels
            strength = self.threshold + 0.06 + 0.9 * torch.rand(num, self.num_labels, generator=generator)
            events = z[:, self.num_continuous : self.num_factors]
            calm = events.clamp(max=self.threshold)
            z[:, self.num_continuous : self.num_factors] = torch.where(chosen, strength, calm)
        return z
