"""The landscape under the events: sky, mountains, ground, trees and a house, painted from the continuous factors."""

from __future__ import annotations

import torch
from torch import Tensor

from soundguide.miniature.scene_light import ambient, rgb, three_way
from soundguide.miniature.shapes import Canvas, smoothstep, tile


def paint_sky(canvas: Canvas, value: dict[str, Tensor]) -> None:
    """Paint the gradient of the hour, stars, sun or moon with its glow, clouds and the haze of the horizon."""
    d, sun, haze = value["daylight"], value["sun"], value["haze"]
    top = three_way(d, (0.03, 0.05, 0.17), (0.33, 0.27, 0.52), (0.24, 0.52, 0.88))
    low = three_way(d, (0.13, 0.17, 0.36), (0.98, 0.62, 0.42), (0.78, 0.90, 0.98))
    canvas.image = torch.lerp(top, low, smoothstep(canvas.y, 0.0, 0.58)[:, None]).expand_as(canvas.image)
    for place in ((0.15, 0.30), (0.55, 0.75), (0.80, 0.15)):
        twinkle = canvas.cover(torch.hypot(*tile(canvas, *place)) - 0.009)
        canvas.glow((1.0, 0.98, 0.9), twinkle * ((0.36 - d) / 0.3).clamp(0, 1))
    x, day = 0.14 + 0.72 * sun, smoothstep(d, 0.22, 0.34)
    y = 0.16 * (1 - day) + day * (0.44 - 0.30 * ((d - 0.3) / 0.7).clamp(0, 1))
    disc = torch.lerp(rgb(canvas, 0.95, 0.95, 0.86), rgb(canvas, 1.0, 0.93, 0.62), day[:, None])
    distance = torch.hypot(canvas.x - x, canvas.y - y)
    canvas.glow(disc, 0.55 * torch.exp(-((distance / 0.15) ** 2)))
    canvas.paint(disc, canvas.cover(distance - 0.058))
    shade = three_way(d, (0.22, 0.25, 0.40), (0.98, 0.74, 0.66), (1.0, 1.0, 1.0))
    puffs = (
        (0.20, 0.13, 1.2),
        (0.68, 0.21, 1.0),
        (0.45, 0.07, 0.9),
        (0.90, 0.10, 1.1),
        (0.05, 0.27, 0.9),
        (0.48, 0.30, 1.1),
    )
    for k, (cx, cy, size) in enumerate(puffs):
        amount = (value["clouds"] * 6 - k).clamp(0, 1)
        cloud = canvas.ellipse(cx, cy, 0.15 * size, 0.032 * size, softness=2)
        cloud = torch.maximum(
            cloud, canvas.ellipse(cx - 0.04 * size, cy - 0.025 * size, 0.07 * size, 0.035 * size, softness=2)
        )
        cloud = torch.maximum(
            cloud, canvas.ellipse(cx + 0.05 * size, cy - 0.018 * size, 0.06 * size, 0.028 * size, softness=2)
        )
        canvas.paint(shade * (0.94 + 0.06 * (0.3 - canvas.y[:, None])), 0.9 * amount * cloud)
    canvas.paint(low, 0.75 * haze * torch.exp(-(((canvas.y - 0.58) / 0.12) ** 2)))


def paint_mountains(canvas: Canvas, value: dict[str, Tensor]) -> None:
    """Paint two ridges, the far one with snow on its peaks."""
    tall, ridge, light = value["mountains"], value["ridge"], ambient(value)
    x = canvas.x
    # the ridges grow from one profile into another: shapes that wander sideways are hard for a generator to learn
    far_peaks = torch.lerp(0.09 * torch.sin(9.0 * x), 0.12 * torch.sin(13.0 * x + 4.0), ridge)
    near_peaks = torch.lerp(0.07 * torch.sin(7.0 * x + 2.0), 0.07 * torch.sin(10.0 * x - 2.0), ridge)
    back = 0.54 - tall * (0.15 + far_peaks + 0.03 * torch.sin(21.0 * x))
    front = 0.565 - tall * (0.06 + near_peaks)
    low = torch.tensor((0.62, 0.68, 0.80), device=x.device)[None, :, None, None]
    for line, rock, snow in ((back, (0.42, 0.45, 0.62), 1.0), (front, (0.34, 0.40, 0.48), 0.0)):
        body = canvas.below(line)
        stone = canvas.image.new_tensor(rock)[None, :, None, None]
        stone = torch.lerp(stone, low, 0.75 * value["haze"][:, None])
        canvas.paint(stone * light, body)
        if snow:
            cap = body * smoothstep(0.37 - canvas.y + 0.012 * torch.sin(32 * x), 0.0, 0.03)
            canvas.paint(torch.ones_like(stone) * 0.96 * light, cap)


