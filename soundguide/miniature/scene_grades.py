"""Music styles as grades of the whole picture (Sec. 5.3): pastels, reds, neon, near monochrome, golden light."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from soundguide.miniature.scene_light import rgb
from soundguide.miniature.shapes import Canvas, smoothstep, tile


def _luma(canvas: Canvas) -> Tensor:
    return (canvas.image * rgb(canvas, 0.30, 0.59, 0.11)).sum(1, keepdim=True)  # [B, 1, H, W]


def _gradient(canvas: Canvas, stops: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Map lightness to a ramp of colours."""
    position = _luma(canvas).clamp(0, 1) * (len(stops) - 1)
    out = rgb(canvas, *stops[0]).expand_as(canvas.image)
    for k in range(1, len(stops)):
        out = torch.lerp(out, rgb(canvas, *stops[k]).expand_as(out), (position - k + 1).clamp(0, 1))
    return out


def _funny(canvas: Canvas) -> Tensor:
    pastel = 0.52 + 0.48 * torch.lerp(_luma(canvas), canvas.image, 0.8)
    sweep = torch.lerp(
        rgb(canvas, 1.0, 0.78, 0.92), rgb(canvas, 0.78, 0.98, 0.90), canvas.y[:, None].expand_as(pastel[:, :1])
    )
    pastel = pastel * (0.35 + 0.65 * sweep) * 1.06
    confetti = (
        (0.20, 0.20, (1.0, 0.45, 0.60)),
        (0.70, 0.35, (0.40, 0.75, 1.0)),
        (0.40, 0.70, (1.0, 0.80, 0.30)),
        (0.90, 0.85, (0.55, 0.85, 0.45)),
    )
    for cx, cy, colour in confetti:
        dot = canvas.cover(torch.hypot(*tile(canvas, cx, cy)) - 0.024)
        pastel = torch.lerp(pastel, rgb(canvas, *colour).expand_as(pastel), 0.85 * dot[:, None])
    return pastel


def _latin(canvas: Canvas) -> Tensor:
    mapped = _gradient(canvas, ((0.20, 0.0, 0.05), (0.72, 0.04, 0.10), (1.0, 0.36, 0.12), (1.0, 0.86, 0.46)))
    return torch.lerp(canvas.image, mapped, 0.85)


def _techno(canvas: Canvas) -> Tensor:
    mapped = _gradient(canvas, ((0.03, 0.0, 0.14), (0.36, 0.0, 0.56), (0.98, 0.15, 0.80)))
    rows, columns = (0.5 - 0.5 * torch.cos(axis * 2 * math.pi * 8) for axis in (canvas.y, canvas.x))
    grid = smoothstep(torch.maximum(rows, columns), 0.75, 1.0) * smoothstep(canvas.y, 0.54, 0.60)
    return torch.lerp(0.9 * mapped, rgb(canvas, 0.1, 0.95, 1.0).expand_as(mapped), 0.7 * grid[:, None])


def _dark_ambient(canvas: Canvas) -> Tensor:
    grey = 0.62 * _luma(canvas) ** 1.25 * rgb(canvas, 0.86, 0.95, 1.0) + 0.03
    away = torch.hypot(canvas.x - 0.5, canvas.y - 0.5)[:, None]
    fog = 0.22 * torch.exp(-(((canvas.y - 0.62) / 0.10) ** 2))[:, None]
    return (grey * (1 - fog) + 0.55 * fog) * (1 - 0.75 * smoothstep(away, 0.28, 0.72))


def _orchestral(canvas: Canvas) -> Tensor:
    mapped = _gradient(canvas, ((0.16, 0.08, 0.03), (0.58, 0.34, 0.10), (0.98, 0.76, 0.30), (1.0, 0.97, 0.82)))
    warm = torch.lerp(canvas.image, mapped, 0.72)
    angle = torch.atan2(canvas.x - 1.05, canvas.y + 0.15)
    rays = smoothstep(torch.cos(angle * 18), 0.0, 0.9) * (1.0 - 0.75 * canvas.y)
    light = rgb(canvas, 1.0, 0.86, 0.46) * (0.45 * rays)[:, None]
    return 1 - (1 - warm.clamp(0, 1)) * (1 - light.clamp(0, 1))


GRADES: dict[str, Callable[[Canvas], Tensor]] = {
    "funny music": _funny,
    "latin music": _latin,
    "techno music": _techno,
    "dark ambient music": _dark_ambient,
    "orchestral music": _orchestral,
}
"""Each takes the painted canvas and returns the graded image ``[B, 3, H, W]``."""
