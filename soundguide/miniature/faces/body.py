"""What a portrait stands on: the wall, shoulders and neck, and the head with ears, cheeks and wrinkles."""

from __future__ import annotations

import torch
from torch import Tensor

from soundguide.miniature.faces import palette
from soundguide.miniature.faces.portrait import CENTRE_X, EYE_Y, HEAD_Y, Portrait
from soundguide.miniature.shapes import Canvas, smoothstep


def paint_wall(canvas: Canvas, background: Tensor) -> None:
    """Paint a softly lit wall, its colour by ``background`` ``[B, 1, 1]``, on an upright canvas."""
    wall = palette.ramp(background, palette.WALLS)
    dark = smoothstep(torch.hypot(canvas.x - 0.36, canvas.y - 0.30), 0.0, 0.85)[:, None]
    canvas.image = torch.lerp(wall * 1.04, wall * palette.tone(wall, (0.74, 0.72, 0.80)), dark)


def paint_shoulders(portrait: Portrait) -> None:
    """Paint neck, shirt and collar; the chin's shadow falls on the neck."""
    canvas, value = portrait.canvas, portrait.value
    dx = (canvas.x - CENTRE_X).abs()
    half = 0.092 + 0.03 * value["width"]
    cloth = palette.ramp(value["clothes"], palette.CLOTHES)
    shade = (1.04 - 0.30 * smoothstep(canvas.x - 0.2, 0.0, 0.75))[:, None]
    canvas.paint(cloth * shade, canvas.below(0.895 + 0.55 * (dx - 0.10).clamp_min(0) ** 1.6))
    neckline = canvas.y - 0.93 - 0.035 * (1 - (dx / half).clamp(0, 1) ** 2)
    throat = torch.maximum(torch.maximum(dx - half, neckline), 0.70 - canvas.y)
    shadow = 0.76 + 0.16 * smoothstep(canvas.y, 0.87, 0.98)[:, None]
    canvas.paint(portrait.lit(portrait.skin) * shadow, canvas.cover(throat))
    canvas.paint(cloth * 0.76, canvas.cover(torch.maximum(neckline.abs() - 0.011, dx - half - 0.01)))


def paint_head(portrait: Portrait) -> None:
    """Paint ears and the head with its soft shading and rosy cheeks."""
    canvas, pose, outline = portrait.canvas, portrait.pose, portrait.outline
    dx = (canvas.x - CENTRE_X).abs()
    skin = portrait.lit(portrait.skin)
    ear = torch.hypot((dx - portrait.half_width + 0.006) / 0.044, (canvas.y - 0.525) / 0.068)
    canvas.paint(skin * 0.90, canvas.cover((ear - 1) * 0.044))
    canvas.paint(skin * 0.74, 0.8 * canvas.cover((ear - 0.52) * 0.044, 3))
    edge = smoothstep(outline, -0.08, 0.0) * smoothstep(canvas.x - CENTRE_X + canvas.y - HEAD_Y, -0.15, 0.40)
    canvas.paint(skin * (1 - 0.16 * edge[:, None]), canvas.cover(outline))
    inside = canvas.cover(outline + 0.01, 4)
    shine = torch.exp(-(((canvas.x - 0.42) / 0.10) ** 2) - ((canvas.y - 0.26) / 0.07) ** 2)
    canvas.glow((1.0, 0.95, 0.88), (0.10 + 0.14 * portrait.bald) * shine * inside)
    cheek = torch.exp(-(((dx - 0.165) / 0.060) ** 2) - ((canvas.y - 0.625 + 0.012 * pose.cheek) / 0.044) ** 2)
    canvas.paint(portrait.tinted((1.02, 0.64, 0.64)), 0.85 * pose.blush * cheek * inside)


def paint_wrinkles(portrait: Portrait) -> None:
    """Paint what age draws: lines on the forehead, crow's feet, folds from the nose to the corners of the mouth."""
    canvas = portrait.canvas
    dx, y = (canvas.x - CENTRE_X).abs(), canvas.y
    lines = torch.maximum((y - 0.285 - 0.25 * dx**2).abs() - 0.005, dx - 0.12)
    lines = torch.minimum(lines, torch.maximum((y - 0.325 - 0.25 * dx**2).abs() - 0.005, dx - 0.14))
    out = dx - portrait.eye_x - 0.082
    feet = torch.maximum(((y - EYE_Y - 0.01).abs() - 0.4 * out).abs() - 0.005, (out - 0.018).abs() - 0.018)
    fold = torch.maximum((dx - 0.075 - 0.55 * (y - 0.60)).abs() - 0.006, (y - 0.645).abs() - 0.045)
    lines = torch.minimum(torch.minimum(lines, feet), fold)
    canvas.paint(portrait.skin * 0.60, 0.8 * smoothstep(portrait.value["age"], 0.45, 0.95) * canvas.cover(lines))
