"""Exact-area resizing against a slow loop, and random views that depend on nothing but seed, step and view."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from soundguide.views import area_resize, hash_normal, hash_uniform, random_views


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def slow_area(image: np.ndarray, box: tuple[float, ...], size: int) -> np.ndarray:
    """Return ``[C, size, size]``: each pixel the mean of its rectangle of ``image``, by loops over every pixel."""
    channels, height, width = image.shape
    left, right, top, bottom = box
    answer = np.zeros((channels, size, size))
    for i in range(size):
        y0, y1 = ((top + (bottom - top) * k / size) * height for k in (i, i + 1))
        for j in range(size):
            x0, x1 = ((left + (right - left) * k / size) * width for k in (j, j + 1))
            for y in range(height):
                for x in range(width):
                    common = max(0.0, min(y1, y + 1) - max(y0, y)) * max(0.0, min(x1, x + 1) - max(x0, x))
                    answer[:, i, j] += image[:, y, x] * common
            answer[:, i, j] /= (y1 - y0) * (x1 - x0)
    return answer


@pytest.mark.parametrize("size", [3, 5, 11])
def test_each_box_is_resampled_as_by_a_slow_loop(size: int) -> None:
    images = pictures(3, 2, 7, 9)
    boxes = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.1, 0.85, 0.2, 0.95], [0.25, 1.0, 0.0, 0.75]])
    got = area_resize(images, size, boxes)
    for row in range(3):
        expected = slow_area(images[row].double().numpy(), tuple(boxes[row].tolist()), size)
        np.testing.assert_allclose(got[row].numpy(), expected, atol=2e-6)


def test_whole_picture_is_resampled_as_by_a_slow_loop() -> None:
    images = pictures(1, 3, 10, 6)
    expected = slow_area(images[0].double().numpy(), (0, 1, 0, 1), 4)
    np.testing.assert_allclose(area_resize(images, 4)[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_whole_factors_are_area_pooling(factor: int) -> None:
    images = pictures(2, 3, 5 * factor, 5 * factor)
    torch.testing.assert_close(area_resize(images, 5), F.avg_pool2d(images, factor))


def test_nothing_to_do_returns_the_pictures_themselves() -> None:
    images = pictures(2, 3, 16, 16)
    assert area_resize(images, 16) is images


@pytest.mark.parametrize("size", [24, 56])
def test_a_whole_box_at_the_same_size_changes_nothing(size: int) -> None:
    images = pictures(2, 3, size, size)
    boxes = torch.tensor([[0.0, 1.0, 0.0, 1.0]]).expand(2, -1)
    assert torch.equal(area_resize(images, size, boxes), images)


@pytest.mark.parametrize("size", [5, 64, 224])
def test_a_flat_picture_stays_flat(size: int) -> None:
    boxes = torch.tensor([[0.123, 0.987, 0.0, 0.777], [0.25, 1.0, 0.25, 1.0]])
    got = area_resize(torch.full((2, 1, 50, 50), 0.7), size, boxes)
    torch.testing.assert_close(got, torch.full_like(got, 0.7), atol=5e-7, rtol=0)


def test_resampling_runs_in_float32_under_autocast() -> None:
    images = pictures(1, 3, 30, 30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = area_resize(images, 7)
    assert torch.equal(got, area_resize(images, 7))


@pytest.mark.parametrize("size", [7, 30])
def test_half_precision_becomes_float32_and_float64_stays(size: int) -> None:
    images = pictures(1, 3, 30, 30)
    assert area_resize(images.bfloat16(), size).dtype == torch.float32
    assert area_resize(images.double(), size).dtype == torch.float64


def test_area_gradient_spreads_evenly_over_the_picture() -> None:
    images = pictures(1, 1, 12, 12).requires_grad_()
    area_resize(images, 5).sum().backward()
    assert images.grad is not None
    # every pixel belongs to the 25 means in equal shares: 25 / 144 each
    torch.testing.assert_close(images.grad, torch.full_like(images, 25 / 144))


def views(images: Tensor, seeds: list[int], steps: list[int], num_views: int = 3, size: int = 8) -> Tensor:
    return random_views(
        images, num_views=num_views, seeds=torch.tensor(seeds), steps=torch.tensor(steps), size=size
    ).reshape(len(images), num_views, 3, size, size)


def test_the_first_view_is_the_plain_picture() -> None:
    images = pictures(2, 3, 20, 20)
    assert torch.equal(views(images, [1, 2], [3, 4])[:, 0], area_resize(images, 8))


def test_one_view_is_the_plain_picture() -> None:
    images = pictures(2, 3, 20, 20)
    assert torch.equal(views(images, [1, 2], [0, 0], num_views=1)[:, 0], area_resize(images, 8))


def test_views_of_a_row_do_not_depend_on_its_company() -> None:
    images = pictures(4, 3, 20, 20)
    together = views(images, [5, 6, 7, 8], [0, 9, 2, 30])
    alone = views(images[2:3], [7], [2])
    torch.testing.assert_close(together[2:3], alone, atol=1e-6, rtol=0)


def test_permuting_the_rows_permutes_the_views() -> None:
    images, order = pictures(4, 3, 20, 20), [2, 0, 3, 1]
    seeds, steps = [5, 6, 7, 8], [0, 9, 2, 30]
    permuted = views(images[order], [seeds[i] for i in order], [steps[i] for i in order])
    torch.testing.assert_close(permuted, views(images, seeds, steps)[order], atol=1e-6, rtol=0)


def test_views_are_the_same_each_time_and_leave_the_global_generator_alone() -> None:
    images, state = pictures(2, 3, 20, 20), torch.get_rng_state()
    first = views(images, [5, 6], [1, 1])
    torch.manual_seed(99)
    assert torch.equal(views(images, [5, 6], [1, 1]), first)
    torch.set_rng_state(state)
    views(images, [5, 6], [1, 1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("other", [([6], [1]), ([5], [2])], ids=["seed", "step"])
def test_another_seed_or_step_draws_other_views(other: tuple[list[int], list[int]]) -> None:
    image = pictures(1, 3, 20, 20)
    changes = (views(image, [5], [1]) - views(image, *other)).abs().amax((0, 2, 3, 4))
    assert changes[0] == 0 and (changes[1:] > 0.01).all()


def test_views_of_one_row_differ_from_each_other() -> None:
    got = views(pictures(1, 3, 20, 20), [5], [1], num_views=4)[0]
    distances = (got[:, None] - got).abs().amax((2, 3, 4)) + torch.eye(4)
    assert (distances > 0.01).all()


def test_crops_stay_inside_and_colours_near_the_picture() -> None:
    # brightness rises to the right and downwards, so that the corners of a view tell where it was cut
    ramp = torch.linspace(-0.5, 0.5, 64)
    image = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)])
    got = views(image.expand(200, -1, -1, -1), list(range(200)), [0] * 200, num_views=2, size=16)[:, 1]
    # contrast, gain and offset at their bounds: 0.5 * 1.15 = 0.575; 1.575 * 1.1 - 1 + 0.06 = 0.7925
    assert got.amax() <= 0.7925 + 1e-5
    spread = (got[:, 0, :, -1] - got[:, 0, :, 0]).mean(1)  # of 15 / 16 of the crop's width, times contrast and gain
    assert spread.min() >= 0.75 * 0.85 * 0.9 * 15 / 16 * 0.98 and spread.max() <= 1.15 * 1.1
    assert spread.std() > 0.05


def test_gradients_of_every_view_reach_the_picture() -> None:
    image = pictures(2, 3, 20, 20).requires_grad_()
    got = views(image, [5, 6], [1, 1])
    for view in range(3):
        (gradient,) = torch.autograd.grad(got[1, view].sum(), image, retain_graph=True)
        assert (gradient[0] == 0).all() and (gradient[1] != 0).float().mean() > 0.5


def test_hash_is_splitmix64() -> None:
    # the first output of SplitMix64 seeded with 0, as published with the generator: 0xE220A8397B1DCDAF
    expected = (0xE220A8397B1DCDAF >> 40) / 2**24
    assert hash_uniform(torch.tensor([0])).item() == expected


def test_hash_is_uniform() -> None:
    draws = hash_uniform(torch.arange(200_000)).double()
    assert 0 <= draws.min() and draws.max() < 1
    assert abs(draws.mean() - 1 / 2) < 4 * (1 / 12 / 200_000) ** 0.5
    assert abs(draws.var() - 1 / 12) < 4 * (1 / 180 / 200_000) ** 0.5
    counts = torch.histc(draws, 100, 0, 1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert 55 < chi_square < 160  # 99 degrees of freedom: beyond five standard deviations on either side


def test_hashed_normal_numbers_are_normal_and_finite() -> None:
    rows, columns = torch.arange(500)[:, None], torch.arange(400)
    normal = hash_normal(rows, columns).double().flatten()
    assert torch.isfinite(normal).all()
    quantiles = torch.tensor([0.0228, 0.1587, 0.5, 0.8413, 0.9772], dtype=torch.float64)  # -2 to 2 sigma
    expected = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(torch.quantile(normal, quantiles), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("axis", [0, 1, 2, 3], ids=["seed", "step", "view", "stream"])
def test_neighbouring_draws_are_uncorrelated(axis: int) -> None:
    fields = torch.meshgrid(torch.arange(20), torch.arange(25), torch.arange(20), torch.arange(20), indexing="ij")
    draws = hash_uniform(*fields).double()
    size = draws.shape[axis] - 1
    first, second = draws.narrow(axis, 0, size).flatten(), draws.narrow(axis, 1, size).flatten()
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1]
    assert abs(correlation) < 4 / first.numel() ** 0.5


def test_fields_of_the_hash_are_not_interchangeable() -> None:
    a, b = torch.tensor([3]), torch.tensor([4])
    assert hash_uniform(a, b) != hash_uniform(b, a)
