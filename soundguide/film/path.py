"""The smooth path of a film through its key codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Codes = NDArray[np.float32]

LEAD_SECONDS = 2.0  # in which the first key code grows out of the source


class CodePath:
    """A path in W+ with a continuous velocity that passes through knots and stays between neighbouring ones.

    Piecewise monotone cubics in every coordinate (Fritsch & Carlson 1980, as SciPy has them): no coordinate overshoots,
    so that no frame shows more of anything than the key codes around it. ``times`` ``[N]``: seconds, rising, two at
    least; ``codes`` ``[N, L, D]``.
    """

    def __init__(self, times: Sequence[float], codes: Sequence[Codes]) -> None:
        self.times = np.asarray(times, np.float64)
        self.codes = codes
        assert len(times) == len(codes) >= 2 and (np.diff(self.times) > 0).all(), times

    def at(self, times: NDArray[np.float64]) -> Codes:
        """Return the codes ``[B, L, D]`` at rising ``times`` ``[B]`` within the knots'."""
        # the slope at a knot depends on its two neighbours alone: few knots give the same as all of them
        first = max(0, int(np.searchsorted(self.times, times[0], side="right")) - 2)
        last = min(len(self.times), int(np.searchsorted(self.times, times[-1], side="left")) + 2)
        knots = np.stack([np.asarray(code, np.float64) for code in self.codes[first:last]])
        found: Codes = PchipInterpolator(self.times[first:last], knots)(times).astype(np.float32)
        return found


def path_through(source: Codes, keys: Sequence[Codes], middles: Sequence[float], *, seconds: float) -> CodePath:
    """Return the path of a film of ``seconds`` from its source ``[L, D]`` through key codes at their times.

    The first frame is the source itself. The first key code is there after `LEAD_SECONDS`, or on half the way to its
    time in a short film, and the last one stays to the end.
    """
    lead = min(LEAD_SECONDS, middles[0] / 2)
    # two equal knots: the path sets out and arrives without a jerk
    times = [-lead, 0.0, lead, *middles, max(seconds, middles[-1] + 1e-3)]
    return CodePath(times, [source, source, keys[0], *keys, keys[-1]])
