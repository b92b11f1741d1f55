"""A portrait in the making: canvas, factors, pose and colours, and the outline of the head that many painters need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from soundguide.miniature.faces import palette
from soundguide.miniature.faces.palette import Rgb
from soundguide.miniature.faces.pose import Pose
from soundguide.miniature.shapes import Canvas, smoothstep

CENTRE_X, EYE_Y = 0.5, 0.475
HEAD_Y = 0.50  # where the head is widest
SKULL, CHIN = 0.365, 0.365  # heights above and below it
NECK = (0.5, 0.95)  # about which the head tilts


def baldness(factor: Tensor) -> Tensor:
    """Return how far the hair has receded, 0..1."""
    return smoothstep(factor, 0.55, 1.0)


def greyness(age: Tensor) -> Tensor:
    """Return how grey the hair is, 0..1."""
    return smoothstep(age, 0.62, 0.95)


@dataclass(slots=True)
class Portrait:
    """Faces being painted.

    ``canvas``: its coordinates lean with the head; ``value``: each factor ``[B, 1, 1]``; ``skin``, ``hair``:
    ``[B, 3, 1, 1]``; ``half_width`` of the head and ``bald``, 0..1: ``[B, 1, 1]``; ``outline``: distance to the head
    ``[B, H, W]``, negative inside; ``light``: 0 in shadow to 1, ``[B, H, W]``.
    """

    canvas: Canvas
    value: dict[str, Tensor]
    pose: Pose
    skin: Tensor
    hair: Tensor
    half_width: Tensor
    bald: Tensor
    outline: Tensor
    light: Tensor

    @classmethod
    def begin(cls, canvas: Canvas, value: dict[str, Tensor], pose: Pose) -> Portrait:
        """Return portraits of factors ``value`` on an upright ``canvas``; its coordinates are turned with the heads."""
        canvas.x, canvas.y = _turned(canvas, pose.tilt)
        grey = greyness(value["age"])[:, None]
        hair = torch.lerp(palette.ramp(value["hair colour"], palette.HAIR), palette.tone(grey, palette.GREY), grey)
        half_width = 0.252 + 0.072 * value["width"]
        outline = _head(canvas, value["jaw"], half_width, CHIN + pose.jaw_drop)
        toward = (CENTRE_X - canvas.x) * 1.5 + (HEAD_Y - 0.06 - canvas.y)  # from the upper left
        light = smoothstep(toward, -0.55, 0.45)
        bald = baldness(value["baldness"])
        skin = palette.ramp(value["skin"], palette.SKIN)
        return cls(canvas, value, pose, skin, hair, half_width, bald, outline, light)

    @property
    def eye_x(self) -> Tensor:
        """How far each eye stands from the middle, ``[B, 1, 1]``."""
        return 0.106 + 0.036 * self.value["eye spacing"]

    def lit(self, colour: Tensor, *, depth: float = 0.24) -> Tensor:
        """Return a colour ``[B, 3, 1, 1]`` under the light that falls on a round head, ``[B, 3, H, W]``."""
        shadow = colour * (1 - depth) * palette.tone(colour, (1.0, 0.90, 0.86))
        return torch.lerp(shadow, colour * (1 + 0.3 * depth), self.light[:, None])

    def tinted(self, rgb: Rgb) -> Tensor:
        """Return the skin's colour times ``rgb``, ``[B, 3, 1, 1]``."""
        return self.skin * palette.tone(self.skin, rgb)

    def paint(self, layer: Layer) -> None:
        """Paint one layer, on its part of the picture and on the faces that have it alone."""
        side = self.canvas.image.shape[2]
        left, right, top, bottom = layer.box
        down = slice(max(0, int(top * side)), min(side, int(bottom * side) + 1))
        across = slice(max(0, int(left * side)), min(side, int(right * side) + 1))
        rows = torch.arange(len(self.skin), device=self.skin.device)
        if layer.needs:
            rows = torch.nonzero(self.value[layer.needs].flatten() > layer.above).flatten()
        if len(rows):
            part = self._part(rows, down, across)
            layer.paint(part)
            self.canvas.image[rows, :, down, across] = part.canvas.image
            self.canvas.mask[rows, down, across] = part.canvas.mask

    def _part(self, rows: Tensor, down: slice, across: slice) -> Portrait:
        """Return copies of some faces, cut to a box."""

        def cut(field: Tensor) -> Tensor:
            return field[..., down, across][rows]

        whole = self.canvas
        return Portrait(
            Canvas(cut(whole.image), cut(whole.mask), cut(whole.x), cut(whole.y), whole.pixel),
            {name: factor[rows] for name, factor in self.value.items()},
            self.pose.rows(rows),
            self.skin[rows],
            self.hair[rows],
            self.half_width[rows],
            self.bald[rows],
            cut(self.outline),
            cut(self.light),
        )


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing to paint: inside of ``box`` (left, right, top, bottom), where the factor ``needs`` is ``above``."""

    paint: Callable[[Portrait], None]
    box: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)
    needs: str = ""
    above: float = 0.0


def _turned(canvas: Canvas, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coordinates ``[B, H, W]`` of a head that is tilted by ``angle`` ``[B, 1, 1]``."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    dx, dy = canvas.x - NECK[0], canvas.y - NECK[1]
    return NECK[0] + cos * dx + sin * dy, NECK[1] - sin * dx + cos * dy


def _head(canvas: Canvas, jaw: Tensor, half_width: Tensor, chin: Tensor) -> Tensor:
    """Return the distance to the head: a round skull above, and below all from a pointed chin to a square one."""
    across = ((canvas.x - CENTRE_X).abs() / half_width).clamp_min(1e-4)
    down = canvas.y - HEAD_Y
    above = (across**2.2 + (-down / SKULL).clamp_min(1e-4) ** 2.2) ** (1 / 2.2)
    power = 1.62 + 1.3 * jaw
    below = (across**power + (down / chin).clamp_min(1e-4) ** power) ** (1 / power)
    return (torch.where(down > 0, below, above) - 1) * half_width
