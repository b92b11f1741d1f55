"""Where the face is: found once in the source picture, cut out the same way from the picture of every step (Eq. 18)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.onnx_file import read_onnx
from soundguide.models.arcface import AlignmentConfig
from soundguide.models.fetch import file_sha256
from soundguide.models.manifest import CONFIG_FILE, DETECTOR_FILE, read_config
from soundguide.storage import Storage

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
            self._detector = load_detector(folder / DETECTOR_FILE, config.detector_sha256)

    def locate(self, pixels: NDArray[np.uint8]) -> Tensor | None:
        """Return the ``affine`` ``[2, 3]`` of the face in a square picture ``[R, R, 3]``, RGB; None where it has none.

        Where it has several: a large one near the middle, as insightface chooses.
        """
        if self._detector is None:
            left, right, top, bottom = self._box
            return torch.tensor([[right - left, 0, left + right - 1], [0, bottom - top, top + bottom - 1]])
        _, landmarks = self._detector.detect(np.ascontiguousarray(pixels[:, :, ::-1]), max_num=1)  # BGR
        return None if len(landmarks) == 0 else affine_of(landmarks[0], side=len(pixels))


def load_detector(path: Path, sha256: str) -> SCRFD:
    """Return insightface's detector with the weights in an ONNX file, on the CPU.

    Raises `InvalidCheckpoint` for another file than that of ``sha256``, one that does not stand alone (`read_onnx`), or
    one that gives no landmarks.
    """
    if (found := file_sha256(path)) != sha256:
        raise InvalidCheckpoint(
            f"{path}: expected the face detector of SHA-256 {sha256}, got {found or 'no file'}. Copy the model again."
        )
    check_detector(path)
    try:
        import onnxruntime
        from insightface.model_zoo.scrfd import SCRFD
    except ImportError as error:
        raise ImportError(
            "face detection needs the package insightface. Install the extra: pip install 'soundguide[identity]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # one picture per edit: let others work
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return SCRFD(model_file=str(path), session=session)


def check_detector(path: Path) -> None:
    """Raise `InvalidCheckpoint` unless an ONNX file stands alone and has the outputs of SCRFD with landmarks.

    For each of three or five scales: scores, boxes, landmarks.
    """
    outputs = read_onnx(path).graph.output
    if len(outputs) not in (9, 15):
        raise InvalidCheckpoint(
            f"{path}: expected 9 or 15 outputs, scores, boxes and landmarks of each scale, got {len(outputs)}. Use a "
            "detector of insightface with landmarks, such as det_10g.onnx."
        )


def add_detector(folder: Path, detector: Path) -> None:
    """Put a face detector, an ONNX file, into the folder of a face encoder, which uses it from then on.

    Raises `InvalidCheckpoint` where the folder holds no face encoder, or the file is no detector (`check_detector`).
    """
    config = read_config(folder)
    if not isinstance(config.get("alignment"), dict):
        raise InvalidCheckpoint(f"{folder}: of kind {config['kind']!r}, expected a face encoder. Name such a folder.")
    check_detector(detector)
    storage = Storage()
    storage.write_bytes(str(folder / DETECTOR_FILE), detector.read_bytes())
    config["alignment"]["detector_sha256"] = file_sha256(folder / DETECTOR_FILE)
    storage.write_bytes(str(folder / CONFIG_FILE), json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n")


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
