"""The scene reader: a small network that reads the factors back from a picture, the independent judge of edits.

It is trained on rendered pictures alone. It never guides an edit, and it shares neither weights nor architecture with
the guiding CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.train_generator import ScenePool
from soundguide.miniature.train_image_text import spoil
from soundguide.miniature.training import Training

BATCH, POOL, REFILL, REFILL_EVERY = 128, 32_768, 1024, 32
CHANNELS = (32, 48, 72, 96)
NUM_FACTORS, NUM_LABELS = len(LANDSCAPE.continuous), len(LANDSCAPE.labels)


class SceneReader(nn.Module):
    """A convolutional network from pictures ``[B, 3, 64, 64]`` in [-1, 1] to what they show, of the landscape at first.

    ``num_factors`` continuous ones and ``num_labels`` are read. ``channels``: of each halving of the picture.
    """

    def __init__(
        self,
        channels: Sequence[int] = CHANNELS,
        *,
        num_factors: int = NUM_FACTORS,
        num_labels: int = NUM_LABELS,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for size in channels:
            layers += [nn.Conv2d(width, size, 3, padding=1), nn.GroupNorm(8, size), nn.SiLU()]
            layers += [nn.Conv2d(size, size, 3, stride=2, padding=1), nn.GroupNorm(8, size), nn.SiLU()]
            width = size
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(width * 4 * 4, 192)
        self.factors = nn.Linear(192, num_factors)
        self.events = nn.Linear(192, num_labels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the continuous factors ``[B, num_factors]``, 0..1, and the labels' logits ``[B, num_labels]``."""
        factors, events = self.logits(images)
        return torch.sigmoid(factors), events

    def logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forward` does, the continuous factors as logits too."""
        hidden = F.silu(self.hidden(self.features(images).flatten(1)))
        return self.factors(hidden), self.events(hidden)


def train_reader(
    folder: Path, *, domain: Domain = LANDSCAPE, num_steps: int = 1500, pool_size: int = POOL
) -> SceneReader:
    """Train (or go on training) the reader of a world in ``folder``; return the averaged one.

    ``pool_size``: pictures kept at hand.
    """
    num_factors = len(domain.continuous)
    model = SceneReader(num_factors=num_factors, num_labels=len(domain.labels)).to(memory_format=torch.channels_last)
    training = Training(
        model,
        folder,
        num_steps=num_steps,
        learning_rate=2e-3,
        matrices=[weight for weight in model.features.parameters() if weight.dim() == 4],
        matrix_rate=0.01,
        weight_decay=0.01,
        average_over=200,
        seed=77,
    )
    pool = ScenePool(domain, 64, pool_size, training.generator)
    pool.refill(pool_size)
    for step in training.steps():
        if (step + 1) % REFILL_EVERY == 0:
            pool.refill(REFILL)
        z, images, _ = pool.draw(BATCH)
        factors = domain.latents.factors(z)
        continuous, events = model.logits(spoil(images, training.generator))
        # no L1: a factor that is 0 in most pictures, as glasses are, would be read as 0 in all, for ever
        factor_loss = F.binary_cross_entropy_with_logits(continuous, domain.visible(factors))
        # intensities are soft labels: half there is half an event
        event_loss = F.binary_cross_entropy_with_logits(events, factors[:, num_factors:])
        training.update(5 * event_loss + factor_loss, factors=factor_loss.detach(), events=event_loss.detach())
    averaged = training.averaged
    assert isinstance(averaged, SceneReader)
    return averaged.eval().requires_grad_(False)
