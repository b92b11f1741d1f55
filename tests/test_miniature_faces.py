"""The face world: pictures are a pure function of factors, and each factor moves what it should and nothing else."""

import math

import pytest
import torch

from soundguide.miniature.faces.faces import (
    CONTINUOUS,
    IDENTITY,
    LATENTS,
    NUM_FACTORS,
    render,
    visible_factors,
)
from soundguide.miniature.faces.labels import LABELS
from soundguide.miniature.latents import Z_DIM

NUM_CONTINUOUS = len(CONTINUOUS)
SIDE = 48
# where each factor may change a picture, as left, right, top and bottom
PLACES: dict[str, tuple[float, float, float, float]] = {
    "glasses": (0.10, 0.92, 0.32, 0.66),
    "beard": (0.08, 0.92, 0.46, 1.0),
    "eye colour": (0.22, 0.78, 0.36, 0.60),
    "nose": (0.36, 0.66, 0.40, 0.70),
    "clothes": (0.0, 1.0, 0.85, 1.0),
    "brows": (0.18, 0.84, 0.22, 0.50),
    "baldness": (0.05, 0.97, 0.0, 0.66),
}


def calm(num: int = 4, seed: int = 0) -> torch.Tensor:
    """Faces without expression, ``[num, NUM_FACTORS]``, with hair and without glasses or beard."""
    factors = torch.zeros(num, NUM_FACTORS)
    factors[:, :NUM_CONTINUOUS] = torch.rand(num, NUM_CONTINUOUS, generator=torch.Generator().manual_seed(seed))
    for name in ("baldness", "glasses", "beard", "age", "hair length"):
        factors[:, CONTINUOUS.index(name)] = 0.1
    return factors


def changed(factor: str, low: float, high: float) -> torch.Tensor:
    """How much of each pixel of calm faces a factor changes, ``[4, SIDE, SIDE]``."""
    without, with_it = calm(), calm()
    column = (*CONTINUOUS, *LABELS).index(factor)
    without[:, column], with_it[:, column] = low, high
    return (render(with_it, SIDE).images - render(without, SIDE).images).abs().amax(1)


def test_pictures_and_masks_stay_in_their_ranges() -> None:
    factors = LATENTS.factors(LATENTS.sample(40, torch.Generator().manual_seed(1), crowded=True))
    rendered = render(factors, 32)
    assert rendered.images.shape == (40, 3, 32, 32)
    assert rendered.images.min() >= -1 and rendered.images.max() <= 1
    assert rendered.event_mask.shape == (40, 1, 32, 32)
    assert rendered.event_mask.min() >= 0 and rendered.event_mask.max() <= 1


def test_a_face_looks_the_same_in_any_company_and_every_time() -> None:
    factors = LATENTS.factors(LATENTS.sample(12, torch.Generator().manual_seed(2), crowded=True))
    together = render(factors, 32)
    alone = torch.cat([render(row[None], 32).images for row in factors])
    torch.testing.assert_close(together.images, alone, rtol=0, atol=1e-5)
    again = render(factors, 32)
    assert together.images.equal(again.images) and together.event_mask.equal(again.event_mask)


@pytest.mark.parametrize("label", LABELS)
def test_an_expression_changes_the_face_and_more_so_when_stronger(label: str) -> None:
    changes = torch.stack([changed(label, 0.0, e).mean((1, 2)) for e in (0.2, 0.4, 0.6, 0.8, 1.0)])
    assert (changes[0] > 0.002).all()
    assert (changes.diff(dim=0) > 0).all()


def test_expressions_differ_from_each_other_more_than_from_themselves_on_somebody_of_another_nose() -> None:
    factors = calm(1).repeat(len(LABELS), 1)
    factors[:, NUM_CONTINUOUS:] = torch.eye(len(LABELS))
    images = render(factors, SIDE).images
    factors[:, CONTINUOUS.index("nose")] = 0.9
    other_nose = (render(factors, SIDE).images - images).abs().mean((1, 2, 3)).max()
    apart = (images[:, None] - images[None]).abs().mean((2, 3, 4))
    assert apart[~torch.eye(len(LABELS), dtype=torch.bool)].min() > 2 * other_nose


