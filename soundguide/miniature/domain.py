"""What a world of the miniature is to those who train its models and judge them: its pictures, its words, its clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Generator, Tensor

from soundguide.miniature.clips import Clip
from soundguide.miniature.dsp import Ranges
from soundguide.miniature.latents import Latents
from soundguide.miniature.scenes import Rendered
from soundguide.miniature.vocabulary import Vocabulary


class PictureOf(Protocol):
    """Draw the factors ``[num_factors]`` of a picture in which a label is to be heard."""

    def __call__(self, label: str, intensity: float, generator: Generator, *, bias: float = 0.0) -> Tensor:
        """Return the factors."""
        ...


class MakeClip(Protocol):
    """Make one clip of the set that a seed names."""

    def __call__(self, index: int, *, seed: int, seconds: float, bias: float = 0.0, ranges: Ranges = "train") -> Clip:
        """Return the clip."""
        ...


class Synthesise(Protocol):
    """Render the sound of a label as a mono waveform ``[T]`` at 16 kHz."""

    def __call__(
        self, label: str, *, seconds: float, intensity: float, rng: np.random.Generator, ranges: Ranges = "train"
    ) -> NDArray[np.float32]:
        """Return the waveform."""
        ...


class Surroundings(Protocol):
    """Make a sound ``[T]`` of what may be around another at 16 kHz."""

    def __call__(
        self, *, seconds: float, intensity: float, rng: np.random.Generator, ranges: Ranges = "train"
    ) -> NDArray[np.float32]:
        """Return the waveform."""
        ...


@dataclass(frozen=True, slots=True, eq=False)  # a world is itself alone, and so can be a key
class Domain:
    """One world of the miniature.

    ``name``: under which its packaged models are found. ``visible``: from factors ``[B, num_factors]`` to the
    continuous ones as a picture shows them; ``truth``: to the facts that hold, see `Vocabulary.truth`. ``spoken_of``:
    the continuous factors that a label's sound speaks of, so that an edit by it may change them. ``around``: what
    sounds beside a label in its clips; None for another label.
    """

    name: str
    continuous: tuple[str, ...]
    latents: Latents
    vocabulary: Vocabulary
    render: Callable[[Tensor, int], Rendered]
    visible: Callable[[Tensor], Tensor]
    truth: Callable[[Tensor], Tensor]
    picture_of: PictureOf
    make_clip: MakeClip
    synthesise: Synthesise
    spoken_of: Callable[[str], frozenset[str]]
    around: Surroundings | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What can be heard and seen in this world."""
        return self.vocabulary.labels
