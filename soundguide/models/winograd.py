"""The 3x3 convolution of a frozen weight on a CPU: fewer products, and all passes over the pixels in the cache.

Winograd's minimal filtering F(4x4, 3x3) makes 16 pixels from 36 products where the plain convolution takes 144 (Lavin
and Gray 2016, "Fast algorithms for convolutional neural networks", section 4.3). A picture is computed in strips of
rows: whatever belongs to one is a few megabytes, and stays in the cache between scaling, transforms, products and
activation. Rounding differs from the plain convolution's by a few units of float32's last digit.

Pictures here are ``[B, H, W, C]``, contiguous, which is what channels_last tensors are underneath.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TILE, WINDOW = 4, 6  # sides of what one tile gives, and of what it reads
TILES_PER_STRIP = 128  # more do not fit the cache, fewer read the transformed weight too often

# Lavin and Gray 2016, section 4.3: points 0, 1, -1, 2, -2 and infinity
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_WEIGHT = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def _both_ways(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    """Return the transform of a flattened tile, from that of its rows and of its columns."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix).float()


@dataclass(frozen=True, slots=True)
class WinogradWeight:
    """A frozen weight, transformed: ``forwards`` ``[36, in, out]``; ``backwards`` ``[36, out, in]``, for gradients."""

    forwards: Tensor
    backwards: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> WinogradWeight:
        """Transform a weight ``[out, in, 3, 3]``; takes eight times its memory."""
        return cls(_transformed(weight), _transformed(weight.flip(2, 3).transpose(0, 1)))


def _transformed(weight: Tensor) -> Tensor:
    matrix = torch.tensor(_WEIGHT, dtype=torch.float64)
    tiles = torch.einsum("ai,ocij,bj->abco", matrix, weight.detach().double(), matrix)
    return tiles.flatten(0, 1).float().contiguous()


def convolve_strips(
    pixels: Tensor,
    weight: Tensor,
    fill: Callable[[int, slice, Tensor], None],
    finish: Callable[[int, slice, Tensor], None],
) -> None:
    """Convolve as many pictures as ``pixels`` ``[B, H, W, in]``, zeros outside, with ``[36, in, out]``; 4 divides H, W.

    ``fill(row of the batch, rows, into)`` writes some rows of a picture to ``[rows, W, in]``; ``finish(row of the
    batch, rows, tiles)`` gets what comes out of them but the outermost two, as ``[rows / 4, 4, W / 4, 4, out]``.
    """
    batch, height, width, inputs = pixels.shape
    outputs = weight.shape[2]
    down, across = height // TILE, width // TILE
    num = max(
        rows for rows in range(1, down + 1) if down % rows == 0 and (rows == 1 or rows * across <= TILES_PER_STRIP)
    )
    to_tiles, from_tiles = _both_ways(_INPUT), _both_ways(_OUTPUT)
    padded = weight.new_zeros(TILE * num + 2, width + 2, inputs)
    step, column, _ = padded.stride()
    windows = padded.as_strided((WINDOW, WINDOW, num, across, inputs), (step, column, TILE * step, TILE * column, 1))
    gathered = weight.new_empty(WINDOW, WINDOW, num, across, inputs)
    tiles = weight.new_empty(WINDOW**2, num * across, inputs)
    products = weight.new_empty(WINDOW**2, num * across, outputs)
    results = weight.new_empty(TILE, TILE, num, across, outputs)
    for row in range(batch):
        for first in range(0, height, TILE * num):
            above, below = first - 1, first + TILE * num + 1
            rows = slice(max(above, 0), min(below, height))
            padded[0].zero_()  # what lies outside of the picture; `fill` overwrites what does not
            padded[-1].zero_()
            fill(row, rows, padded[rows.start - above : rows.stop - above, 1:-1])
            gathered.copy_(windows)
            torch.mm(to_tiles, gathered.flatten(0, 1).flatten(1), out=tiles.flatten(1))
            torch.bmm(tiles, weight, out=products)
            torch.mm(from_tiles, products.flatten(1), out=results.flatten(0, 1).flatten(1))
            finish(row, slice(first, first + TILE * num), results.permute(2, 0, 3, 1, 4))


def fits(height: int, width: int, inputs: int, outputs: int) -> bool:
    """Return whether Winograd's way is the faster one: many channels, and pixels enough to read its weight for."""
    return min(inputs, outputs) >= 64 and height % TILE == 0 and width % TILE == 0 and height * width >= 32**2
