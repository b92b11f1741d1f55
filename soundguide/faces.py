"""Where the face is: found once in the source picture, cut out the same way from the picture of every step (Eq. 18)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from soundguide.face_detector import load_detector
from soundguide.models.arcface import AlignmentConfig
from soundguide.models.manifest import DETECTOR_FILE

if TYPE_CHECKING:
    from insightface.model_zoo.scrfd import SCRFD

NO_FACE = "no face was found in the source picture: its identity was neither kept nor measured"

# Eyes, nose and corners of the mouth, x and y in pixels, in the 112 px pictures that ArcFace networks are trained on
# (Deng et al. 2019; the numbers are those of insightface)
TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
TEMPLATE_SIZE = 112

# Left, right, top and bottom of the face, as shares of a picture that is aligned like FFHQ: columns 32 to 220 and rows
# 35 to 223 of 256, as StyleCLIP and the inversion encoders cut it
FFHQ_BOX = (32 / 256, 220 / 256, 35 / 256, 223 / 256)
WHOLE_BOX = (0.0, 1.0, 0.0, 1.0)

BLACK = -1.0


@dataclass(frozen=True, slots=True)
class Face:
    """Who is in a picture, and where.

    ``identity`` ``[E]``, unit norm. ``affine`` ``[2, 3]`` takes a place in the aligned face to its place in the
    picture, both in [-1, 1] from edge to edge, x first.
    """

    identity: Tensor
    affine: Tensor


class FaceAligner:
    """Finds the face in pictures, as an identity encoder's config says.

    ``folder``: the encoder's, where its detector lies (SCRFD of insightface, in ONNX). Without one the face is always
    at the same place. Raises `InvalidCheckpoint` for a detector that is missing, altered, or no such network.
    """

    def __init__(self, config: AlignmentConfig, folder: Path) -> None:
        self._box = FFHQ_BOX if config.crop == "ffhq" else WHOLE_BOX
        self._detector: SCRFD | None = None
        if config.detector_sha256:
            path, num_threads = folder / DETECTOR_FILE, torch.get_num_threads()
            self._detector = load_detector(path, config.detector_sha256, num_threads=num_threads)

    def locate(self, pixels: NDArray[np.uint8]) -> Tensor | None:
        """Return the ``affine`` ``[2, 3]`` of the face in a square picture ``[R, R, 3]``, RGB; None where it has none.

        Where it has several: a large one near the middle, as insightface chooses.
        """
        if self._detector is None:
            left, right, top, bottom = self._box
            return torch.tensor([[right - left, 0, left + right - 1], [0, bottom - top, top + bottom - 1]])
        _, landmarks = self._detector.detect(np.ascontiguousarray(pixels[:, :, ::-1]), max_num=1)  # BGR
        return None if len(landmarks) == 0 else affine_of(landmarks[0], side=len(pixels))


def affine_of(landmarks: NDArray[np.float32], *, side: int) -> Tensor:
    """Return the ``affine`` ``[2, 3]`` of a face by its five points ``[5, 2]``, x and y in pixels of ``side``.

    The inverse of the similarity (turn, one scale, shift) that brings them nearest to `TEMPLATE`, by least squares:
    Umeyama 1991, Eq. 40-42. Centres of pixels are whole numbers, as in insightface.
    """
    points, template = landmarks.astype(np.float64), np.array(TEMPLATE)
    from_points, from_template = points - points.mean(0), template - template.mean(0)
    u, spread, vt = np.linalg.svd(from_points.T @ from_template)
    mirror = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])  # a face is turned, never mirrored
    turn = (u * mirror) @ vt * (np.square(from_points).sum() / (spread * mirror).sum())
    shift = points.mean(0) - turn @ template.mean(0)
    # from pixels to [-1, 1] from edge to edge
    middle = turn @ np.full(2, (TEMPLATE_SIZE - 1) / 2) + shift
    affine = np.concatenate([turn * TEMPLATE_SIZE / side, ((2 * middle + 1) / side - 1)[:, None]], 1)
    return torch.from_numpy(affine).float()


def crop_faces(images: Tensor, affines: Tensor, *, size: int) -> Tensor:
    """Cut the faces at ``affines`` ``[B, 2, 3]`` out of pictures ``[B, 3, H, W]``, which are in [-1, 1].

    Returns ``[B, 3, size, size]``, black outside of the pictures, differentiable in them. Each pixel is the mean of so
    many places, bilinear, that none of the picture's is left out where it shrinks; how many follows from the sizes
    alone, so that no row depends on another.
    """
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    places = max(1, math.ceil(max(images.shape[2:]) / size))
    shape = [len(images), 3, places * size, places * size]
    with torch.autocast(images.device.type, enabled=False):
        grid = F.affine_grid(affines.to(images), shape, align_corners=False)
        faces = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        inside = (grid.abs() <= 1).all(3)[:, None]
        return F.avg_pool2d(torch.where(inside, faces, BLACK), places)
