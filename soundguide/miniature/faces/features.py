"""Eyes, brows, nose, mouth and glasses: what makes a face, and what its expression moves."""

from __future__ import annotations

import torch
from torch import Tensor

from soundguide.miniature.faces import palette
from soundguide.miniature.faces.portrait import CENTRE_X, EYE_Y, Portrait
from soundguide.miniature.shapes import Canvas, smoothstep

EYE_RX, EYE_RY = 0.066, 0.068
_DARK = (0.11, 0.06, 0.07)


def paint_eyes(portrait: Portrait) -> None:
    """Paint both eyes: white, iris, lids and lashes; closed eyes are lines, screwed-up ones angles."""
    pose = portrait.pose
    canvas = portrait.canvas
    side = torch.sign(canvas.x - CENTRE_X)
    out = (canvas.x - CENTRE_X).abs() - portrait.eye_x  # away from the nose
    u = out / EYE_RX
    bow = (1 - u.square()).clamp_min(0).sqrt()
    meet = EYE_Y + pose.arc * EYE_RY * (u.square().clamp(max=1.2) - 0.45)
    upper, lower = meet - pose.lid_up * EYE_RY * bow, meet + pose.lid_low * EYE_RY * bow
    ends = (u.abs() - 1) * EYE_RX
    socket = canvas.cover(torch.maximum((canvas.y - EYE_Y).abs() - EYE_RY * bow, ends))
    closed = 1 - smoothstep(pose.lid_up + pose.lid_low, 0.0, 0.6)
    lid = portrait.lit(portrait.skin) * (0.86 + 0.24 * closed)[:, None]
    canvas.paint(lid, 0.75 * socket * (1 - pose.scrunch))
    white = canvas.cover(torch.maximum(torch.maximum(upper - canvas.y, canvas.y - lower), ends))
    white = white * smoothstep(pose.lid_up + pose.lid_low, 0.05, 0.25)
    _paint_ball(portrait, canvas, white, upper, side * out)
    _paint_lids(portrait, canvas, u, upper, lower)
    near = canvas.cover((torch.hypot(u, (canvas.y - EYE_Y) / EYE_RY) - 1.5) * EYE_RX, 3)
    canvas.mask = torch.maximum(canvas.mask, near)


def _paint_ball(portrait: Portrait, canvas: Canvas, white: Tensor, upper: Tensor, x: Tensor) -> None:
    """Paint what the lids leave open, ``white`` ``[B, H, W]``; ``x``: from the middle of each eye to the right."""
    pose, y = portrait.pose, canvas.y - EYE_Y
    clear, sore = x.new_tensor((0.99, 0.98, 0.96)), x.new_tensor((0.98, 0.72, 0.70))
    ball = torch.lerp(clear[None, :, None, None], sore[None, :, None, None], pose.eye_red[:, None])
    shadow = 1 - 0.22 * (1 - smoothstep(canvas.y - upper, 0.0, 0.035))[:, None]
    canvas.paint(ball * shadow, white)
    iris = palette.ramp(portrait.value["eye colour"], palette.EYES)
    away = torch.hypot(x, y)
    size = 0.043 * (0.45 + 0.55 * pose.pupil)
    inner = iris * (1.25 - 0.55 * smoothstep(-y, -0.02, 0.04))[:, None] * shadow
    canvas.paint(iris * 0.45 * shadow, white * canvas.cover(away - size))
    canvas.paint(inner, white * canvas.cover(away - size + 0.008))
    canvas.paint((0.06, 0.04, 0.06), white * canvas.cover(away - 0.021 * pose.pupil))
    canvas.paint((1.0, 1.0, 1.0), white * canvas.cover(torch.hypot(x + 0.014, y + 0.018) - 0.0125))
    canvas.paint((1.0, 1.0, 1.0), 0.5 * white * canvas.cover(torch.hypot(x - 0.016, y - 0.018) - 0.007))


