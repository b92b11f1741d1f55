"""A painted landscape world whose every factor is known: the training data and the ground truth of the miniature.

A scene is a vector of ``NUM_FACTORS`` numbers in [0, 1]: first the continuous factors (daylight, clouds, trees ...),
then the intensities of the events, then those of the music styles, each 0 where it is absent. Factors are functions
of the normalised latent ``z``, so that a seed is a scene; ``render`` paints factors in any resolution, as a pure
function.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from soundguide.miniature.labels import LABELS
from soundguide.miniature.latents import Latents
from soundguide.miniature.scene_events import (
    AFFECTS,
    FRONT_EVENTS,
    LAND_EVENTS,
    SKY_EVENTS,
    Painter,
    daylight_after_events,
)
from soundguide.miniature.scene_grades import GRADES
from soundguide.miniature.scene_landscape import paint_ground, paint_house, paint_mountains, paint_sky, paint_trees
from soundguide.miniature.shapes import Canvas

CONTINUOUS = ("daylight", "sun", "clouds", "mountains", "ridge", "trees", "season", "house", "haze")
"""Names of the continuous factors, in order."""

LAYOUT = ("mountains", "ridge", "trees", "house")
"""Those that say where what stands: no sound speaks of them."""

NUM_FACTORS = len(CONTINUOUS) + len(LABELS)
PRESENT = 0.5
"""An event counts as present from this intensity on."""

# an event is in 8 % of random scenes, and at full strength in 2 %
LATENTS = Latents(len(CONTINUOUS), len(LABELS), threshold=1.4, span=0.6, crowd=1.3)


@dataclass(frozen=True, slots=True)
class Rendered:
    """``images``: ``[B, 3, R, R]`` in [-1, 1]; ``event_mask``: ``[B, 1, R, R]`` in [0, 1], where events are visible."""

    images: Tensor
    event_mask: Tensor


def factors_from_z(z: Tensor) -> Tensor:
    """Return the factors ``[B, NUM_FACTORS]`` of latents ``z`` ``[B, Z_DIM]``, as functions of the normalised ``z``."""
    return LATENTS.factors(z)


def sample_z(num: int, generator: torch.Generator, *, crowded: bool = False) -> Tensor:
    """Draw latents ``[num, Z_DIM]``; ``crowded`` pushes an event or two up, so that all are seen often."""
    return LATENTS.sample(num, generator, crowded=crowded)


def visible_factors(factors: Tensor) -> Tensor:
    """Return the continuous factors as a picture shows them ``[B, 9]``: daylight is what events have left of it."""
    value = {name: factors[:, i] for i, name in enumerate((*CONTINUOUS, *LABELS))}
    return torch.cat([daylight_after_events(value)[:, None], factors[:, 1 : len(CONTINUOUS)]], 1)


def spoken_of(label: str) -> frozenset[str]:
    """Return the continuous factors that a sound of ``label`` speaks of, and so may change."""
    return AFFECTS.get(label, frozenset())


def render(factors: Tensor, resolution: int) -> Rendered:
    """Paint scenes.

    ``factors``: ``[B, NUM_FACTORS]`` in [0, 1]. Layers go from the sky to the foreground, then water and glass in
    front of all, then the music's grade over the whole picture.
    """
    value = {name: factors[:, i, None, None] for i, name in enumerate((*CONTINUOUS, *LABELS))}
    value["daylight"] = daylight_after_events(value)
    canvas = Canvas.blank(len(factors), resolution, factors.device)
    paint_sky(canvas, value)
    _paint_events(canvas, value, SKY_EVENTS)
    paint_mountains(canvas, value)
    paint_ground(canvas, value)
    _paint_events(canvas, value, LAND_EVENTS)
    paint_trees(canvas, value)
    paint_house(canvas, value)
    _paint_events(canvas, value, FRONT_EVENTS)
    for label, grade in GRADES.items():
        rows = torch.nonzero(value[label].flatten()).flatten()
        if len(rows):
            canvas.image[rows] = torch.lerp(canvas.image[rows], grade(canvas.rows(rows)), value[label][rows][:, None])
    return Rendered(canvas.image.clamp(0, 1) * 2 - 1, canvas.mask[:, None])


def _paint_events(canvas: Canvas, value: dict[str, Tensor], painters: dict[str, Painter]) -> None:
    for label, paint in painters.items():
        rows = torch.nonzero(
            value[label].flatten()
        ).flatten()  # most scenes lack most events: paint only where it shows
        if len(rows):
            part = canvas.rows(rows)
            paint(part, value[label][rows], {name: tensor[rows] for name, tensor in value.items()})
            canvas.image[rows], canvas.mask[rows] = part.image, part.mask
