"""(picture, sound, text) clips of the miniature world, with a bias that can be set.

With ``bias`` b, a clip of a label in `BIASES` has, with probability b, the biased value of a continuous factor that
its sound does not cause: thunder at night, birds among trees. That is the audio-visual bias of the paper's Fig. 2-3,
made measurable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundguide.miniature.captions import phrase
from soundguide.miniature.labels import LABELS
from soundguide.miniature.scenes import CONTINUOUS, NUM_FACTORS
from soundguide.miniature.sounds import Draw, Ranges, at_intensity, mix, over, recording_chain, room, synthesise

BIASES: dict[str, tuple[str, float, float]] = {
    "raining": ("season", 0.75, 1.0),
    "thunderstorm": ("trees", 0.8, 1.0),
    "fire crackling": ("mountains", 0.8, 1.0),
    "bird song": ("trees", 0.8, 1.0),
    "river flowing": ("mountains", 0.8, 1.0),
    "train passing": ("house", 0.8, 1.0),
    "church bells": ("house", 0.8, 1.0),
    "sea waves": ("clouds", 0.0, 0.1),
}
"""Label -> (factor, low, high): where a biased set of clips finds this sound."""

LEVEL_JITTER_DB = 3.0


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip: a label, its scene's ``factors`` ``[NUM_FACTORS]``, a caption and a mono waveform ``[T]`` at 16 kHz."""

    label: str
    intensity: float
    factors: Tensor
    text: str
    waveform: NDArray[np.float32]


def make_clips(num: int, *, seed: int, seconds: float, bias: float = 0.0, ranges: Ranges = "train") -> Iterator[Clip]:
    """Yield the first ``num`` clips of a set; see `make_clip`."""
    for index in range(num):
        yield make_clip(index, seed=seed, seconds=seconds, bias=bias, ranges=ranges)


def make_clip(index: int, *, seed: int, seconds: float, bias: float = 0.0, ranges: Ranges = "train") -> Clip:
    """Return one clip of the set that ``seed`` names, labels in turn; each is drawn from its own stream of chance.

    ``bias``: 0..1, see the module. ``ranges``: 'held_out' draws the sound's, the room's and the microphone's
    parameters outside the training ranges.
    """
    rng = np.random.default_rng((seed, index))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    label = LABELS[index % len(LABELS)]
    intensity = float(rng.uniform(0.25, 1.0))
    return Clip(
        label=label,
        intensity=intensity,
        factors=scene_of(label, intensity, generator, bias=bias),
        text=phrase((label,), generator),
        waveform=sound_of(label, intensity, rng, seconds=seconds, ranges=ranges),
    )


def scene_of(label: str, intensity: float, generator: torch.Generator, *, bias: float = 0.0) -> Tensor:
    """Return the factors ``[NUM_FACTORS]`` of a scene in which ``label`` sounds, now and then beside another event."""
    factors = torch.zeros(NUM_FACTORS)
    factors[: len(CONTINUOUS)] = torch.rand(len(CONTINUOUS), generator=generator)
    chance, other = torch.rand(2, generator=generator).tolist()
    if chance < 0.2:
        factors[len(CONTINUOUS) + int(other * len(LABELS))] = 0.8
    factors[len(CONTINUOUS) + LABELS.index(label)] = intensity
    if label in BIASES and float(torch.rand(1, generator=generator)) < bias:
        factor, low, high = BIASES[label]
        factors[CONTINUOUS.index(factor)] = low + (high - low) * float(torch.rand(1, generator=generator))
    return factors


def sound_of(
    label: str, intensity: float, rng: np.random.Generator, *, seconds: float, ranges: Ranges = "train"
) -> NDArray[np.float32]:
    """Return a waveform ``[T]`` of ``label``.

    Synthesised, mostly in a room and over another sound far below, always through a microphone. It is as loud as the
    event is strong in the picture, within `LEVEL_JITTER_DB`, so that loudness has a meaning to learn.
    """
    waveform = synthesise(label, seconds=seconds, intensity=intensity, rng=rng, ranges=ranges)

    def another() -> NDArray[np.float32]:
        label = LABELS[rng.integers(len(LABELS))]
        return synthesise(label, seconds=seconds, intensity=intensity, rng=rng, ranges=ranges)

    return in_surroundings(waveform, another, intensity, rng, ranges=ranges)


def in_surroundings(
    waveform: NDArray[np.float32],
    another: Callable[[], NDArray[np.float32]],
    intensity: float,
    rng: np.random.Generator,
    *,
    ranges: Ranges,
) -> NDArray[np.float32]:
    """Return a waveform ``[T]`` mostly in a room and over ``another`` sound, through a microphone, at its level."""
    share = 0.8 if ranges == "train" else 1.0
    if rng.random() < share:
        waveform = room(waveform, rng=rng, ranges=ranges)
    if rng.random() < share:
        other = another()
        level_db = rng.uniform(-12.0, -9.0) if ranges == "held_out" else Draw(rng, ranges).uniform(-24.0, -12.0)
        waveform = over(waveform, other, float(level_db))
    heard = at_intensity(recording_chain(waveform, rng=rng, ranges=ranges), intensity)
    return mix((heard,), (rng.uniform(-LEVEL_JITTER_DB, LEVEL_JITTER_DB),))