def paint_ground(canvas: Canvas, value: dict[str, Tensor]) -> None:
    """Paint hills, a meadow in the colour of the season, and a path."""
    light, season = ambient(value), value["season"][:, None]
    green, gold, rust = rgb(canvas, 0.36, 0.62, 0.26), rgb(canvas, 0.78, 0.70, 0.28), rgb(canvas, 0.68, 0.40, 0.22)
    grass = torch.lerp(torch.lerp(green, gold, (season * 2).clamp(0, 1)), rust, (season * 2 - 1).clamp(0, 1))
    hill = 0.60 - 0.025 * torch.sin(5.0 * canvas.x + 2.2 * value["ridge"]) - 0.012 * torch.sin(11.0 * canvas.x)
    far = torch.lerp(grass * 0.82, rgb(canvas, 0.72, 0.78, 0.82), 0.45 * value["haze"][:, None])
    canvas.paint(far * light, canvas.below(hill))
    meadow = 0.70 + 0.03 * torch.sin(4.0 * canvas.x + 1.0)
    near = grass * (1.04 - 0.35 * smoothstep(canvas.y, 0.72, 1.0)[:, None])
    canvas.paint(near * light, canvas.below(meadow))
    path = canvas.below(meadow + 0.10 + 0.02 * torch.sin(9 * canvas.x)) - canvas.below(
        meadow + 0.125 + 0.02 * torch.sin(9 * canvas.x)
    )
    canvas.paint(grass * 1.18 * light, 0.6 * path)


def paint_trees(canvas: Canvas, value: dict[str, Tensor]) -> None:
    """Paint up to six firs that grow one after the other; wind bends them, snow whitens them."""
    light, season = ambient(value), value["season"][:, None]
    fir, autumn = rgb(canvas, 0.10, 0.34, 0.20), rgb(canvas, 0.78, 0.34, 0.12)
    leaves = torch.lerp(fir, autumn, smoothstep(season, 0.35, 0.9))
    leaves = torch.lerp(leaves, torch.ones_like(leaves) * 0.9, 0.65 * value["walking in snow"][:, None])
    for k, (cx, foot, size) in enumerate(
        (
            (0.16, 0.72, 1.0),
            (0.90, 0.73, 1.0),
            (0.05, 0.75, 1.15),
            (0.30, 0.69, 0.8),
            (0.56, 0.68, 0.7),
            (0.97, 0.70, 0.9),
        )
    ):
        grown = (value["trees"] * 6 - k).clamp(0, 1)
        tall, lean = 0.27 * size * (0.7 + 0.3 * grown), 0.07 * value["wind noise"]
        bent = cx + lean * ((foot - canvas.y) / 0.25).clamp(0, 1) ** 2
        visible = smoothstep(grown, 0.05, 0.3)
        canvas.paint(
            rgb(canvas, 0.30, 0.20, 0.13) * light,
            visible * canvas.box(cx - 0.012, cx + 0.012, foot - 0.08, foot),
        )
        for tier in range(3):
            top, bottom = foot - tall * (1.0 - 0.22 * tier), foot - 0.03 - tall * (0.46 - 0.23 * tier)
            tint = leaves * light * (0.86 + 0.12 * tier)
            canvas.paint(tint, visible * canvas.triangle(bent, top, bottom, (0.034 + 0.016 * tier) * size))


def paint_house(canvas: Canvas, value: dict[str, Tensor]) -> None:
    """Paint a house that grows with its factor; its window is lit when it is dark."""
    size, light = value["house"], ambient(value)
    visible = smoothstep(size, 0.15, 0.3)
    half, wall = 0.06 + 0.03 * size, 0.065 + 0.05 * size
    cx, foot = 0.72, 0.74
    canvas.paint(
        rgb(canvas, 0.93, 0.86, 0.74) * light,
        visible * canvas.box(cx - half, cx + half, foot - wall, foot),
    )
    canvas.paint(
        rgb(canvas, 0.70, 0.22, 0.18) * light,
        visible * canvas.triangle(cx, foot - wall * 1.9, foot - wall + 0.005, half * 1.25),
    )
    lit = 1 - smoothstep(value["daylight"], 0.3, 0.6)
    pane = torch.lerp(rgb(canvas, 0.36, 0.46, 0.58), rgb(canvas, 1.0, 0.84, 0.40), lit[:, None])
    canvas.paint(pane, visible * canvas.box(cx - half * 0.62, cx - half * 0.12, foot - wall * 0.75, foot - wall * 0.3))
    canvas.paint(
        rgb(canvas, 0.40, 0.22, 0.14) * light,
        visible * canvas.box(cx + half * 0.2, cx + half * 0.62, foot - wall * 0.7, foot),
    )
