"""The code of every frame: the path of the key codes, its strength moved by the reaction; or the reaction alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from soundguide.film.path import CodePath, Codes
from soundguide.film.reaction import Curve, largest_step
from soundguide.film.settings import FilmSettings

WEAKER, STRONGER = 0.35, 0.45  # how far the reaction takes the strength of the change below and above 1
WALK = 2.0  # length of the random walk, in standard deviations of the generator's codes: of 1, little is seen


class Motion:
    """Where each frame of a film is in W+.

    ``source`` ``[L, D]``; ``path``: of the key codes, None with ``settings.semantic`` 0; ``drive`` ``[num_frames]``,
    None with ``settings.react`` 0; ``walk``: moves away from the source, as long as the film, None unless
    ``settings.semantic`` is below 1.
    """

    def __init__(
        self, source: Codes, path: CodePath | None, drive: Curve | None, walk: CodePath | None, settings: FilmSettings
    ) -> None:
        self.source, self.path, self.drive, self.walk, self.settings = source, path, drive, walk, settings

    def codes(self, first: int, last: int) -> Codes:
        """Return the codes ``[last - first, L, D]`` of frames ``first`` to ``last`` (excluded)."""
        settings, times = self.settings, np.arange(first, last) / self.settings.fps
        codes = np.broadcast_to(self.source, (last - first, *self.source.shape)).astype(np.float32)
        drive = None if self.drive is None else self.drive[first:last]
        if self.path is not None:
            strength = settings.semantic * gain_of(drive, settings.react)
            codes += strength.astype(np.float32)[:, None, None] * (self.path.at(times) - self.source)
        if self.walk is not None and drive is not None:
            amplitude = (1 - settings.semantic) * settings.react * drive
            codes += amplitude.astype(np.float32)[:, None, None] * self.walk.at(times)
        return codes


def gain_of(drive: Curve | None, react: float) -> Curve:
    """Return the strength of the change: from 1 - ``react`` * `WEAKER` to 1 + ``react`` * `STRONGER`, never below 0."""
    if drive is None:
        return np.ones(1)
    gain: Curve = np.maximum(0, 1 + react * ((WEAKER + STRONGER) * drive - WEAKER))
    return gain


def largest_jump(settings: FilmSettings) -> float:
    """Return the most by which the strength of the change moves from one frame to the next."""
    return settings.react * (WEAKER + STRONGER) * largest_step(settings.fps)


def random_walk(
    step_scale: NDArray[np.float32], *, num_ws: int, seconds: float, pace: float, seed: int, length: float = WALK
) -> CodePath:
    """Return a walk of random moves, a new one every ``pace`` seconds, the same in all layers.

    Directions are normal in units of each code's standard deviation ``step_scale`` ``[D]``, so that they stay among
    pictures; every knot lies ``length`` of them away from the source. The seed alone decides.
    """
    chance = torch.Generator().manual_seed(seed)
    knots = math.ceil(seconds / pace) + 2
    moves = torch.randn(knots, len(step_scale), generator=chance).numpy()
    moves *= math.sqrt(len(step_scale)) / np.linalg.norm(moves, axis=1, keepdims=True)
    walk = np.repeat(length * (moves * step_scale)[:, None], num_ws, 1).astype(np.float32)
    return CodePath([pace * knot for knot in range(knots)], list(walk))
