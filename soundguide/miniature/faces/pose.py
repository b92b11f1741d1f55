"""What an expression does to a face: the position of lids, brows, mouth and head, from the six intensities."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from soundguide.miniature.faces.labels import LABELS


@dataclass(frozen=True, slots=True)
class Pose:
    """The movable parts of faces, each ``[B, 1, 1]``; lengths in picture widths, angles in radians.

    ``lid_up``, ``lid_low``: how far the lids stand from where they meet, in eye heights; ``arc``: curvature of the
    line where they meet, above 0 like a roof; ``scrunch`` 0..1: eyes screwed up. ``brow_tilt``: inner ends up.
    ``mouth_curve``: corners up; ``open_up``, ``open_low``: lips from that curve.
    """

    lid_up: Tensor
    lid_low: Tensor
    arc: Tensor
    scrunch: Tensor
    pupil: Tensor
    eye_red: Tensor
    brow_raise: Tensor
    brow_tilt: Tensor
    mouth_x: Tensor
    mouth_y: Tensor
    mouth_width: Tensor
    mouth_curve: Tensor
    open_up: Tensor
    open_low: Tensor
    teeth: Tensor
    tongue: Tensor
    blush: Tensor
    nose_red: Tensor
    cheek: Tensor
    jaw_drop: Tensor
    tilt: Tensor

    def rows(self, rows: Tensor) -> Pose:
        """Return the poses of some faces."""
        return Pose(*(getattr(self, field.name)[rows] for field in fields(self)))


#            neutral  giggle   sob     cough   sneeze  scream  yawn
_TABLE: dict[str, tuple[float, ...]] = {
    "lid_up": (0.80, 0.16, 0.50, 0.00, 0.00, 1.22, 0.26),
    "lid_low": (0.84, 0.00, 0.60, 0.00, 0.00, 1.12, 0.60),
    "arc": (0.00, 0.85, -0.10, -0.50, 0.00, 0.00, -0.20),
    "scrunch": (0.00, 0.00, 0.00, 0.00, 1.00, 0.00, 0.00),
    "pupil": (1.00, 1.00, 1.00, 1.00, 1.00, 0.62, 1.00),
    "eye_red": (0.00, 0.00, 1.00, 0.00, 0.00, 0.00, 0.00),
    "brow_raise": (0.000, 0.016, 0.012, -0.018, -0.022, 0.034, 0.024),
    "brow_tilt": (0.000, 0.000, 0.040, -0.022, -0.034, 0.012, 0.012),
    "mouth_x": (0.000, 0.000, 0.000, -0.040, 0.000, 0.000, 0.000),
    "mouth_y": (0.715, 0.695, 0.730, 0.705, 0.715, 0.715, 0.725),
    "mouth_width": (0.066, 0.120, 0.088, 0.048, 0.092, 0.108, 0.064),
    "mouth_curve": (0.018, 0.050, -0.064, 0.000, -0.034, -0.012, 0.000),
    "open_up": (0.000, 0.000, 0.004, 0.036, 0.034, 0.066, 0.080),
    "open_low": (0.000, 0.092, 0.022, 0.046, 0.058, 0.112, 0.104),
    "teeth": (0.00, 1.00, 0.00, 0.00, 1.00, 1.00, 0.00),
    "tongue": (0.00, 0.80, 0.00, 0.30, 0.90, 1.00, 0.60),
    "blush": (0.30, 1.00, 0.55, 0.80, 0.35, 0.20, 0.25),
    "nose_red": (0.00, 0.00, 0.60, 0.00, 1.00, 0.00, 0.00),
    "cheek": (0.00, 1.00, 0.00, 0.00, 0.50, 0.00, 0.00),
    "jaw_drop": (0.000, 0.006, 0.000, 0.000, 0.000, 0.016, 0.024),
    "tilt": (0.000, -0.030, 0.035, -0.045, 0.000, 0.000, 0.085),
}


def pose_of(intensities: Tensor) -> Pose:
    """Return the pose of intensities ``[B, 6]`` in [0, 1].

    An expression moves each part its share of the way from the neutral face; several together share one face.
    """
    shares = intensities / intensities.sum(1, keepdim=True).clamp_min(1)  # [B, 6]
    table = intensities.new_tensor([_TABLE[field.name] for field in fields(Pose)])  # [P, 7]
    assert table.shape[1] == 1 + len(LABELS)
    moved = table[:, 0] + shares @ (table[:, 1:] - table[:, :1]).T  # [B, P]
    return Pose(*(column[:, None, None] for column in torch.unbind(moved, 1)))
