"""The painted world: pictures are a pure function of factors, factors of the normalised latent."""

import math

import pytest
import torch

from soundguide.miniature.labels import LABELS
from soundguide.miniature.latents import Z_DIM
from soundguide.miniature.scenes import (
    CONTINUOUS,
    NUM_FACTORS,
    factors_from_z,
    render,
    sample_z,
    spoken_of,
)

NUM_CONTINUOUS = len(CONTINUOUS)


def calm(num: int = 3, seed: int = 0) -> torch.Tensor:
    """Factors of scenes without events, ``[num, NUM_FACTORS]``."""
    factors = torch.zeros(num, NUM_FACTORS)
    factors[:, :NUM_CONTINUOUS] = torch.rand(num, NUM_CONTINUOUS, generator=torch.Generator().manual_seed(seed))
    return factors


def test_pictures_and_masks_stay_in_their_ranges() -> None:
    factors = factors_from_z(sample_z(40, torch.Generator().manual_seed(1), crowded=True))
    rendered = render(factors, 32)
    assert rendered.images.shape == (40, 3, 32, 32)
    assert rendered.images.min() >= -1 and rendered.images.max() <= 1
    assert rendered.event_mask.shape == (40, 1, 32, 32)
    assert rendered.event_mask.min() >= 0 and rendered.event_mask.max() <= 1


def test_a_scene_looks_the_same_in_any_company() -> None:
    factors = factors_from_z(sample_z(12, torch.Generator().manual_seed(2), crowded=True))
    together = render(factors, 32).images
    alone = torch.cat([render(row[None], 32).images for row in factors])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("label", LABELS)
def test_each_event_and_style_changes_the_picture_and_more_so_when_stronger(label: str) -> None:
    without = calm()
    changes = []
    for intensity in (0.4, 1.0):
        factors = without.clone()
        factors[:, NUM_CONTINUOUS + LABELS.index(label)] = intensity
        changes.append((render(factors, 32).images - render(without, 32).images).abs().mean(dim=(1, 2, 3)))
    assert (changes[0] > 0.005).all()
    assert (changes[1] > changes[0]).all()


@pytest.mark.parametrize("factor", CONTINUOUS)
def test_each_continuous_factor_changes_the_picture(factor: str) -> None:
    low, high = calm(), calm()
    low[:, CONTINUOUS.index(factor)], high[:, CONTINUOUS.index(factor)] = 0.1, 0.9
    low[:, CONTINUOUS.index("mountains")] = high[:, CONTINUOUS.index("mountains")] = 0.8  # a ridge needs a mountain
    if factor == "mountains":
        low[:, CONTINUOUS.index(factor)] = 0.1
    assert ((render(low, 32).images - render(high, 32).images).abs().mean(dim=(1, 2, 3)) > 0.003).all()


def test_the_event_mask_is_empty_without_events() -> None:
    assert render(calm(), 32).event_mask.max() == 0


def test_a_picture_at_twice_the_resolution_shows_the_same_scene() -> None:
    factors = factors_from_z(sample_z(8, torch.Generator().manual_seed(3)))
    small = render(factors, 32).images
    large = torch.nn.functional.avg_pool2d(render(factors, 64).images, 2)
    assert (small - large).abs().mean() < 0.03


def test_the_length_of_z_has_no_influence() -> None:
    z = sample_z(5, torch.Generator().manual_seed(4))
    torch.testing.assert_close(factors_from_z(z), factors_from_z(3.7 * z))


def test_continuous_factors_are_spread_evenly_and_events_are_rare() -> None:
    factors = factors_from_z(torch.randn(20_000, Z_DIM, generator=torch.Generator().manual_seed(5)))
    continuous = factors[:, :NUM_CONTINUOUS]
    torch.testing.assert_close(continuous.mean(0), torch.full((NUM_CONTINUOUS,), 0.5), rtol=0, atol=0.02)
    torch.testing.assert_close(continuous.std(0), torch.full((NUM_CONTINUOUS,), 1 / math.sqrt(12)), rtol=0, atol=0.02)
    present = (factors[:, NUM_CONTINUOUS:] > 0).float().mean(0)
    assert ((present > 0.05) & (present < 0.11)).all()


def test_what_a_label_speaks_of_are_continuous_factors() -> None:
    assert all(spoken_of(label) <= set(CONTINUOUS) for label in LABELS)
