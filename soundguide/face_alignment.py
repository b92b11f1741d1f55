"""Photos of faces, laid as the pictures lie that a generator of faces was trained on: the square of FFHQ.

FFHQ (Karras et al. 2019) turns and scales each photo by its eyes and mouth. There they are means of 68 landmarks; here
they are the five points of insightface's detectors, which lie a few thousandths of the picture's side from those.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from soundguide.images import Pixels, fit

if TYPE_CHECKING:
    from insightface.model_zoo.scrfd import SCRFD

ALIGNED_WITHIN = 0.05  # of the side: what of its corners a detector may have wrong in a picture that is aligned
DETECTED_SIDE = 1280  # a photo of so many times this is first shrunk so many times: detectors leave pixels out
FARTHEST = 8  # times the photo's longer side: points so far from each other are no face, and would cost memory
_EDGE = 2  # pixels around the square that bicubic interpolation looks at

Points = NDArray[np.float64]
"""``[N, 2]``, x and y in pixels from the top left corner of the picture: the centre of its first pixel is at 0.5."""


def align_face(photo: Image.Image, detector: SCRFD, *, side: int) -> Pixels | None:
    """Return the FFHQ square ``[side, side, 3]`` around the largest face of a photo; None where there is no face.

    A photo that is aligned already is only resized, as if nobody had looked.
    """
    points = find_points(photo, detector)
    square = None if points is None else ffhq_square(points)
    if square is None or np.abs(square).max() > FARTHEST * max(photo.size):
        return None
    if is_frame(square, *photo.size):
        return fit(photo, height=side, width=side)
    return cut_square(photo, square, side=side)


def find_points(photo: Image.Image, detector: SCRFD) -> Points | None:
    """Return the eyes, the nose and the corners of the mouth, ``[5, 2]``, of the largest face; None without one."""
    share = max(1, max(photo.size) // DETECTED_SIDE)
    seen = np.asarray(photo.reduce(share) if share > 1 else photo)
    _, found = detector.detect(np.ascontiguousarray(seen[:, :, ::-1]), max_num=1, metric="max")  # BGR
    if len(found) == 0 or not np.isfinite(found[0]).all():
        return None
    centres: Points = found[0].astype(np.float64) + 0.5  # the detector counts from the centre of the first pixel
    return centres * share


def ffhq_square(points: Points) -> Points | None:
    """Return the corners ``[4, 2]`` of the square in which FFHQ shows a face of five points ``[5, 2]``.

    Top left, bottom left, bottom right, top right, of the upright face. Its side is four times the distance of the
    eyes, or 3.6 times that from eyes to mouth where this is more: faces in profile have near eyes. Its middle lies a
    tenth of the way from the eyes to the mouth. None where the points fall together, which is no face.
    """
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    between_eyes, to_mouth = points[1] - points[0], mouth - eyes
    across = between_eyes + _turned(to_mouth, quarters=-1)
    length = float(np.hypot(*across))
    half = max(2.0 * float(np.hypot(*between_eyes)), 1.8 * float(np.hypot(*to_mouth)))
    if length < 1e-6 * half or half < 1:
        return None
    across *= half / length
    down = _turned(across, quarters=1)
    middle = eyes + 0.1 * to_mouth
    return np.stack([middle - across - down, middle - across + down, middle + across + down, middle + across - down])


def is_frame(square: Points, width: int, height: int) -> bool:
    """Say whether a square is the frame of a picture, but for `ALIGNED_WITHIN`: it is aligned already."""
    frame = np.array([[0, 0], [0, height], [width, height], [width, 0]])
    return bool(np.hypot(*(square - frame).T).max() <= ALIGNED_WITHIN * max(width, height))


def cut_square(photo: Image.Image, square: Points, *, side: int) -> Pixels:
    """Cut a square ``[4, 2]`` out of a photo, turned upright, ``[side, side, 3]``; outside, the photo is mirrored.

    No pixel in it is left out: the photo is shrunk by means of whole blocks, sampled at least once per pixel of what
    remains (bicubic), and brought to the size by Lanczos. What this costs follows from ``side`` alone.
    """
    edge = float(np.hypot(*(square[3] - square[0])))
    share = max(1, int(edge / side / 2))
    if share > 1:
        photo, square, edge = photo.reduce(share), square / share, edge / share
    first = np.floor(square.min(0)).astype(int) - _EDGE
    last = np.ceil(square.max(0)).astype(int) + _EDGE
    columns, rows = (_mirrored(np.arange(first[axis], last[axis]), photo.size[axis]) for axis in (0, 1))
    left, top = int(columns.min()), int(rows.min())
    part = np.asarray(photo.crop((left, top, int(columns.max()) + 1, int(rows.max()) + 1)))
    around = Image.fromarray(part[rows[:, None] - top, columns - left])
    corner, samples = square[0] - first, side * max(1, math.ceil(edge / side))
    (ax, ay), (dx, dy) = (square[3] - square[0]) / samples, (square[1] - square[0]) / samples
    matrix = (ax, dx, corner[0], ay, dy, corner[1])
    upright = around.transform((samples, samples), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.array(upright.resize((side, side), Image.Resampling.LANCZOS), dtype=np.uint8)


def _turned(vector: NDArray[np.float64], *, quarters: int) -> NDArray[np.float64]:
    """Turn ``[2]`` by a quarter, clockwise on the screen for 1 and back for -1."""
    return quarters * np.array([-vector[1], vector[0]])


def _mirrored(places: NDArray[np.int_], length: int) -> NDArray[np.int_]:
    """Return where pixels at any ``places`` lie in a row of ``length`` that is mirrored at its first and last one."""
    folded = places % max(2 * length - 2, 1)
    return np.minimum(folded, 2 * length - 2 - folded)
