"""(picture, sound, text) clips of the face world, with a bias that can be set.

With ``bias`` b, a clip of giggling shows, with probability b, glasses or a bald head, which its sound does not cause:
the bias that the paper's Fig. 2 finds in real videos of laughter. All other clips show people as they come.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundguide.miniature import labels as landscape
from soundguide.miniature import sounds
from soundguide.miniature.clips import Clip, in_surroundings
from soundguide.miniature.dsp import Ranges
from soundguide.miniature.faces.captions import VOCABULARY
from soundguide.miniature.faces.faces import CONTINUOUS, NUM_FACTORS
from soundguide.miniature.faces.labels import LABELS
from soundguide.miniature.faces.voices import synthesise

BIASES: dict[str, tuple[tuple[str, float, float], ...]] = {"giggling": (("glasses", 0.8, 1.0), ("baldness", 0.92, 1.0))}
"""Label -> (factor, low, high), of which a biased clip has one."""


def make_clip(index: int, *, seed: int, seconds: float, bias: float = 0.0, ranges: Ranges = "train") -> Clip:
    """Return one clip of the set that ``seed`` names, expressions in turn; each from its own stream of chance.

    ``bias``: 0..1, see the module. ``ranges``: 'held_out' draws the parameters of voice, room and microphone outside
    the training ranges.
    """
    rng = np.random.default_rng((seed, index))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    label = LABELS[index % len(LABELS)]
    intensity = float(rng.uniform(0.25, 1.0))
    return Clip(
        label=label,
        intensity=intensity,
        factors=face_of(label, intensity, generator, bias=bias),
        text=VOCABULARY.phrase((label,), generator),
        waveform=voice_of(label, intensity, rng, seconds=seconds, ranges=ranges),
    )


def face_of(label: str, intensity: float, generator: torch.Generator, *, bias: float = 0.0) -> Tensor:
    """Return the factors ``[NUM_FACTORS]`` of somebody with one expression."""
    factors = torch.zeros(NUM_FACTORS)
    factors[: len(CONTINUOUS)] = torch.rand(len(CONTINUOUS), generator=generator)
    factors[len(CONTINUOUS) + LABELS.index(label)] = intensity
    chance, which, how = torch.rand(3, generator=generator).tolist()
    if label in BIASES and chance < bias:
        factor, low, high = BIASES[label][int(which * len(BIASES[label]))]
        factors[CONTINUOUS.index(factor)] = low + (high - low) * how
    return factors


def voice_of(
    label: str, intensity: float, rng: np.random.Generator, *, seconds: float, ranges: Ranges = "train"
) -> NDArray[np.float32]:
    """Return a waveform ``[T]`` of somebody, mostly in a room and over a landscape's sound, through a microphone.

    It is as loud as the expression is strong, within `soundguide.miniature.clips.LEVEL_JITTER_DB`.
    """
    waveform = synthesise(label, seconds=seconds, intensity=intensity, rng=rng, ranges=ranges)
    other = partial(around, seconds=seconds, intensity=intensity, rng=rng, ranges=ranges)
    return in_surroundings(waveform, other, intensity, rng, ranges=ranges)


def around(
    *, seconds: float, intensity: float, rng: np.random.Generator, ranges: Ranges = "train"
) -> NDArray[np.float32]:
    """Return a waveform ``[T]`` of what is around a voice: the sound of any of a landscape's events."""
    event = landscape.EVENTS[rng.integers(len(landscape.EVENTS))]
    return sounds.synthesise(event, seconds=seconds, intensity=intensity, rng=rng, ranges=ranges)
