"""Anti-aliased analytic shapes on a pixel grid, the brushes of the miniature's renderer.

Coordinates run from 0 to 1, ``x`` to the right and ``y`` downwards, whatever the resolution. Shapes are coverages
``[B, H, W]`` in [0, 1], made from signed distances (negative inside) with a soft edge of a pixel and a half. Per-scene
numbers are ``[B, 1, 1]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Number = float | Tensor
Colour = Sequence[float] | Tensor


@dataclass(slots=True)
class Canvas:
    """A batch of pictures being painted.

    ``image``: ``[B, 3, H, W]`` in [0, 1]; ``mask``: ``[B, H, W]`` in [0, 1], where something that an event brought is
    visible; ``x``, ``y``: ``[1, H, W]`` pixel centres; ``pixel``: width of a pixel.
    """

    image: Tensor
    mask: Tensor
    x: Tensor
    y: Tensor
    pixel: float

    @classmethod
    def blank(cls, num: int, resolution: int, device: torch.device) -> Canvas:
        """Return ``num`` black pictures of ``resolution`` x ``resolution``."""
        centres = (torch.arange(resolution, device=device, dtype=torch.float32) + 0.5) / resolution
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        image = torch.zeros(num, 3, resolution, resolution, device=device)
        return cls(image, torch.zeros(num, resolution, resolution, device=device), x[None], y[None], 1.0 / resolution)

    def rows(self, rows: Tensor) -> Canvas:
        """Return a canvas of some of the pictures, copied."""
        return Canvas(self.image[rows], self.mask[rows], self.x, self.y, self.pixel)

    def paint(self, colour: Colour, alpha: Tensor) -> None:
        """Lay ``colour`` (three numbers, ``[B, 3]`` or ``[B, 3, H, W]``) over the picture with opacity ``alpha``."""
        self.image = torch.lerp(self.image, as_colour(colour, self.image), alpha[:, None].clamp(0, 1))

    def paint_event(self, colour: Colour, alpha: Tensor) -> None:
        """As ``paint``, and remember where: what an event brings counts in the event mask."""
        self.paint(colour, alpha)
        self.mask = torch.maximum(self.mask, alpha.clamp(0, 1).expand_as(self.mask))

    def glow(self, colour: Colour, amount: Tensor) -> None:
        """Add light: ``screen`` blending, so that nothing leaves [0, 1]."""
        light = as_colour(colour, self.image) * amount[:, None].clamp(0, 1)
        self.image = 1 - (1 - self.image) * (1 - light)

    def glow_event(self, colour: Colour, amount: Tensor) -> None:
        """As ``glow``, and remember where."""
        self.glow(colour, amount)
        self.mask = torch.maximum(self.mask, amount.clamp(0, 1).expand_as(self.mask))

    def cover(self, distance: Tensor, softness: float = 1.5) -> Tensor:
        """Return the coverage of a signed distance, with an edge ``softness`` pixels wide."""
        return (0.5 - distance / (self.pixel * softness)).clamp(0, 1)

    def disc(self, cx: Number, cy: Number, radius: Number, *, softness: float = 1.5) -> Tensor:
        """Return a filled circle."""
        return self.cover(torch.hypot(self.x - cx, self.y - cy) - radius, softness)

    def ellipse(self, cx: Number, cy: Number, rx: Number, ry: Number, *, softness: float = 1.5) -> Tensor:
        """Return a filled ellipse (distance to first order)."""
        scaled = torch.hypot((self.x - cx) / rx, (self.y - cy) / ry)
        return self.cover((scaled - 1) * (rx if isinstance(rx, float) else rx.clamp_min(1e-3)), softness)

    def box(self, left: Number, right: Number, top: Number, bottom: Number) -> Tensor:
        """Return a filled axis-aligned rectangle."""
        across = torch.maximum(left - self.x, self.x - right)
        down = torch.maximum(top - self.y, self.y - bottom)
        return self.cover(torch.maximum(across + 0 * self.y, down + 0 * self.x))

    def segment(self, start: tuple[Number, Number], end: tuple[Number, Number], width: Number) -> Tensor:
        """Return a stroke with round ends; ``width`` is the full width."""
        (ax, ay), (bx, by) = start, end
        dx, dy = bx - ax, by - ay
        along = (((self.x - ax) * dx + (self.y - ay) * dy) / (dx * dx + dy * dy + 1e-9)).clamp(0, 1)
        return self.cover(torch.hypot(self.x - ax - along * dx, self.y - ay - along * dy) - width / 2)

    def triangle(self, cx: Number, top: Number, bottom: Number, half_width: Number) -> Tensor:
        """Return an upright isosceles triangle."""
        height = (bottom - top) + 1e-6
        edge = torch.abs(self.x - cx) - half_width * (self.y - top) / height
        return self.cover(torch.maximum(edge, self.y - bottom))

    def below(self, line: Tensor) -> Tensor:
        """Return everything under the curve ``line`` ``[B, 1 or H, W]``."""
        return self.cover(line - self.y)


def as_colour(colour: Colour, like: Tensor) -> Tensor:
    """Return a colour as ``[1 or B, 3, 1 or H, 1 or W]`` beside the image ``like``."""
    tensor = colour if isinstance(colour, Tensor) else like.new_tensor(list(colour))[None]
    return tensor if tensor.dim() == 4 else tensor[:, :, None, None]


TILES = 4
"""Tiles along each side of a repeated pattern, as many as a synthesis network's first, constant picture has pixels."""


def tile(canvas: Canvas, cx: float, cy: float) -> tuple[Tensor, Tensor]:
    """Return each pixel's way ``(dx, dy)``, picture widths, to the nearest copy of a grain at (``cx``, ``cy``).

    Drops, flakes, stars and bubbles stand in a tile that repeats `TILES` times along each side; ``cx`` and ``cy`` are
    places in it, 0..1. A repeated pattern is one that a convolutional generator can learn once for all places.
    """
    dx, dy = canvas.x * TILES - cx, canvas.y * TILES - cy
    return (dx - dx.round()) / TILES, (dy - dy.round()) / TILES


def smoothstep(value: Tensor, low: float, high: float) -> Tensor:
    """Return 0 below ``low``, 1 above ``high`` and a cubic ease between them."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
