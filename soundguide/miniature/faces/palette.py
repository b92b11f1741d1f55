"""Colours of the face world: skins, hairs, eyes, clothes and walls, each a ramp that one factor walks along."""

from __future__ import annotations

from torch import Tensor, lerp

Rgb = tuple[float, float, float]

SKIN: tuple[Rgb, ...] = (
    (0.99, 0.86, 0.77),
    (0.96, 0.77, 0.62),
    (0.85, 0.61, 0.44),
    (0.64, 0.42, 0.29),
    (0.47, 0.30, 0.21),
)
HAIR: tuple[Rgb, ...] = (
    (0.11, 0.09, 0.11),
    (0.31, 0.18, 0.11),
    (0.60, 0.27, 0.11),
    (0.80, 0.53, 0.21),
    (0.94, 0.80, 0.46),
)
EYES: tuple[Rgb, ...] = ((0.26, 0.14, 0.07), (0.52, 0.34, 0.12), (0.22, 0.50, 0.28), (0.20, 0.48, 0.80))
CLOTHES: tuple[Rgb, ...] = (
    (0.86, 0.34, 0.30),
    (0.93, 0.66, 0.24),
    (0.20, 0.56, 0.52),
    (0.24, 0.34, 0.66),
    (0.50, 0.30, 0.56),
)
WALLS: tuple[Rgb, ...] = (
    (0.98, 0.80, 0.66),
    (0.95, 0.90, 0.68),
    (0.70, 0.88, 0.78),
    (0.66, 0.84, 0.95),
    (0.80, 0.76, 0.95),
)
FRAMES: tuple[Rgb, ...] = ((0.13, 0.14, 0.22), (0.13, 0.14, 0.22), (0.55, 0.13, 0.16))
GREY: Rgb = (0.80, 0.80, 0.81)


def tone(like: Tensor, rgb: Rgb) -> Tensor:
    """Return a colour as ``[1, 3, 1, 1]`` beside the tensor ``like``."""
    return like.new_tensor(rgb)[None, :, None, None]


def ramp(value: Tensor, stops: tuple[Rgb, ...]) -> Tensor:
    """Return the colour ``[B, 3, 1, 1]`` at ``value`` ``[B, 1, 1]`` in [0, 1] along evenly spaced ``stops``."""
    place = value[:, None] * (len(stops) - 1)
    colour = tone(value, stops[0])
    for index, stop in enumerate(stops[1:]):
        colour = lerp(colour, tone(value, stop), (place - index).clamp(0, 1))
    return colour
