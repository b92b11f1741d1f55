"""A film at a glance: a frame of every second in rows, over the curve of what it reacts to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from soundguide.film.reaction import Curve

Frames = NDArray[np.uint8]

_MOST = 360  # frames on a strip; a longer film shows fewer a second
_COLUMNS = 15
_SIDE = 96  # pixels, shorter side of a frame
_CURVE = 20  # pixels, height of the curve under a row
_GAP = 3
_PAPER, _INK = "#16181c", "#e0a040"


class Strip:
    """Keeps a frame of every second as they go by, and every second one of those whenever they become too many."""

    def __init__(self, fps: int) -> None:
        self._fps, self._every = fps, fps
        self._frames: list[Frames] = []

    def add(self, first: int, frames: Frames) -> None:
        """Look at frames ``[B, H, W, 3]``, the first of which is number ``first`` of the film."""
        for number, pixels in enumerate(frames, first):
            if number % self._every == 0:
                self._frames.append(pixels.copy())
            if len(self._frames) > _MOST:
                self._frames, self._every = self._frames[::2], 2 * self._every

    def page(self, drive: Curve | None) -> Frames:
        """Return the page ``[H, W, 3]``; ``drive`` ``[num_frames]``: what the film reacted to, None for nothing."""
        height, width = self._frames[0].shape[:2]
        scale = _SIDE / min(height, width)
        size = round(width * scale), round(height * scale)
        columns = min(_COLUMNS, len(self._frames))
        rows = -(-len(self._frames) // columns)
        pitch = size[1] + _GAP + (0 if drive is None else _CURVE)
        page = Image.new("RGB", (columns * (size[0] + _GAP) + _GAP, rows * pitch + _GAP), _PAPER)
        draw = ImageDraw.Draw(page)
        for index, pixels in enumerate(self._frames):
            row, column = divmod(index, columns)
            left, top = _GAP + column * (size[0] + _GAP), _GAP + row * pitch
            page.paste(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), (left, top))
            if drive is not None:
                values = drive[index * self._every : (index + 1) * self._every + 1]
                base, step = top + size[1] + _CURVE - 2, (size[0] + _GAP) / self._every
                points = [(left + step * i, base - float(v) * (_CURVE - 4)) for i, v in enumerate(values)]
                if len(points) > 1:
                    draw.line(points, fill=_INK, width=1)
        return np.asarray(page)
