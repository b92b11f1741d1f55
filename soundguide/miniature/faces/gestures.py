"""What an expression brings into the picture: tears, drops, a puff of breath, a fist and an open hand."""

from __future__ import annotations

import torch
from torch import Tensor

from soundguide.miniature.faces import palette
from soundguide.miniature.faces.portrait import CENTRE_X, EYE_Y, Portrait
from soundguide.miniature.shapes import Canvas, smoothstep

_WATER, _RIM = (0.66, 0.88, 1.0), (0.24, 0.55, 0.88)


def paint_tears(portrait: Portrait) -> None:
    """Paint streams of tears from both eyes, longer the harder one sobs."""
    e = portrait.value["sobbing"]
    canvas = portrait.canvas
    dx = (canvas.x - CENTRE_X).abs() - portrait.eye_x - 0.012
    end = EYE_Y + 0.07 + 0.24 * e
    wide = 0.018 + 0.008 * smoothstep(canvas.y, 0.55, 0.75)
    stream = torch.maximum(dx.abs() - wide, torch.maximum(EYE_Y + 0.045 - canvas.y, canvas.y - end))
    drop = torch.hypot(dx, (canvas.y - end) * 0.85) - 0.030
    water = torch.minimum(stream, drop)
    shown = smoothstep(e, 0.08, 0.35)
    canvas.paint_event(_RIM, shown * canvas.cover(water))
    canvas.paint_event(_WATER, shown * canvas.cover(water + 0.007))
    canvas.glow((1, 1, 1), 0.8 * shown * canvas.cover(torch.hypot(dx + 0.008, canvas.y - end) - 0.009))


def paint_drops(portrait: Portrait) -> None:
    """Paint the spray of a sneeze: drops that fly out from nose and mouth."""
    canvas, e = portrait.canvas, portrait.value["sneezing"]
    dx, dy = canvas.x - CENTRE_X, canvas.y - 0.64
    away = torch.hypot(dx, dy)
    aside = torch.atan2(dx.abs(), dy.clamp_min(1e-3))
    mist = smoothstep(1.45 - aside, 0.0, 0.2) * smoothstep(away, 0.15, 0.22) * smoothstep(0.44 - away, 0.0, 0.15)
    canvas.paint_event((0.86, 0.95, 1.0), 0.35 * e * mist)
    for x, y, size, start in _DROPS:
        shown = smoothstep(e - start, 0.05, 0.25)
        drop = torch.hypot(dx.abs() - x, canvas.y - y) - size
        canvas.paint_event(_RIM, shown * canvas.cover(drop))
        canvas.paint_event(_WATER, shown * canvas.cover(drop + 0.009))


_DROPS = (
    (0.185, 0.715, 0.030, 0.0),
    (0.250, 0.815, 0.034, 0.1),
    (0.120, 0.860, 0.028, 0.0),
    (0.335, 0.735, 0.030, 0.2),
    (0.360, 0.890, 0.034, 0.3),
    (0.205, 0.935, 0.030, 0.4),
)
"""On both sides: distance from the middle, height, radius, and the intensity from which on they fly."""


def paint_puff(portrait: Portrait) -> None:
    """Paint the puff of breath beside a coughing mouth."""
    e = portrait.value["coughing"]
    canvas = portrait.canvas
    shown = smoothstep(e, 0.15, 0.6)
    for x, y, size in ((0.20, 0.735, 0.060), (0.115, 0.70, 0.070), (0.13, 0.79, 0.055), (0.05, 0.755, 0.055)):
        away = torch.hypot(canvas.x - x, canvas.y - y) - size * (0.7 + 0.3 * e)
        light = (1.0 - 0.16 * smoothstep(canvas.y - y + canvas.x - x, -0.05, 0.08))[:, None]
        canvas.paint_event(
            canvas.image.new_tensor((0.97, 0.98, 1.0))[None, :, None, None] * light,
            0.92 * shown * canvas.cover(away, 2.5),
        )


def paint_fist(portrait: Portrait) -> None:
    """Paint the fist before a coughing mouth."""
    e = portrait.value["coughing"]
    shown = smoothstep(e, 0.10, 0.40)
    canvas = portrait.canvas
    cx, cy = 0.455, 0.845 - 0.02 * e
    arm = _capsule(canvas, cx - 0.03, cy + 0.06, cx - 0.14, 1.10, 0.062)
    _sleeve(portrait, canvas, arm, shown)
    _hand(portrait, canvas, _rounded(canvas, cx, cy, 0.090, 0.062, 0.045), shown)
    for k in range(3):
        line = _capsule(canvas, cx - 0.042 + 0.042 * k, cy - 0.045, cx - 0.046 + 0.042 * k, cy + 0.020, 0.0045)
        canvas.paint(portrait.skin * 0.55, 0.9 * shown * canvas.cover(line))
    thumb = _capsule(canvas, cx - 0.060, cy + 0.040, cx + 0.030, cy + 0.030, 0.024)
    _hand(portrait, canvas, thumb, shown)


def paint_palm(portrait: Portrait) -> None:
    """Paint the open hand that a yawn hides behind."""
    e = portrait.value["yawning"]
    shown = smoothstep(e, 0.10, 0.40)
    canvas = portrait.canvas
    cx, cy = 0.655, 0.865 - 0.02 * e
    _sleeve(portrait, canvas, _capsule(canvas, cx + 0.03, cy + 0.07, cx + 0.12, 1.12, 0.060), shown)
    for k, (dx, dy) in enumerate(((-0.105, -0.060), (-0.085, -0.100), (-0.045, -0.120), (0.0, -0.115))):
        finger = _capsule(canvas, cx - 0.045 + 0.026 * k, cy, cx + dx, cy + dy, 0.0215)
        _hand(portrait, canvas, finger, shown)
    _hand(portrait, canvas, _rounded(canvas, cx, cy + 0.02, 0.070, 0.060, 0.045), shown)


def _hand(portrait: Portrait, canvas: Canvas, shape: Tensor, shown: Tensor) -> None:
    """Paint a part of a hand ``[B, H, W]`` with a darker contour."""
    skin = portrait.lit(portrait.skin)
    canvas.paint_event(skin * 0.62, shown * canvas.cover(shape))
    canvas.paint_event(skin * 1.04, shown * canvas.cover(shape + 0.009))


def _sleeve(portrait: Portrait, canvas: Canvas, shape: Tensor, shown: Tensor) -> None:
    cloth = palette.ramp(portrait.value["clothes"], palette.CLOTHES)
    canvas.paint_event(cloth * 0.66, shown * canvas.cover(shape))
    canvas.paint_event(cloth * 0.92, shown * canvas.cover(shape + 0.010))


def _capsule(canvas: Canvas, ax: float, ay: float | Tensor, bx: float, by: float | Tensor, radius: float) -> Tensor:
    """Return the distance to a stroke with round ends, ``[B, H, W]``."""
    dx, dy = bx - ax, by - ay
    along = (((canvas.x - ax) * dx + (canvas.y - ay) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return torch.hypot(canvas.x - ax - along * dx, canvas.y - ay - along * dy) - radius


def _rounded(canvas: Canvas, cx: float, cy: float | Tensor, rx: float, ry: float, corner: float) -> Tensor:
    """Return the distance to a rectangle with round corners, ``[B, H, W]``."""
    across, down = (canvas.x - cx).abs() - rx + corner, (canvas.y - cy).abs() - ry + corner
    return torch.hypot(across.clamp_min(0), down.clamp_min(0)) + torch.maximum(across, down).clamp(max=0) - corner