def _paint_lids(portrait: Portrait, canvas: Canvas, u: Tensor, upper: Tensor, lower: Tensor) -> None:
    pose = portrait.pose
    closed = 1 - smoothstep(pose.lid_up + pose.lid_low, 0.0, 0.5)
    thick = 0.0080 + 0.0060 * closed
    ends = (u.abs() - 1.06) * EYE_RX
    lash = canvas.cover(torch.maximum((canvas.y - upper).abs() - thick, ends))
    loose = 1 - smoothstep(pose.scrunch, 0.35, 0.75)
    canvas.paint(_DARK, lash * loose)
    rim = canvas.cover(torch.maximum((canvas.y - lower).abs() - 0.004, ends + 0.01))
    canvas.paint(portrait.skin * 0.55, 0.6 * rim * loose * (1 - closed))
    bag = canvas.cover(torch.maximum((canvas.y - lower - 0.022 + 0.02 * u.square()).abs() - 0.005, ends + 0.012))
    canvas.paint(portrait.skin * 0.66, 0.7 * bag * pose.cheek * loose)
    # screwed up: two strokes that meet at the inner end
    along = ((u + 0.75) / 1.6).clamp(0, 1)
    stroke = ((canvas.y - EYE_Y).abs() - 0.042 * along).abs() - 0.0125
    angle = canvas.cover(torch.maximum(stroke, (u - 0.05).abs() * EYE_RX - 0.85 * EYE_RX))
    canvas.paint(_DARK, angle * smoothstep(pose.scrunch, 0.25, 0.65))


def paint_brows(portrait: Portrait) -> None:
    """Paint the brows over all hair of the forehead."""
    pose, heavy = portrait.pose, portrait.value["brows"]
    canvas = portrait.canvas
    u = ((canvas.x - CENTRE_X).abs() - portrait.eye_x - 0.004) / 0.078
    line = EYE_Y - 0.108 - pose.brow_raise + pose.brow_tilt * u + 0.024 * u.square()
    thick = (0.0065 + 0.0165 * heavy) * (1.05 - 0.35 * u.clamp(-1, 1))
    brow = canvas.cover(torch.maximum((canvas.y - line).abs() - thick, (u.abs() - 1) * 0.078))
    canvas.paint(portrait.hair * 0.62, brow)
    canvas.mask = torch.maximum(canvas.mask, brow)


def paint_nose(portrait: Portrait) -> None:
    """Paint the nose: a highlight, the shadow on its right and nostrils; cold or tears redden it."""
    pose, size = portrait.pose, portrait.value["nose"]
    rx, ry, y = 0.026 + 0.034 * size, 0.020 + 0.020 * size, 0.585 + 0.014 * size
    canvas = portrait.canvas
    red = portrait.tinted((1.08, 0.60, 0.58))
    skin = torch.lerp(portrait.skin, red, 0.75 * pose.nose_red[:, None])
    dx = canvas.x - CENTRE_X
    bridge = torch.exp(-(((dx - 0.022) / 0.014) ** 2)) * smoothstep(canvas.y, 0.46, 0.56) * (canvas.y < y)
    canvas.paint(portrait.skin * 0.78, 0.35 * bridge)
    canvas.paint(skin * 0.68, 0.85 * canvas.ellipse(CENTRE_X + 0.006, y + 0.010, rx * 1.04, ry, softness=2.5))
    canvas.paint(skin * 1.02, canvas.ellipse(CENTRE_X - 0.002, y, rx, ry, softness=2.5))
    canvas.glow((1.0, 0.96, 0.9), 0.35 * canvas.ellipse(CENTRE_X - 0.010, y - 0.008, 0.012, 0.008, softness=3))
    hole = torch.hypot((dx.abs() - 0.42 * rx) / 0.008, (canvas.y - y - 0.72 * ry) / 0.005)
    canvas.paint(portrait.skin * 0.40, 0.7 * canvas.cover((hole - 1) * 0.005, 2))
    for height in (-0.055, -0.035):  # the bridge wrinkles
        line = torch.maximum((canvas.y - y - height - 0.6 * dx.abs()).abs() - 0.005, dx.abs() - 0.024)
        canvas.paint(portrait.skin * 0.55, 0.9 * pose.scrunch * canvas.cover(line))


