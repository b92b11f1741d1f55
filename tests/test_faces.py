"""Where the face is: against insightface's own alignment, and with its own detector."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from tiny_faces import write_detector, write_identity
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.face_detector import add_detector
from soundguide.faces import TEMPLATE, FaceAligner, affine_of, crop_faces
from soundguide.models.arcface import AlignmentConfig
from soundguide.models.checkpoint import load_model
from soundguide.models.fetch import file_sha256
from soundguide.models.manifest import DETECTOR_FILE
from soundguide.views import area_resize

Points = NDArray[np.float32]
# as a face lies in a picture of 128 px: turned a little, smaller than the template, and not quite of its shape
LANDMARKS = np.array([[40, 52], [70, 46], [58, 68], [48, 84], [74, 79]], np.float32)


def smooth_pictures(side: int, num: int = 1, seed: int = 0) -> Tensor:
    """Return pictures ``[num, 3, side, side]`` of a few soft waves, between -1 and 1."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 6, 6, generator=draw) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(-1, 1)


def as_bytes(image: Tensor) -> NDArray[np.uint8]:
    return ((image.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()


def places(affine: Tensor, points: Points, *, side: int) -> Points:
    """Return where points of the aligned face, in pixels of 112, lie in the picture, in its pixels."""
    inside = (2 * torch.from_numpy(points) + 1) / 112 - 1
    found = inside @ affine[:, :2].T + affine[:, 2]
    return (((found + 1) * side - 1) / 2).numpy()


def test_five_points_of_an_exact_turn_come_back() -> None:
    angle, scale, shift = 0.3, 0.45, np.array([20.0, 9.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    template = np.array(TEMPLATE, np.float32)
    landmarks = (template @ turn.T + shift).astype(np.float32)
    np.testing.assert_allclose(places(affine_of(landmarks, side=96), template, side=96), landmarks, atol=1e-3)


def test_affine_is_the_inverse_of_insightfaces() -> None:
    from insightface.utils.face_align import estimate_norm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # insightface calls scikit-image by an old name
        forward = estimate_norm(LANDMARKS, 112)  # from the picture to the aligned face
    corners = np.array([[0, 0], [111, 0], [111, 111], [0, 111], [30, 80]], np.float32)
    there = places(affine_of(LANDMARKS, side=128), corners, side=128)
    back = there @ forward[:, :2].T + forward[:, 2]
    np.testing.assert_allclose(back, corners, atol=1e-2)


def test_a_mirrored_face_is_turned_and_not_mirrored() -> None:
    affine = affine_of(LANDMARKS * np.array([-1, 1], np.float32) + np.array([128, 0], np.float32), side=128)
    assert torch.linalg.det(affine[:, :2]) > 0


def test_crop_is_that_of_insightface() -> None:
    from insightface.utils.face_align import norm_crop

    # no larger than the aligned face: where it shrinks, insightface leaves pixels out and we do not
    image, landmarks = smooth_pictures(112)[0], LANDMARKS * (112 / 128)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        expected = norm_crop(as_bytes(image), landmarks)
    ours = crop_faces(image[None], affine_of(landmarks, side=112)[None], size=112)[0]
    difference = np.abs(as_bytes(ours).astype(int) - expected.astype(int))
    shown = expected.max(2) > 0
    within = binary_erosion(shown, iterations=2) | binary_erosion(~shown, iterations=2, border_value=1)
    assert within.mean() > 0.9 and 0.1 < shown.mean() < 1
    assert difference[within].max() <= 3 and np.median(difference) <= 1  # it blends the edge with black, we do not


def test_a_fixed_crop_has_the_rows_and_columns_of_the_published_one() -> None:
    images = smooth_pictures(256, 2)
    affine = FaceAligner(AlignmentConfig(crop="ffhq"), Path()).locate(as_bytes(images[0]))
    assert affine is not None
    expected = area_resize(images[:, :, 35:223, 32:220], 112)
    torch.testing.assert_close(crop_faces(images, affine.expand(2, 2, 3), size=112), expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("side", [20, 32, 96])
def test_the_whole_picture_is_resampled_from_edge_to_edge(side: int) -> None:
    images = smooth_pictures(side, 2)
    affine = FaceAligner(AlignmentConfig(crop="whole"), Path()).locate(as_bytes(images[0]))
    assert affine is not None
    expected = area_resize(images, 32)
    if side < 32:
        expected = torch.nn.functional.interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
    crops = crop_faces(images, affine.expand(2, 2, 3), size=32)
    torch.testing.assert_close(crops, expected, rtol=0, atol=0.02 if side > 32 else 1e-5)


def test_a_shrunk_face_counts_every_pixel() -> None:
    image = (torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_()
    affine = affine_of(LANDMARKS * (224 / 128), side=224)
    (gradient,) = torch.autograd.grad(crop_faces(image, affine[None], size=32).sum(), image)
    assert gradient[:, :, 56:140, 56:140].abs().min() > 0


def test_crops_of_a_batch_are_those_of_its_rows_and_black_outside() -> None:
    images = smooth_pictures(48, 3)
    affines = torch.stack([affine_of(LANDMARKS * scale, side=48) for scale in (0.2, 0.375, 0.9)])
    together = crop_faces(images, affines, size=32)
    for index in range(3):
        alone = crop_faces(images[index : index + 1], affines[index : index + 1], size=32)
        assert torch.equal(together[index : index + 1], alone)
    assert (together[2] == -1).any() and (together[0] > -1).any()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a face encoder without a detector."""
    return write_identity(tmp_path / "identity")


def located(folder: Path, side: int = 128, *, light: float = 0.0) -> Tensor | None:
    config = load_model(folder, device="cpu").module.config.alignment
    return FaceAligner(config, folder).locate(np.full((side, side, 3), round(127.5 * (light + 1)), np.uint8))


def test_insightfaces_detector_finds_the_face(folder: Path, tmp_path: Path) -> None:
    add_detector(folder, write_detector(tmp_path / "det.onnx", LANDMARKS))
    for side in (128, 64):  # it looks at 128 px, whatever the picture's size
        found = located(folder, side)
        assert found is not None
        torch.testing.assert_close(found, affine_of(LANDMARKS * (side / 128), side=side), rtol=1e-4, atol=1e-4)


def test_no_face_is_said_so(folder: Path, tmp_path: Path) -> None:
    add_detector(folder, write_detector(tmp_path / "det.onnx", None))
    assert located(folder) is None
    add_detector(folder, write_detector(tmp_path / "det.onnx", LANDMARKS, in_bright_ones=True))
    assert located(folder, light=0.5) is not None and located(folder, light=-1.0) is None


def test_a_detector_that_was_exchanged_or_lost_is_refused(folder: Path, tmp_path: Path) -> None:
    add_detector(folder, write_detector(tmp_path / "det.onnx", LANDMARKS))
    sha256 = file_sha256(folder / DETECTOR_FILE)
    assert json.loads((folder / "config.json").read_text())["alignment"]["detector_sha256"] == sha256
    write_detector(folder / DETECTOR_FILE, None)
    with pytest.raises(InvalidCheckpoint, match=f"SHA-256 {sha256}, got"):
        located(folder)
    (folder / DETECTOR_FILE).unlink()
    with pytest.raises(InvalidCheckpoint, match="got no file"):
        located(folder)


def test_what_is_no_detector_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="9 or 15 outputs"):
        add_detector(folder, folder.with_suffix(".onnx"))
    (tmp_path / "config.json").write_text(
        json.dumps({"kind": "stylegan2", "package_version": "", "weights_sha256": "", "made_by": ""})
    )
    with pytest.raises(InvalidCheckpoint, match="expected a face encoder"):
        add_detector(tmp_path, write_detector(tmp_path / "det.onnx", None))
