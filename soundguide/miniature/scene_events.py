"""What each sounding event looks like: painters that lay one event over a landscape.

A painter takes the canvas, the event's intensity ``[B, 1, 1]`` in [0, 1] and the scene's values. Grains (drops,
flakes, sparks) stand at fixed places of a tile, so that the picture is a function of the factors; intensity decides
how many show and how strong.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from soundguide.miniature.scene_light import ambient, rgb
from soundguide.miniature.shapes import Canvas, smoothstep, tile

Values = dict[str, Tensor]
Painter = Callable[[Canvas, Tensor, Values], None]

AFFECTS: dict[str, frozenset[str]] = {
    "raining": frozenset({"clouds", "haze", "sun"}),
    "thunderstorm": frozenset({"daylight", "clouds", "sun"}),
    "wind noise": frozenset({"clouds"}),
    "crickets chirping at night": frozenset({"daylight", "sun"}),
    "fireworks exploding": frozenset({"daylight", "clouds", "sun"}),
    "walking in snow": frozenset({"season", "haze"}),
    "city traffic": frozenset({"house", "mountains"}),
    "underwater bubbling": frozenset({"daylight", "haze", "sun", "clouds"}),
    "funny music": frozenset({"daylight", "season", "haze"}),
    "latin music": frozenset({"daylight", "season", "sun"}),
    "techno music": frozenset({"daylight", "season", "sun"}),
    "dark ambient music": frozenset({"daylight", "season", "sun", "haze"}),
    "orchestral music": frozenset({"daylight", "season", "sun", "haze"}),
}
"""The continuous factors that a label speaks of; all others should stay when its sound edits a picture."""


def daylight_after_events(value: Values) -> Tensor:
    """Return the daylight ``[B, 1, 1]`` once storm, fireworks and cricket nights have darkened the scene."""
    dark = torch.maximum(0.92 * value["crickets chirping at night"], 0.85 * value["fireworks exploding"])
    return value["daylight"] * (1 - torch.maximum(dark, 0.55 * value["thunderstorm"]))


def _thunderstorm(canvas: Canvas, e: Tensor, value: Values) -> None:
    lid = 0.30 + 0.025 * torch.sin(14 * canvas.x) + 0.015 * torch.sin(31 * canvas.x + 1)
    canvas.paint_event((0.17, 0.16, 0.25), 0.9 * e * smoothstep(lid - canvas.y, -0.04, 0.08))
    belly = canvas.cover(torch.abs(lid - 0.05 - canvas.y) - 0.016, 2)
    canvas.paint((0.33, 0.32, 0.43), 0.6 * e * belly)
    points = ((0.40, 0.24), (0.34, 0.36), (0.42, 0.38), (0.33, 0.56))
    branch = ((0.42, 0.38), (0.49, 0.47))
    distance = torch.full_like(canvas.x * canvas.y, 9.0)
    for (ax, ay), (bx, by) in (*zip(points, points[1:], strict=False), branch):
        dx, dy = bx - ax, by - ay
        along = (((canvas.x - ax) * dx + (canvas.y - ay) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
        distance = torch.minimum(distance, torch.hypot(canvas.x - ax - along * dx, canvas.y - ay - along * dy))
    canvas.glow((0.72, 0.70, 1.0), 0.75 * e * torch.exp(-((distance / 0.07) ** 2)))
    canvas.paint_event((1.0, 1.0, 0.88), smoothstep(e, 0.1, 0.4) * canvas.cover(distance - 0.014 - 0.004 * e))


def _fireworks(canvas: Canvas, e: Tensor, value: Values) -> None:
    bursts = (
        (0.30, 0.20, 0.16, (1.0, 0.36, 0.30), 0.0),
        (0.70, 0.16, 0.14, (0.35, 0.85, 1.0), 0.25),
        (0.52, 0.34, 0.11, (1.0, 0.84, 0.30), 0.5),
    )
    for cx, cy, radius, colour, start in bursts:
        strength = ((e - start) / 0.35).clamp(0, 1)
        dx, dy = canvas.x - cx, canvas.y - cy
        away = torch.hypot(dx, dy)
        ray = torch.cos(8 * torch.atan2(dy, dx))
        spokes = smoothstep(ray, -0.1, 0.8) * smoothstep(radius - away, 0.0, 0.03) * smoothstep(away, 0.03, 0.05)
        canvas.glow(colour, 0.5 * strength * torch.exp(-((away / (radius * 0.8)) ** 2)))
        canvas.paint_event(colour, strength * spokes)
        canvas.paint_event((1.0, 1.0, 0.9), strength * canvas.cover(away - 0.022))


def _snow(canvas: Canvas, e: Tensor, value: Values) -> None:
    light = ambient(value)
    land = smoothstep(canvas.y + 0.0 * canvas.x, 0.57, 0.61)
    canvas.paint_event(rgb(canvas, 0.94, 0.96, 1.0) * light, 0.92 * e * land)
    for k in range(5):
        cx, cy = 0.40 + 0.035 * k + (0.03 if k % 2 else -0.03), 0.97 - 0.055 * k
        canvas.paint_event(rgb(canvas, 0.50, 0.58, 0.76) * light, e * canvas.ellipse(cx, cy, 0.026 - 0.002 * k, 0.014))
    for cx, cy, start in ((0.15, 0.20, 0.0), (0.65, 0.45, 0.0), (0.30, 0.75, 0.2), (0.85, 0.95, 0.4)):
        flake = canvas.cover(torch.hypot(*tile(canvas, cx, cy)) - 0.017)
        canvas.paint_event((1.0, 1.0, 1.0), flake * smoothstep(e - start, 0.0, 0.3))


def _church(canvas: Canvas, e: Tensor, value: Values) -> None:
    light, visible = ambient(value), smoothstep(e, 0.05, 0.45)
    cx, foot = 0.415, 0.665
    tower = 0.20 + 0.05 * e
    canvas.paint_event(
        rgb(canvas, 0.88, 0.86, 0.84) * light, visible * canvas.box(cx + 0.02, cx + 0.15, foot - 0.085, foot)
    )
    canvas.paint_event(
        rgb(canvas, 0.42, 0.28, 0.34) * light, visible * canvas.triangle(cx + 0.085, foot - 0.145, foot - 0.08, 0.09)
    )
    canvas.paint_event(
        rgb(canvas, 0.96, 0.94, 0.90) * light, visible * canvas.box(cx - 0.035, cx + 0.035, foot - tower, foot)
    )
    canvas.paint_event(
        rgb(canvas, 0.42, 0.28, 0.34) * light,
        visible * canvas.triangle(cx, foot - tower - 0.115, foot - tower + 0.005, 0.046),
    )
    canvas.paint_event((0.98, 0.80, 0.30), visible * canvas.disc(cx, foot - tower + 0.05, 0.018))
    away = torch.hypot(canvas.x - cx, canvas.y - (foot - tower + 0.05))
    rings = (
        smoothstep(torch.cos(away * 2 * math.pi / 0.075), 0.2, 0.9)
        * smoothstep(away, 0.05, 0.07)
        * smoothstep(0.23 - away, 0.0, 0.1)
    )
    canvas.glow_event((1.0, 0.86, 0.45), 0.55 * e * rings)


def _wind(canvas: Canvas, e: Tensor, value: Values) -> None:
    for k, (y0, start, length) in enumerate(
        ((0.30, 0.05, 0.50), (0.40, 0.38, 0.55), (0.50, 0.02, 0.42), (0.62, 0.42, 0.50), (0.22, 0.50, 0.42))
    ):
        strength = ((e - 0.12 * k) / 0.3).clamp(0, 1)
        along = ((canvas.x - start) / length).clamp(0, 1)
        line = y0 + 0.02 * torch.sin(along * 6.0 + k) - 0.035 * along**3
        gust = canvas.cover(torch.abs(canvas.y - line) - 0.008 - 0.006 * along) * canvas.box(
            start, start + length, 0.0, 1.0
        )
        curl = torch.hypot(canvas.x - start - length + 0.01, canvas.y - line + 0.035)
        gust = torch.maximum(gust, canvas.cover(torch.abs(curl - 0.03) - 0.011) * (canvas.x > start + length - 0.02))
        canvas.paint_event((0.95, 0.98, 1.0), 0.85 * strength * gust)
    dx, dy = tile(canvas, 0.4, 0.6)
    leaf = canvas.cover(torch.abs(dx) + 1.8 * torch.abs(dy + 0.3 * dx) - 0.034)
    canvas.paint_event((0.86, 0.46, 0.12), leaf * smoothstep(e, 0.0, 0.3))


def _river(canvas: Canvas, e: Tensor, value: Values) -> None:
    light = ambient(value)
    depth = ((canvas.y - 0.615) / 0.385).clamp(0, 1)
    centre = 0.60 + 0.16 * torch.sin(depth * 5.2) * (0.25 + depth) - 0.05 * depth
    width = (0.022 + 0.16 * depth) * (0.75 + 0.25 * e)
    water = canvas.cover(torch.abs(canvas.x - centre) - width) * smoothstep(canvas.y + 0 * canvas.x, 0.61, 0.63)
    visible = smoothstep(e, 0.05, 0.4)
    canvas.paint_event(rgb(canvas, 0.16, 0.50, 0.86) * (0.25 + 0.75 * light), visible * water)
    shine = (
        smoothstep(torch.sin(depth * 34 + 9 * (canvas.x - centre)), 0.3, 0.9)
        * water
        * (torch.abs(canvas.x - centre) < 0.75 * width)
    )
    canvas.paint_event(rgb(canvas, 0.82, 0.94, 1.0) * (0.3 + 0.7 * light), 0.8 * visible * shine)


def _sea(canvas: Canvas, e: Tensor, value: Values) -> None:
    light = ambient(value)
    shore = 0.80 - 0.05 * e + 0.012 * torch.sin(8 * canvas.x + 1.0)
    visible = smoothstep(e, 0.05, 0.35)
    water = visible * canvas.below(shore)
    depth = ((canvas.y - shore) / 0.25).clamp(0, 1)
    tint = torch.lerp(rgb(canvas, 0.20, 0.62, 0.72), rgb(canvas, 0.04, 0.26, 0.52), depth[:, None])
    canvas.paint_event(tint * (0.25 + 0.75 * light), water)
    for k in range(4):
        crest = shore + 0.012 + 0.058 * k + 0.013 * torch.sin((11 - k) * canvas.x + 2.1 * k)
        foam = canvas.cover(
            torch.abs(canvas.y - crest) - 0.008 - 0.006 * e * torch.sin(23 * canvas.x + 3 * k).clamp(min=0)
        )
        canvas.paint_event(
            rgb(canvas, 0.97, 1.0, 1.0) * (0.35 + 0.65 * light),
            water * foam * smoothstep(e, 0.18 * k - 0.1, 0.18 * k + 0.2),
        )


def _traffic(canvas: Canvas, e: Tensor, value: Values) -> None:
    light, visible = ambient(value), smoothstep(e, 0.05, 0.4)
    for k in range(9):
        left, tall = 0.02 + 0.107 * k, (0.09 + 0.13 * ((k * 0.618) % 1.0)) * (0.5 + 0.5 * e)
        tower = canvas.box(left, left + 0.075, 0.60 - tall, 0.60)
        canvas.paint_event(rgb(canvas, 0.36, 0.38, 0.47) * light, visible * tower)
        panes = smoothstep(torch.sin(canvas.x * 190) * torch.sin(canvas.y * 150), 0.1, 0.4)
        canvas.paint_event((1.0, 0.86, 0.45), 0.7 * visible * tower * panes)
    canvas.paint_event(
        rgb(canvas, 0.25, 0.25, 0.28) * (0.3 + 0.7 * light), visible * canvas.box(-1.0, 2.0, 0.775, 0.885)
    )
    dashes = canvas.box(-1.0, 2.0, 0.824, 0.838) * smoothstep(torch.sin(canvas.x * 40), 0.0, 0.5)
    canvas.paint_event((0.96, 0.92, 0.72), visible * dashes)
    cars = (
        (0.13, 0.80, (0.88, 0.18, 0.16)),
        (0.58, 0.80, (0.95, 0.95, 0.97)),
        (0.36, 0.862, (0.20, 0.42, 0.90)),
        (0.83, 0.862, (0.98, 0.76, 0.12)),
    )
    for k, (cx, cy, paint) in enumerate(cars):
        shown = ((e - 0.17 * k) / 0.2).clamp(0, 1)
        canvas.paint_event(
            rgb(canvas, *paint) * (0.4 + 0.6 * light), shown * canvas.box(cx - 0.065, cx + 0.065, cy - 0.022, cy + 0.02)
        )
        canvas.paint_event(
            rgb(canvas, *paint) * (0.35 + 0.5 * light), shown * canvas.box(cx - 0.035, cx + 0.032, cy - 0.05, cy - 0.02)
        )
        for wheel in (cx - 0.038, cx + 0.038):
            canvas.paint_event((0.05, 0.05, 0.06), shown * canvas.disc(wheel, cy + 0.022, 0.016))
        canvas.paint_event((1.0, 0.95, 0.6), shown * canvas.disc(cx + 0.066, cy - 0.004, 0.012))


def _train(canvas: Canvas, e: Tensor, value: Values) -> None:
    light, visible = ambient(value), smoothstep(e, 0.05, 0.4)
    canvas.paint_event(rgb(canvas, 0.36, 0.30, 0.26) * light, visible * canvas.box(-1.0, 2.0, 0.738, 0.755))
    front = 0.65 + 0.25 * e
    body = canvas.box(-1.0, front, 0.645, 0.735)
    nose = canvas.ellipse(front, 0.695, 0.05, 0.042)
    canvas.paint_event(rgb(canvas, 0.80, 0.13, 0.17) * (0.35 + 0.65 * light), visible * torch.maximum(body, nose))
    canvas.paint_event(
        rgb(canvas, 0.96, 0.93, 0.86) * (0.35 + 0.65 * light), visible * canvas.box(-1.0, front + 0.03, 0.708, 0.720)
    )
    gaps = smoothstep(torch.sin(canvas.x * 2 * math.pi / 0.085), -0.1, 0.2)
    canvas.paint_event((1.0, 0.92, 0.60), visible * canvas.box(-1.0, front - 0.01, 0.660, 0.692) * gaps)
    canvas.glow_event(
        (1.0, 0.96, 0.75), visible * torch.exp(-((torch.hypot(canvas.x - front - 0.05, canvas.y - 0.705) / 0.035) ** 2))
    )
    for k in range(5):
        puff = canvas.disc(front - 0.04 - 0.10 * k, 0.615 - 0.022 * k, 0.026 + 0.010 * k, softness=2)
        canvas.paint_event((0.93, 0.93, 0.95), (0.85 - 0.10 * k) * visible * puff)


def _birds(canvas: Canvas, e: Tensor, value: Values) -> None:
    flock = ((0.58, 0.28, 1.2), (0.74, 0.18, 1.1), (0.46, 0.16, 1.0), (0.84, 0.33, 1.1))
    for k, (cx, cy, size) in enumerate(flock):
        shown, s = ((e - 0.12 * k) / 0.2).clamp(0, 1), 0.052 * size
        for side in (-1, 1):
            wing = canvas.segment((cx, cy), (cx + side * s, cy - 0.6 * s), 0.028 * size)
            canvas.paint_event((0.10, 0.09, 0.14), shown * wing)
    branch = smoothstep(e, 0.0, 0.3)
    canvas.paint_event((0.34, 0.22, 0.14), branch * canvas.segment((-0.02, 0.47), (0.34, 0.43), 0.026))
    for leaf in ((0.10, 0.435), (0.30, 0.40), (0.25, 0.465)):
        canvas.paint_event((0.30, 0.62, 0.24), branch * canvas.ellipse(leaf[0], leaf[1], 0.032, 0.016))
    for k, (cx, colour) in enumerate(((0.22, (0.93, 0.24, 0.16)), (0.06, (0.16, 0.52, 0.95)))):
        shown, cy = ((e - 0.1 - 0.3 * k) / 0.25).clamp(0, 1), 0.395 + 0.01 * k
        canvas.paint_event(colour, shown * canvas.ellipse(cx, cy, 0.054, 0.042))
        canvas.paint_event(colour, shown * canvas.disc(cx + 0.042, cy - 0.040, 0.031))
        canvas.paint_event((1.0, 0.86, 0.24), shown * canvas.ellipse(cx + 0.008, cy + 0.014, 0.028, 0.022))
        canvas.paint_event((1.0, 0.72, 0.10), shown * canvas.ellipse(cx + 0.083, cy - 0.040, 0.020, 0.012))
        canvas.paint_event((0.03, 0.03, 0.05), shown * canvas.disc(cx + 0.049, cy - 0.047, 0.011))


def _crickets(canvas: Canvas, e: Tensor, value: Values) -> None:
    for cx, tall in ((0.10, 0.16), (0.35, 0.10), (0.60, 0.20), (0.85, 0.13)):
        dx, _ = tile(canvas, cx, 0.0)
        width = 0.024 * ((canvas.y - 1 + tall) / tall).clamp(0, 1)
        canvas.paint_event((0.03, 0.10, 0.07), e * canvas.cover(torch.abs(dx) - width) * (canvas.y > 1 - tall))
    for cx, cy, start in ((0.20, 0.25, 0.0), (0.70, 0.70, 0.25)):
        away = torch.hypot(*tile(canvas, cx, cy))
        shown = smoothstep(e - start, 0.0, 0.3) * (canvas.y > 0.5)
        canvas.glow_event((0.62, 0.95, 0.20), 0.8 * shown * torch.exp(-((away / 0.034) ** 2)))
        canvas.paint_event((0.96, 1.0, 0.55), shown * canvas.cover(away - 0.015))


def _fire(canvas: Canvas, e: Tensor, value: Values) -> None:
    cx, foot, size = 0.27, 0.93, 0.55 + 0.45 * e
    visible = smoothstep(e, 0.03, 0.3)
    away = torch.hypot(canvas.x - cx, canvas.y - foot + 0.08)
    canvas.glow((1.0, 0.50, 0.14), 0.75 * e * torch.exp(-((away / 0.26) ** 2)))
    for tilt in (-1, 1):
        canvas.paint_event(
            (0.28, 0.16, 0.10),
            visible * canvas.segment((cx - 0.09, foot + tilt * 0.022), (cx + 0.09, foot - tilt * 0.022), 0.03),
        )
    for colour, scale in (((0.92, 0.24, 0.06), 1.0), ((1.0, 0.58, 0.10), 0.70), ((1.0, 0.92, 0.46), 0.38)):
        for dx, tall, wide in ((0.0, 0.30, 0.075), (-0.055, 0.19, 0.050), (0.055, 0.21, 0.050)):
            height = ((foot - canvas.y) / (tall * scale * size)).clamp(0, 1)
            sway = 0.016 * torch.sin(9 * height + 40 * dx)
            profile = wide * scale * size * (1 - height) ** 0.8 * (0.55 + 1.3 * height * (1 - height) * 2)
            tongue = canvas.cover(torch.abs(canvas.x - cx - dx * size - sway) - profile) * (height > 0) * (height < 1)
            canvas.paint_event(colour, visible * tongue)
    for k in range(8):
        sx, sy = cx + 0.11 * math.sin(2.4 * k), foot - 0.26 - 0.038 * k
        canvas.paint_event((1.0, 0.74, 0.25), smoothstep(e, 0.08 * k, 0.08 * k + 0.25) * canvas.disc(sx, sy, 0.013))


def _rain(canvas: Canvas, e: Tensor, value: Values) -> None:
    grey = canvas.image.mean(1, keepdim=True) * rgb(canvas, 0.72, 0.80, 0.92)
    canvas.paint(grey, 0.55 * e.expand_as(canvas.mask))
    for cx, cy, start in ((0.10, 0.30, 0.0), (0.60, 0.55, 0.0), (0.35, 0.85, 0.25), (0.85, 0.10, 0.5)):
        dx, dy = tile(canvas, cx, cy)
        streak = canvas.cover(torch.maximum(torch.abs(dx + 0.25 * dy) - 0.010, torch.abs(dy) - 0.062))
        canvas.paint_event((0.82, 0.90, 1.0), 0.9 * streak * smoothstep(e - start, 0.0, 0.3))


def _underwater(canvas: Canvas, e: Tensor, value: Values) -> None:
    deep = torch.lerp(
        rgb(canvas, 0.10, 0.62, 0.74), rgb(canvas, 0.01, 0.14, 0.36), canvas.y[:, None].expand_as(canvas.image[:, :1])
    )
    canvas.paint(deep, 0.68 * smoothstep(e, 0.0, 0.7).expand_as(canvas.mask))
    beam = smoothstep(torch.sin((canvas.x + 0.35 * canvas.y) * 17.0), 0.3, 1.0) * (1 - canvas.y)
    canvas.glow((0.55, 0.92, 0.95), 0.38 * e * beam)
    for cx, cy, radius, start in ((0.30, 0.30, 0.042, 0.0), (0.80, 0.75, 0.026, 0.3)):
        away = torch.hypot(*tile(canvas, cx, cy))
        shown = smoothstep(e - start, 0.0, 0.3)
        canvas.paint_event((0.62, 0.90, 0.96), 0.45 * shown * canvas.cover(away - radius))
        canvas.paint_event((0.94, 1.0, 1.0), 0.95 * shown * canvas.cover(torch.abs(away - radius) - 0.009))


SKY_EVENTS: dict[str, Painter] = {"thunderstorm": _thunderstorm, "fireworks exploding": _fireworks}
"""Painted behind the mountains."""

LAND_EVENTS: dict[str, Painter] = {"walking in snow": _snow, "church bells": _church}
"""Painted on the land, behind trees and house."""

FRONT_EVENTS: dict[str, Painter] = {
    "river flowing": _river,
    "city traffic": _traffic,
    "train passing": _train,
    "sea waves": _sea,
    "fire crackling": _fire,
    "wind noise": _wind,
    "bird song": _birds,
    "crickets chirping at night": _crickets,
    "underwater bubbling": _underwater,
    "raining": _rain,
}
"""Painted in front of the landscape, in this order."""