@pytest.mark.parametrize("factor", CONTINUOUS)
def test_each_factor_of_identity_changes_the_picture(factor: str) -> None:
    assert (changed(factor, 0.1, 0.95).mean((1, 2)) > 0.001).all()


@pytest.mark.parametrize("factor", PLACES)
def test_a_factor_moves_only_its_own_part_of_the_picture(factor: str) -> None:
    left, right, top, bottom = PLACES[factor]
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outside[int(top * SIDE) : math.ceil(bottom * SIDE), int(left * SIDE) : math.ceil(right * SIDE)] = False
    difference = changed(factor, 0.0, 1.0)
    assert (difference[:, outside] < 1e-5).all()
    assert difference.amax((1, 2)).min() > 0.05


def test_the_wall_changes_nothing_of_the_person() -> None:
    factors = calm()
    assert (changed("background", 0.0, 1.0)[:, SIDE // 3 : 2 * SIDE // 3, SIDE // 3 : 2 * SIDE // 3] < 1e-5).all()
    assert (factors[:, CONTINUOUS.index("background")] != factors[:, CONTINUOUS.index("clothes")]).all()
    assert not {"background", "clothes"} & set(IDENTITY)


@pytest.mark.parametrize("label", LABELS)
def test_an_expression_leaves_the_corners_of_the_wall_alone(label: str) -> None:
    difference = changed(label, 0.0, 1.0)
    for corner in (difference[:, : SIDE // 8, : SIDE // 8], difference[:, : SIDE // 8, -SIDE // 8 :]):
        assert (corner < 1e-5).all()


def test_the_mask_covers_eyes_and_mouth_always_and_what_an_expression_brings() -> None:
    calm_mask = render(calm(), SIDE).event_mask[:, 0]
    assert 0.05 < calm_mask.mean() < 0.3
    factors = calm()
    factors[:, NUM_CONTINUOUS + LABELS.index("sneezing")] = 1.0
    assert (render(factors, SIDE).event_mask[:, 0].mean((1, 2)) > 1.3 * calm_mask.mean((1, 2))).all()


def test_a_picture_at_twice_the_resolution_shows_the_same_face() -> None:
    factors = LATENTS.factors(LATENTS.sample(8, torch.Generator().manual_seed(3), crowded=False))
    small = render(factors, 32).images
    large = torch.nn.functional.avg_pool2d(render(factors, 64).images, 2)
    assert (small - large).abs().mean() < 0.03


def test_seeds_are_people_of_all_kinds_most_of_them_calm() -> None:
    z = torch.randn(20_000, Z_DIM, generator=torch.Generator().manual_seed(5))
    factors = LATENTS.factors(z)
    torch.testing.assert_close(factors, LATENTS.factors(3.7 * z))
    continuous = factors[:, :NUM_CONTINUOUS]
    torch.testing.assert_close(continuous.mean(0), torch.full((NUM_CONTINUOUS,), 0.5), rtol=0, atol=0.02)
    torch.testing.assert_close(continuous.std(0), torch.full((NUM_CONTINUOUS,), 1 / math.sqrt(12)), rtol=0, atol=0.02)
    present = (factors[:, NUM_CONTINUOUS:] > 0).float().mean(0)
    assert ((present > 0.03) & (present < 0.08)).all()


def test_glasses_count_as_seen_only_where_they_are_worn() -> None:
    factors = calm(3)
    factors[:, CONTINUOUS.index("glasses")] = torch.tensor([0.0, 0.5, 0.9])
    assert visible_factors(factors)[:, CONTINUOUS.index("glasses")].tolist() == [0.0, 0.0, 1.0]
    pictures = render(factors, SIDE).images
    factors[:, CONTINUOUS.index("glasses")] = 0.0
    bare = render(factors, SIDE).images
    assert pictures[1].equal(bare[1]) and not pictures[2].equal(bare[2])
