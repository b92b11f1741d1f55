"""A world of cartoon faces whose every factor is known: who it is, and what the face expresses.

A face is a vector of ``NUM_FACTORS`` numbers in [0, 1]: first who it is (`CONTINUOUS`: the head, hair, glasses ...),
then the intensities of the expressions, 0 where they are absent. Factors are functions of the normalised latent
``z``, so that a seed is a person; ``render`` paints them in any resolution, as a pure function.
"""

from __future__ import annotations

import torch
from torch import Tensor

from soundguide.miniature.faces import body, features, gestures, hair
from soundguide.miniature.faces.labels import LABELS
from soundguide.miniature.faces.portrait import Layer, Portrait, baldness, greyness
from soundguide.miniature.faces.pose import pose_of
from soundguide.miniature.latents import Latents
from soundguide.miniature.scenes import Rendered
from soundguide.miniature.shapes import Canvas, smoothstep

CONTINUOUS = (
    "width",
    "jaw",
    "skin",
    "hair colour",
    "hair length",
    "hair style",
    "baldness",
    "age",
    "glasses",
    "beard",
    "eye colour",
    "eye spacing",
    "nose",
    "brows",
    "background",
    "clothes",
)
"""Names of the continuous factors, in order."""

IDENTITY = CONTINUOUS[:-2]
"""Those that make a person; wall and clothes do not."""

HAIR = ("hair colour", "hair length", "hair style", "baldness")
"""Those of them that are about hair."""

CLOSED_EYES = frozenset({"giggling", "coughing", "sneezing"})
"""Expressions that hide the colour of the eyes."""

NUM_FACTORS = len(CONTINUOUS) + len(LABELS)

# an expression is on 5 % of random faces, and at full strength on 1 %
LATENTS = Latents(len(CONTINUOUS), len(LABELS), threshold=1.6, span=0.6, crowd=1.0)

LAYERS = (
    Layer(hair.paint_hair_behind, needs="hair length", above=0.22),
    Layer(body.paint_shoulders, (0.0, 1.0, 0.65, 1.0)),
    Layer(body.paint_head, (0.10, 0.90, 0.05, 0.96)),
    Layer(body.paint_wrinkles, (0.2, 0.8, 0.24, 0.74), "age", 0.45),
    Layer(hair.paint_beard, (0.08, 0.92, 0.46, 1.0), "beard", 0.52),
    Layer(features.paint_mouth, (0.30, 0.72, 0.56, 0.90)),
    Layer(features.paint_nose, (0.36, 0.66, 0.40, 0.70)),
    Layer(features.paint_eyes, (0.22, 0.80, 0.32, 0.64)),
    Layer(hair.paint_hair, (0.05, 0.97, 0.0, 0.66)),
    Layer(features.paint_brows, (0.18, 0.84, 0.22, 0.50)),
    Layer(gestures.paint_tears, (0.18, 0.84, 0.46, 0.92), "sobbing"),
    Layer(features.paint_glasses, (0.10, 0.92, 0.32, 0.66), "glasses", 0.55),
    Layer(gestures.paint_puff, (0.0, 0.45, 0.50, 0.98), "coughing"),
    Layer(gestures.paint_drops, (0.0, 1.0, 0.55, 1.0), "sneezing"),
    Layer(gestures.paint_fist, (0.15, 0.70, 0.62, 1.0), "coughing"),
    Layer(gestures.paint_palm, (0.44, 1.0, 0.60, 1.0), "yawning"),
)
"""What a face is painted of, from behind to the front."""


def visible_factors(factors: Tensor) -> Tensor:
    """Return the continuous factors as a picture shows them ``[B, 16]``: glasses that are not worn are all the same."""
    shown = factors[:, : len(CONTINUOUS)].clone()
    value = dict(zip(CONTINUOUS, shown.unbind(1), strict=True))
    bald, grey = baldness(value["baldness"]), greyness(value["age"])
    changed = {
        "glasses": smoothstep(value["glasses"], 0.55, 0.66),
        "beard": (value["beard"] - 0.52).clamp_min(0) / 0.48,
        "age": (value["age"] - 0.45).clamp_min(0) / 0.55,
        "baldness": bald,
        "hair length": (value["hair length"] - 0.22).clamp_min(0) / 0.78 * (1 - bald),
        "hair style": torch.lerp(value["hair style"], torch.full_like(bald, 0.5), bald),
        "hair colour": torch.lerp(value["hair colour"], torch.full_like(grey, 0.5), grey),
    }
    for name, column in changed.items():
        shown[:, CONTINUOUS.index(name)] = column
    return shown


def spoken_of(label: str) -> frozenset[str]:
    """Return the continuous factors that a voice of ``label`` speaks of: all brows move, and closed lids hide eyes."""
    return frozenset({"brows", "eye colour"}) if label in CLOSED_EYES else frozenset({"brows"})


def render(factors: Tensor, resolution: int) -> Rendered:
    """Paint faces.

    ``factors``: ``[B, NUM_FACTORS]`` in [0, 1]. The mask of a picture is where a face speaks (eyes, brows, mouth) and
    all that an expression brings into it.
    """
    value = {name: factors[:, i, None, None] for i, name in enumerate((*CONTINUOUS, *LABELS))}
    canvas = Canvas.blank(len(factors), resolution, factors.device)
    body.paint_wall(canvas, value["background"])
    portrait = Portrait.begin(canvas, value, pose_of(factors[:, len(CONTINUOUS) :]))
    for layer in LAYERS:
        portrait.paint(layer)
    return Rendered(canvas.image.clamp(0, 1) * 2 - 1, canvas.mask[:, None])
