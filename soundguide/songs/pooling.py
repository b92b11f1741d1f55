"""Poolings: from the segments of a song to the one direction that a still of the whole song is guided by.

A song has intros, pauses, applause and parts that are like nothing else in it; a pooling says how much they count. All
weigh segments by their loudness, so that pauses count for nothing. Which one finds the song's style most often is
measured by ``benchmarks/music_pooling.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from soundguide.errors import InvalidAudio
from soundguide.songs.heard import Segments

Pooling = Literal["mean", "trimmed", "median", "medoid"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

TRIMMED = 0.25  # share of the segments that a trimmed mean leaves out
_ITERATIONS, _TOLERANCE, _NEAREST = 200, 1e-9, 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pooled:
    """What guides a still: ``embedding`` ``[E]`` of unit norm, ``level_db``, and the segment that is ``nearest``."""

    embedding: NDArray[np.float32]
    level_db: float
    nearest: int


def pool_segments(segments: Segments, pooling: Pooling) -> Pooled:
    """Pool the audible segments of a song.

    ``mean``: weighted by loudness. ``trimmed``: the same without the quarter that lies farthest from it. ``median``:
    the weighted geometric median, brought back to unit norm. ``medoid``: the segment nearest to all others. The
    level is that of the segments that count, under the same weights.

    Raises `InvalidAudio` where no segment is audible, or they cancel each other.
    """
    audible = np.flatnonzero(segments.audible)
    if not len(audible):
        raise InvalidAudio("every segment of the song is silent; give a song with clear content")
    points = segments.embeddings[audible].astype(np.float64)
    weights = segments.rms[audible].astype(np.float64)
    kept = np.arange(len(audible))
    match pooling:
        case "mean":
            centre = _mean(points, weights)
        case "trimmed":
            kept = _without_farthest(points, _unit(_mean(points, weights)))
            centre = _mean(points[kept], weights[kept])
        case "median":
            centre = geometric_median(points, weights)
        case "medoid":
            kept = np.array([_medoid(points, weights)])
            centre = points[kept[0]]
    direction = _unit(centre)
    amplitude = np.average(segments.level[audible[kept]].astype(np.float64), weights=weights[kept])
    nearest = int(audible[int(np.argmax(points @ direction))])
    return Pooled(direction.astype(np.float32), 20 * math.log10(float(amplitude)), nearest)


def geometric_median(points: Floats, weights: Floats) -> Floats:
    """Return the point ``[E]`` whose weighted sum of distances to ``points`` ``[N, E]`` is least.

    Weiszfeld's iteration with the step of Vardi & Zhang (2000) where it meets one of the points.
    """
    centre = _mean(points, weights)
    for _ in range(_ITERATIONS):
        distances = np.linalg.norm(points - centre, axis=1)
        away = distances > _NEAREST
        if not away.any():
            return centre
        pulls = weights[away] / distances[away]
        target: Floats = pulls @ points[away] / pulls.sum()
        force = float(np.linalg.norm(pulls @ (points[away] - centre)))
        held = float(weights[~away].sum())  # of the points that it lies on
        if held and held >= force:
            return centre
        step = 1.0 - held / force if held else 1.0
        moved = centre + step * (target - centre)
        if np.linalg.norm(moved - centre) < _TOLERANCE:
            return moved
        centre = moved
    return centre


def _mean(points: Floats, weights: Floats) -> Floats:
    mean: Floats = weights @ points / weights.sum()
    return mean


def _without_farthest(points: Floats, direction: Floats) -> NDArray[np.intp]:
    """Return the indices of the points but for the `TRIMMED` share farthest from ``direction``, in order."""
    num_dropped = math.floor(TRIMMED * len(points))
    nearest_first = np.argsort(-(points @ direction), kind="stable")
    return np.sort(nearest_first[: len(points) - num_dropped])


def _medoid(points: Floats, weights: Floats) -> int:
    """Return the index of the point with the least weighted sum of distances to all, the first of equals."""
    # row by row: a day of music has 8,640 segments, and their distances would fill half a gigabyte
    sums = [float(weights @ np.linalg.norm(points - point, axis=1)) for point in points]
    return int(np.argmin(sums))


def _unit(vector: Floats) -> Floats:
    norm = float(np.linalg.norm(vector))
    if not norm > 1e-6:
        raise InvalidAudio(
            f"the segments of the song have no direction in common: their centre has length {norm:.1e}. Give a song "
            "with clear content"
        )
    return vector / norm
