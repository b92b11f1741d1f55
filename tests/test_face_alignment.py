"""The square of FFHQ around a face: its formula, how it is cut out, and what a detector says of a whole photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dotted_faces import IN_FFHQ, apply, dots_in, dotted_photo, similarity, write_dot_detector
from numpy.typing import NDArray
from PIL import Image
from tiny_faces import write_detector

from soundguide.face_alignment import align_face, cut_square, ffhq_square, find_points, is_frame
from soundguide.face_detector import load_detector
from soundguide.images import fit
from soundguide.models.fetch import file_sha256

Points = NDArray[np.float64]

# Where insightface's points lie in pictures of FFHQ of 512 px, on average: as face restorers publish it to align by
MEAN_FFHQ = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.1512],
    ]
)


def square_of(points: Points) -> Points:
    square = ffhq_square(points)
    assert square is not None
    return square


def frame(left: float, top: float, side: float) -> Points:
    return np.array([[left, top], [left, top + side], [left + side, top + side], [left + side, top]])


def waves(height: int, width: int) -> Image.Image:
    coarse = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


# the formula


def test_near_eyes_and_far_mouth_by_hand() -> None:
    face = np.array([[40, 50], [60, 50], [50, 60], [42, 72], [58, 72]], np.float64)
    # eyes 20 apart: half a side of 40, more than 1.8 x 22; the middle 2.2 below the eyes
    np.testing.assert_allclose(square_of(face), frame(10, 12.2, 80), atol=1e-9)
    profile = np.array([[47, 50], [53, 50], [44, 60], [49, 72], [51, 72]], np.float64)
    np.testing.assert_allclose(square_of(profile), frame(50 - 39.6, 52.2 - 39.6, 79.2), atol=1e-9)


def test_the_mean_face_of_ffhq_has_the_whole_picture_for_its_square() -> None:
    square = square_of(MEAN_FFHQ)
    assert np.abs(square - frame(0, 0, 512)).max() < 0.02 * 512
    assert is_frame(square, 512, 512)


@pytest.mark.parametrize("degrees", [0, 25, 90, 180, -70])
def test_the_square_turns_grows_and_moves_with_the_face(degrees: float) -> None:
    there = similarity(degrees=degrees, side=3.1, middle=(7, -4))
    np.testing.assert_allclose(square_of(apply(there, MEAN_FFHQ)), apply(there, square_of(MEAN_FFHQ)), atol=1e-6)


def test_a_skewed_face_is_still_given_a_square() -> None:
    tilted = MEAN_FFHQ + np.array([[0, 0], [0, 40], [0, 0], [-60, 0], [-60, 0]])
    sides = np.diff(square_of(tilted), axis=0, append=square_of(tilted)[:1])
    lengths = np.hypot(*sides.T)
    np.testing.assert_allclose(lengths, lengths[0])
    np.testing.assert_allclose((sides * np.roll(sides, 1, 0)).sum(1), 0, atol=1e-6)


def test_points_that_fall_together_are_no_face() -> None:
    assert ffhq_square(np.full((5, 2), 30.0)) is None


@pytest.mark.parametrize(("moved", "aligned"), [(0.03, True), (0.08, False)])
def test_a_picture_is_aligned_when_its_square_is_nearly_its_frame(moved: float, aligned: bool) -> None:
    assert is_frame(frame(0, 0, 200) + [200 * moved, 0], 200, 200) == aligned
    assert is_frame(frame(0, 0, 200) * (1 + moved), 200, 200) == aligned
    assert not is_frame(frame(0, 0, 200), 300, 200)
    assert not is_frame(np.roll(frame(0, 0, 200), 1, axis=0), 200, 200)  # a face that lies on its side


# cutting


def test_whole_pixels_are_taken_as_they_are() -> None:
    image = waves(60, 90)
    pixels = np.asarray(image)
    np.testing.assert_array_equal(cut_square(image, frame(21, 7, 40), side=40), pixels[7:47, 21:61])
    sideways = np.roll(frame(21, 7, 40), -1, axis=0)  # its top left corner is below on the left: lying on the left ear
    np.testing.assert_array_equal(cut_square(image, sideways, side=40), np.rot90(pixels[7:47, 21:61], -1))


def test_outside_the_photo_is_its_mirror_image() -> None:
    image = waves(50, 60)
    mirrored = np.pad(np.asarray(image), ((30, 70), (40, 70), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(cut_square(image, frame(-40, -30, 150), side=150), mirrored[:150, :150])
    np.testing.assert_array_equal(cut_square(image, frame(30, 20, 100), side=100), mirrored[50:150, 70:170])


@pytest.mark.parametrize("degrees", [0, 40])
@pytest.mark.parametrize("edge", [900, 300, 150])
def test_shrinking_leaves_no_pixel_out(edge: float, degrees: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3), np.uint8)
    square = apply(similarity(degrees=degrees, side=edge, middle=(700, 700)), frame(0, 0, 1))
    small = cut_square(Image.fromarray(noise), square, side=32)
    assert small.mean() == pytest.approx(127.5, abs=1.5)
    assert small.std() < 1.3 * 74 * 32 / edge  # of the means of so many pixels; of single pixels it would stay 74


def test_a_small_square_is_enlarged_smoothly() -> None:
    large = cut_square(waves(64, 64), frame(20, 20, 16), side=160)
    steps = np.abs(np.diff(large.astype(int), axis=1))
    assert large.shape == (160, 160, 3) and steps.max() <= 8  # of single pixels they would be tens


# with a detector


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> object:
    path = write_dot_detector(tmp_path_factory.mktemp("dots") / "dots.onnx")
    return load_detector(path, file_sha256(path), num_threads=1)


@pytest.mark.parametrize(
    ("degrees", "side", "middle", "size"),
    [
        (0, 200, (150, 140), (300, 280)),
        (30, 180, (210, 130), (420, 260)),
        (-50, 180, (200, 200), (300, 420)),
        (180, 180, (150, 150), (300, 300)),
        (-10, 190, (75, 150), (300, 300)),  # part of it lies outside
        (15, 1500, (1700, 1300), (3400, 2600)),  # the detector sees it shrunk
    ],
)
def test_the_face_lands_where_ffhq_has_it(
    detector: object, degrees: float, side: float, middle: tuple[float, float], size: tuple[int, int]
) -> None:
    there = similarity(degrees=degrees, side=side, middle=middle)
    photo = dotted_photo(apply(there, IN_FFHQ), width=size[0], height=size[1], radius=0.05 * side)
    aligned = align_face(photo, detector, side=128)  # type: ignore[arg-type]
    assert aligned is not None and aligned.shape == (128, 128, 3)
    np.testing.assert_allclose(dots_in(aligned) / 128, IN_FFHQ, atol=0.02)  # the detector sees few pixels


def test_what_is_aligned_is_only_resized(detector: object) -> None:
    photo = dotted_photo(200 * IN_FFHQ, width=200, height=200, radius=10)
    for side in (200, 128):
        aligned = align_face(photo, detector, side=side)  # type: ignore[arg-type]
        np.testing.assert_array_equal(aligned, fit(photo, height=side, width=side))
    np.testing.assert_array_equal(align_face(photo, detector, side=200), np.asarray(photo))  # type: ignore[arg-type]


def test_aligning_twice_is_aligning_once(detector: object) -> None:
    there = similarity(degrees=35, side=170, middle=(190, 150))
    photo = dotted_photo(apply(there, IN_FFHQ), width=400, height=300, radius=8)
    once = align_face(photo, detector, side=160)  # type: ignore[arg-type]
    assert once is not None
    np.testing.assert_array_equal(align_face(Image.fromarray(once), detector, side=160), once)  # type: ignore[arg-type]


def test_without_a_face_there_is_nothing_to_align(detector: object) -> None:
    assert align_face(Image.new("RGB", (100, 80), "grey"), detector, side=64) is None  # type: ignore[arg-type]


def test_of_several_faces_the_largest_counts(tmp_path: Path) -> None:
    small = np.array([[58, 60], [70, 60], [64, 66], [60, 72], [68, 72]], np.float32)  # in the middle
    large = small * 1.5 - np.array([60, 60], np.float32)
    path = write_detector(tmp_path / "two.onnx", large, second=small)
    found = find_points(waves(128, 128), load_detector(path, file_sha256(path), num_threads=1))
    assert found is not None
    np.testing.assert_allclose(found, large + 0.5, atol=1e-3)


@pytest.mark.parametrize("extent", [0, 10_000])
def test_points_that_no_face_can_have_are_none(tmp_path: Path, extent: int) -> None:
    points = np.array([[0, 0], [1, 0], [0.5, 0.6], [0, 1], [1, 1]], np.float32)
    path = write_detector(tmp_path / "face.onnx", 50 + extent * points)
    detector = load_detector(path, file_sha256(path), num_threads=1)
    assert align_face(waves(128, 128), detector, side=64) is None
