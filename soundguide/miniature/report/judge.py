"""The independent judge: the scene reader, and for each label the score from which it counts as seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.miniature.domain import Domain
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.models import SceneReaderConfig
from soundguide.miniature.reader import SceneReader
from soundguide.miniature.report.held_out import BATCH, Scenes, as_floats
from soundguide.miniature.report.measures import threshold_at
from soundguide.miniature.scenes import CONTINUOUS, LAYOUT
from soundguide.models.checkpoint import load_weights
from soundguide.models.manifest import CONFIG_FILE, config_fields, read_config
from soundguide.validation import describe
from soundguide.views import area_resize

READER_SIDE = 64  # pixels at which the reader looks
FALSE_POSITIVES = 0.05


def load_reader(folder: Path) -> SceneReader:
    """Return the reader saved in ``folder``, frozen, on the CPU. Raises `InvalidCheckpoint`."""
    try:
        config = SceneReaderConfig.model_validate(config_fields(read_config(folder)))
    except ValidationError as error:
        raise InvalidCheckpoint(describe(error, str(folder / CONFIG_FILE))) from error
    reader = SceneReader(num_factors=config.num_factors, num_labels=config.num_labels)
    load_weights(reader, folder)
    return reader.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the reader says of pictures: ``factors`` ``[S, num_continuous]``, 0..1, ``logits`` ``[S, num_labels]``."""

    factors: Tensor
    logits: Tensor


def layout_drift(before: Reading, after: Reading) -> Tensor:
    """Return how far the layout of scenes moved, ``[S]``, 0..1: the mean over its factors."""
    layout = [CONTINUOUS.index(name) for name in LAYOUT]
    return (after.factors - before.factors).abs()[:, layout].mean(1)


@torch.no_grad()
def read(reader: SceneReader, images: Tensor) -> Reading:
    """Read pictures ``[S, 3, R, R]``, uint8, of any resolution."""
    device = reader.hidden.weight.device
    looks = [reader(area_resize(as_floats(part.to(device)), READER_SIDE)) for part in torch.split(images, BATCH)]
    return Reading(torch.cat([look[0].cpu() for look in looks]), torch.cat([look[1].cpu() for look in looks]))


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides what a picture of a ``domain`` shows.

    ``thresholds`` ``[num_labels]``: logits that 5 % of the held-out generated scenes without the label exceed.
    ``spreads`` ``[num_labels]``: standard deviation of the logit over those scenes, the unit in which rises compare.
    """

    reader: SceneReader
    thresholds: Tensor
    spreads: Tensor
    domain: Domain = LANDSCAPE

    @classmethod
    def calibrated(cls, reader: SceneReader, scenes: Scenes) -> Judge:
        """Return the judge whose thresholds fit generated scenes of known factors."""
        logits = read(reader, scenes.generated).logits
        thresholds, spreads = [], []
        for index in range(len(scenes.domain.labels)):
            negatives = logits[scenes.factors[:, len(scenes.domain.continuous) + index] <= 0, index]
            thresholds.append(threshold_at(negatives, FALSE_POSITIVES))
            spreads.append(float(negatives.std()))
        return cls(reader, torch.tensor(thresholds), torch.tensor(spreads).clamp_min(1e-6), scenes.domain)

    def read(self, images: Tensor) -> Reading:
        """Read pictures ``[S, 3, R, R]``, uint8."""
        return read(self.reader, images)

    def present(self, logits: Tensor) -> Tensor:
        """Return which labels are seen, ``[S, num_labels]`` bool, of logits ``[S, num_labels]``."""
        return logits > self.thresholds

    def rises(self, before: Tensor, after: Tensor) -> Tensor:
        """Return how far each label's logit rose, ``[S, num_labels]``, in its own spread over scenes without it."""
        return (after - before) / self.spreads
