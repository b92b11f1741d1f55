"""Hair of the head and the beard."""

from __future__ import annotations

import torch
from torch import Tensor

from soundguide.miniature.faces.portrait import CENTRE_X, Portrait
from soundguide.miniature.shapes import smoothstep


def paint_hair_behind(portrait: Portrait) -> None:
    """Paint the hair that falls behind neck and ears, as long as it is."""
    canvas, value = portrait.canvas, portrait.value
    length = value["hair length"] * (1 - 0.85 * portrait.bald)
    reach = 0.44 + 0.56 * smoothstep(length, 0.25, 1.0)
    curl = smoothstep(value["hair style"], 0.55, 1.0)
    x = canvas.x - CENTRE_X
    wide = portrait.half_width - 0.025 + 0.100 * length + 0.020 * curl * torch.sin(canvas.y * 44)
    corner = 0.10
    out = (x.abs() - wide + corner).clamp_min(0)
    down = (canvas.y - reach - 0.012 * torch.cos(x * 52) + corner).clamp_min(0)
    strip = torch.maximum(torch.hypot(out, down) - corner, 0.34 - canvas.y)
    locks = 1 + 0.06 * torch.sin(x * 95)[:, None]
    canvas.paint(portrait.lit(portrait.hair * 0.74) * locks, canvas.cover(strip) * smoothstep(length, 0.22, 0.34))


def paint_hair(portrait: Portrait) -> None:
    """Paint the hair on the head: fringe, parting or curls; where it recedes, the sides remain."""
    canvas, value, bald = portrait.canvas, portrait.value, portrait.bald
    curl, fringe = smoothstep(value["hair style"], 0.55, 1.0), 1 - smoothstep(value["hair style"], 0.0, 0.45)
    x = canvas.x - CENTRE_X
    across = x.abs() / portrait.half_width
    angle = torch.atan2(canvas.y - 0.46, x)
    volume = (0.028 + 0.014 * value["hair length"] + 0.036 * curl) * (1 - 0.9 * bald)
    volume = volume * (1 - smoothstep(canvas.y, 0.30, 0.47))
    outline = portrait.outline - volume + 0.014 * curl * (1 - bald) * torch.cos(angle * 17)
    line = _hairline(x, across, fringe, curl)
    line = line - bald * (0.02 + 0.34 * (1 - smoothstep(across, 0.45, 1.0)))
    line = line + (0.17 + 0.04 * bald) * smoothstep(across + 0.08 * bald, 0.84, 1.0)  # down in front of the ears
    shape = canvas.cover(torch.maximum(outline, canvas.y - line), 1.6)
    shape = shape * (1 - smoothstep(bald, 0.85, 1.0) * (1 - smoothstep(across, 0.72, 0.90)))
    shape = shape * (1 - smoothstep(bald, 0.3, 0.8) * (1 - smoothstep(canvas.y, 0.24, 0.34)))
    waves = torch.sin(angle * 36 + 4 * torch.sin(angle * 5))
    strands = torch.lerp(waves, torch.cos(x * 60) * torch.cos(canvas.y * 60), curl)
    canvas.paint(portrait.lit(portrait.hair) * (1 + 0.07 * strands)[:, None], shape)
    band = torch.exp(-(((torch.hypot(x * 1.12, canvas.y - 0.52) - 0.36) / 0.020) ** 2))
    canvas.glow((1.0, 0.95, 0.85), 0.22 * band * smoothstep(0.10 - x, 0.0, 0.22) * shape * (1 - 0.8 * bald))
    under = canvas.y - line  # the hair's shadow on the forehead
    shadow = smoothstep(under, -0.002, 0.012) * (1 - smoothstep(under, 0.005, 0.035))
    canvas.paint(portrait.skin * 0.72, 0.32 * shadow * canvas.cover(portrait.outline + 0.01) * (1 - bald))


def _hairline(x: Tensor, across: Tensor, fringe: Tensor, curl: Tensor) -> Tensor:
    """Return the height of the hairline ``[B, H, W]``: a fringe, a parting on one side, or curls."""
    parting = 0.225 + 0.18 * (x + 0.09).abs() ** 0.8 + 0.06 * across**4
    straight = 0.335 + 0.012 * torch.sin(x * 85) + 0.05 * across**6
    bumpy = 0.275 + 0.018 * torch.cos(x * 60) + 0.10 * across**4
    return parting + fringe * (straight - parting) + curl * (bumpy - parting)


def paint_beard(portrait: Portrait) -> None:
    """Paint the beard, from stubble to a full one that hangs below the chin."""
    canvas, grown = portrait.canvas, portrait.value["beard"]
    full = smoothstep(grown, 0.66, 1.0)
    x = canvas.x - CENTRE_X
    across = x.abs() / portrait.half_width
    edge = 0.640 - 0.10 * smoothstep(across, 0.55, 0.98) + 0.03 * smoothstep(x.abs(), 0.0, 0.09)
    shape = canvas.cover(torch.maximum(portrait.outline - 0.012 - 0.045 * full, edge - canvas.y), 2.0)
    shape = shape * smoothstep(canvas.y, 0.50, 0.62)
    strands = 1 + 0.09 * torch.sin(x * 120 + 3 * torch.sin(canvas.y * 40))[:, None]
    alpha = smoothstep(grown, 0.52, 0.66) * (0.45 + 0.52 * full) * shape
    canvas.paint(portrait.lit(portrait.hair * 0.88) * strands, alpha)
