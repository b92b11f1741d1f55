"""Colours of the hours: the light that falls on things at night, at dusk and by day."""

from __future__ import annotations

from torch import Tensor, lerp

from soundguide.miniature.shapes import Canvas


def rgb(canvas: Canvas, red: float, green: float, blue: float) -> Tensor:
    """Return a colour as ``[1, 3, 1, 1]`` on the canvas's device."""
    return canvas.image.new_tensor((red, green, blue))[None, :, None, None]


Rgb = tuple[float, float, float]


def three_way(daylight: Tensor, night: Rgb, dusk: Rgb, day: Rgb) -> Tensor:
    """Blend three colours by ``daylight`` ``[B, 1, 1]`` to ``[B, 3, 1, 1]``: dusk at 0.45, day from 0.8 on."""
    dark, low, bright = (daylight.new_tensor(colour)[None, :, None, None] for colour in (night, dusk, day))
    d = daylight[:, None]
    return lerp(lerp(dark, low, (d / 0.45).clamp(0, 1)), bright, ((d - 0.45) / 0.35).clamp(0, 1))


def ambient(value: dict[str, Tensor]) -> Tensor:
    """Return the colour ``[B, 3, 1, 1]`` that daylight gives to things: blue nights, orange dusks, white days."""
    return three_way(value["daylight"], (0.24, 0.28, 0.48), (0.88, 0.66, 0.60), (1.0, 1.0, 0.97))