def paint_mouth(portrait: Portrait) -> None:
    """Paint lips, and what shows between them: throat, teeth, tongue."""
    pose = portrait.pose
    canvas = portrait.canvas
    u = (canvas.x - CENTRE_X - pose.mouth_x) / pose.mouth_width
    bow = (1 - u.square()).clamp_min(0).sqrt()
    line = pose.mouth_y + pose.mouth_curve * (0.45 - u.square().clamp(max=1.3))
    upper, lower = line - pose.open_up * bow, line + pose.open_low * bow
    ends = (u.abs() - 1) * pose.mouth_width
    inside = torch.maximum(torch.maximum(upper - canvas.y, canvas.y - lower), ends)
    lips = torch.lerp(portrait.tinted((0.80, 0.46, 0.46)), palette.tone(portrait.skin, (0.80, 0.34, 0.36)), 0.5)
    canvas.paint(lips, canvas.cover(inside - 0.008 - 0.006 * bow))
    gap = pose.open_up + pose.open_low
    hollow = canvas.cover(inside) * smoothstep(gap, 0.012, 0.04)
    canvas.paint((0.36, 0.07, 0.10), hollow)
    deep = canvas.cover((torch.hypot(u * 0.9, (canvas.y - line - 0.2 * gap) / (0.5 * gap + 0.02)) - 0.75) * 0.05, 5)
    canvas.paint((0.20, 0.03, 0.06), 0.8 * hollow * deep)
    tongue = torch.hypot(u / 0.68, (canvas.y - lower + 0.012) / (0.38 * gap + 0.004))
    canvas.paint((0.92, 0.44, 0.46), hollow * pose.tongue * canvas.cover((tongue - 1) * 0.05, 2))
    tooth = canvas.cover(canvas.y - upper - 0.10 * gap - 0.016) * canvas.cover((u.abs() - 0.86) * 0.1)
    canvas.paint((0.99, 0.98, 0.95), hollow * pose.teeth * tooth)
    below = canvas.cover(lower - 0.014 - canvas.y) * smoothstep(pose.open_up, 0.03, 0.06)
    canvas.paint((0.95, 0.94, 0.90), hollow * pose.teeth * below * canvas.cover((u.abs() - 0.7) * 0.1))
    canvas.mask = torch.maximum(canvas.mask, canvas.cover(inside - 0.02, 3))


def paint_glasses(portrait: Portrait) -> None:
    """Paint glasses, which get darker and squarer frames the more of them there is."""
    amount = portrait.value["glasses"]
    visible, square = smoothstep(amount, 0.55, 0.66), smoothstep(amount, 0.6, 1.0)
    canvas = portrait.canvas
    dx = (canvas.x - CENTRE_X).abs()
    across, down = (dx - portrait.eye_x - 0.004).abs() / 0.098, (canvas.y - EYE_Y - 0.012).abs() / 0.090
    power = 2.0 + 2.5 * square
    ring = ((across.clamp_min(1e-4) ** power + down.clamp_min(1e-4) ** power) ** (1 / power) - 1) * 0.09
    glare = canvas.cover((canvas.x * 0.7 + canvas.y - 0.745).abs() - 0.016, 3) + canvas.cover(
        (canvas.x * 0.7 + canvas.y - 0.90).abs() - 0.016, 3
    )
    canvas.glow((0.9, 0.96, 1.0), visible * canvas.cover(ring) * (0.10 + 0.22 * glare))
    frame = palette.ramp(square, palette.FRAMES)
    canvas.paint(frame, visible * canvas.cover(ring.abs() - 0.010 - 0.004 * square))
    middle = torch.maximum((canvas.y - EYE_Y - 0.002 + 0.8 * (0.02 - dx)).abs() - 0.008, dx - portrait.eye_x + 0.092)
    canvas.paint(frame, visible * canvas.cover(middle))
    temple = torch.maximum(
        (canvas.y - EYE_Y - 0.0).abs() - 0.009,
        (dx - 0.5 * (portrait.eye_x + 0.098 + portrait.half_width)).abs()
        - 0.5 * (portrait.half_width - portrait.eye_x - 0.098).clamp_min(0),
    )
    canvas.paint(frame, visible * canvas.cover(temple))
