"""The scene reader: a small network that reads the factors back from a picture, the independent judge of edits.

It is trained on rendered scenes alone. It never guides an edit, and it shares neither weights nor architecture with
the guiding CLIP.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundguide.miniature.labels import LABELS
from soundguide.miniature.scene_events import daylight_after_events
from soundguide.miniature.scenes import CONTINUOUS, factors_from_z
from soundguide.miniature.train_generator import ScenePool
from soundguide.miniature.train_image_text import spoil
from soundguide.miniature.training import Training

BATCH, POOL, REFILL, REFILL_EVERY = 128, 32_768, 1024, 32


class SceneReader(nn.Module):
    """A convolutional network from pictures ``[B, 3, 64, 64]`` in [-1, 1] to what they show."""

    def __init__(self, channels: tuple[int, ...] = (32, 48, 72, 96)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for size in channels:
            layers += [nn.Conv2d(width, size, 3, padding=1), nn.GroupNorm(8, size), nn.SiLU()]
            layers += [nn.Conv2d(size, size, 3, stride=2, padding=1), nn.GroupNorm(8, size), nn.SiLU()]
            width = size
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(width * 4 * 4, 192)
        self.factors = nn.Linear(192, len(CONTINUOUS))
        self.events = nn.Linear(192, len(LABELS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the continuous factors ``[B, 9]`` in [0, 1] and the logits of all labels ``[B, 19]``."""
        hidden = F.silu(self.hidden(self.features(images).flatten(1)))
        return torch.sigmoid(self.factors(hidden)), self.events(hidden)


def visible_factors(factors: Tensor) -> Tensor:
    """Return the continuous factors as a picture shows them ``[B, 9]``: daylight is what events have left of it."""
    value = {name: factors[:, i] for i, name in enumerate((*CONTINUOUS, *LABELS))}
    return torch.cat([daylight_after_events(value)[:, None], factors[:, 1 : len(CONTINUOUS)]], 1)


def train_reader(folder: Path, *, num_steps: int = 1500, pool_size: int = POOL) -> SceneReader:
    """Train (or go on training) the reader in ``folder``; return the averaged one.

    ``pool_size``: pictures kept at hand.
    """
    model = SceneReader().to(memory_format=torch.channels_last)
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
    pool = ScenePool(64, pool_size, training.generator)
    pool.refill(pool_size)
    for step in training.steps():
        if (step + 1) % REFILL_EVERY == 0:
            pool.refill(REFILL)
        z, images, _ = pool.draw(BATCH)
        factors = factors_from_z(z)
        continuous, events = model(spoil(images, training.generator))
        factor_loss = F.l1_loss(continuous, visible_factors(factors))
        # intensities are soft labels: half there is half an event
        event_loss = F.binary_cross_entropy_with_logits(events, factors[:, len(CONTINUOUS) :])
        training.update(5 * event_loss + factor_loss, factors=factor_loss.detach(), events=event_loss.detach())
    averaged = training.averaged
    assert isinstance(averaged, SceneReader)
    return averaged.eval().requires_grad_(False)
