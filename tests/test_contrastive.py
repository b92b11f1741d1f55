"""The contrastive losses against double loops over the paper's equations, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from soundguide.contrastive import (
    INITIAL_LOG_SCALE,
    MAX_LOG_SCALE,
    clamp_logit_scale,
    info_nce,
    weak_pair_kl,
)


def unit(rows: int, seed: int, width: int = 6) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=random, dtype=torch.float64), dim=1)


def dot(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def slow_info_nce(a: Tensor, b: Tensor, log_scale: float, same: Tensor | None = None) -> float:
    """Return Eq. 5: the sum of both directions, each the mean over i of -log of the share of its own pair."""
    total, count = 0.0, len(a)
    for left, right, mask in ((a, b, same), (b, a, None if same is None else same.T)):
        for i in range(count):
            share = 0.0
            for j in range(count):
                if j == i or mask is None or not bool(mask[i, j]):
                    share += math.exp(math.exp(log_scale) * (dot(left[i], right[j]) - dot(left[i], right[i])))
            total += math.log(share) / count
    return total


def test_info_nce_is_the_double_loop() -> None:
    a, b = unit(5, 0), unit(5, 1)
    got = info_nce(a, b, logit_scale=torch.tensor(1.3, dtype=torch.float64))
    assert got.item() == pytest.approx(slow_info_nce(a, b, 1.3), rel=1e-12)


def test_masked_info_nce_is_the_double_loop_without_those_negatives() -> None:
    a, b = unit(5, 0), unit(5, 1)
    labels = torch.tensor([0, 1, 0, 2, 1])
    same = labels[:, None] == labels
    got = info_nce(a, b, logit_scale=torch.tensor(1.3, dtype=torch.float64), same=same)
    assert got.item() == pytest.approx(slow_info_nce(a, b, 1.3, same), rel=1e-12)
    assert got < info_nce(a, b, logit_scale=torch.tensor(1.3, dtype=torch.float64))


def test_the_mask_acts_on_both_directions_even_if_it_is_not_symmetric() -> None:
    a, b, same = unit(3, 0), unit(3, 1), torch.zeros(3, 3, dtype=torch.bool)
    same[0, 2] = True
    got = info_nce(a, b, logit_scale=torch.tensor(1.3, dtype=torch.float64), same=same)
    assert got.item() == pytest.approx(slow_info_nce(a, b, 1.3, same), rel=1e-12)


def test_a_masked_pair_gets_no_gradient_from_the_other() -> None:
    a, b = unit(2, 0).requires_grad_(), unit(2, 1)
    info_nce(a, b, logit_scale=torch.tensor(1.0), same=torch.ones(2, 2, dtype=torch.bool)).backward()
    assert a.grad is not None and torch.equal(a.grad, torch.zeros_like(a))


def test_identical_rows_cost_log_n_in_each_direction() -> None:
    rows = unit(1, 0).expand(7, -1)
    assert info_nce(rows, rows, logit_scale=torch.tensor(2.0)).item() == pytest.approx(2 * math.log(7), rel=1e-6)


def test_training_at_the_initial_scale_starts_from_temperature_seven_hundredths() -> None:
    a, b = unit(4, 0), unit(4, 1)
    scale = torch.tensor(INITIAL_LOG_SCALE, dtype=torch.float64)
    shares = torch.softmax(a @ b.T / 0.07, 1).diagonal().log() + torch.softmax(b @ a.T / 0.07, 1).diagonal().log()
    assert info_nce(a, b, logit_scale=scale).item() == pytest.approx(-shares.mean().item(), rel=1e-12)


def test_info_nce_runs_in_float32_under_autocast() -> None:
    a, b, scale = unit(5, 0).float(), unit(5, 1).float(), torch.tensor(3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = info_nce(a, b, logit_scale=scale)
    assert got.dtype == torch.float32
    assert torch.equal(got, info_nce(a, b, logit_scale=scale))


def test_half_precision_embeddings_are_compared_in_float32() -> None:
    got = info_nce(unit(5, 0).bfloat16(), unit(5, 1).bfloat16(), logit_scale=torch.tensor(3.0))
    assert got.dtype == torch.float32


def slow_kl(audio: Tensor, images: Tensor, text: Tensor, scales: tuple[float, float], diagonal: bool) -> float:
    """Return Eq. 9-12 by loops: Eq. 11 as printed, or the same sum over whole rows."""
    total, count = 0.0, len(audio)
    for i in range(count):
        student = [math.exp(math.exp(scales[0]) * dot(audio[i], images[k])) for k in range(count)]
        teacher = [math.exp(math.exp(scales[1]) * dot(text[i], images[k])) for k in range(count)]
        for j in [i] if diagonal else range(count):
            total -= teacher[j] / sum(teacher) * math.log(student[j] / sum(student))
    return total / count


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_weak_pair_kl_is_the_double_loop(form: str) -> None:
    audio, images, text = unit(5, 0), unit(5, 1), unit(5, 2)
    got = weak_pair_kl(
        audio,
        images,
        text,
        audio_logit_scale=torch.tensor(0.7, dtype=torch.float64),
        teacher_logit_scale=torch.tensor(1.9, dtype=torch.float64),
        form="diagonal" if form == "diagonal" else "full",
    )
    assert got.item() == pytest.approx(slow_kl(audio, images, text, (0.7, 1.9), form == "diagonal"), rel=1e-12)


def test_full_form_is_least_where_sound_sees_pictures_as_text_does() -> None:
    images, text, scale = unit(5, 1), unit(5, 2), torch.tensor(1.5, dtype=torch.float64)

    def loss(audio: Tensor) -> Tensor:
        return weak_pair_kl(audio, images, text, audio_logit_scale=scale, teacher_logit_scale=scale)

    best = text.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(best), best)
    assert gradient.abs().max() < 1e-12
    random = torch.Generator().manual_seed(3)
    for _ in range(20):
        other = text + 0.2 * torch.randn(text.shape, generator=random, dtype=torch.float64)
        assert loss(other) > loss(text)


def test_diagonal_form_falls_to_zero_as_sound_picks_its_own_picture() -> None:
    images = torch.eye(4, dtype=torch.float64)
    losses = [
        weak_pair_kl(
            images,
            images,
            unit(4, 2, width=4),
            audio_logit_scale=torch.tensor(log_scale),
            teacher_logit_scale=torch.tensor(1.0),
            form="diagonal",
        ).item()
        for log_scale in (0.0, 1.0, 2.0, 4.0)
    ]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 1e-12


def test_the_teacher_is_a_constant() -> None:
    audio, images, text = (unit(4, seed).requires_grad_() for seed in range(3))
    own, clip = (torch.tensor(1.0, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weak_pair_kl(audio, images, text, audio_logit_scale=own, teacher_logit_scale=clip).backward()
    assert text.grad is None and clip.grad is None
    assert audio.grad is not None and audio.grad.abs().max() > 0
    assert own.grad is not None and own.grad != 0


@pytest.mark.parametrize(("value", "expected"), [(5.0, math.log(100)), (2.0, 2.0)])
def test_the_scale_is_bounded_by_one_hundred(value: float, expected: float) -> None:
    parameter = nn.Parameter(torch.tensor(value))
    clamp_logit_scale(parameter)
    assert parameter.item() == pytest.approx(expected) and parameter.requires_grad
    assert math.exp(MAX_LOG_SCALE) == pytest.approx(100)
