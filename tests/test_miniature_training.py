"""The training loops of the miniature: they learn, and a stopped one goes on as if nothing had happened."""

from pathlib import Path

import torch
from torch import nn

from soundguide.miniature.scenes import NUM_FACTORS
from soundguide.miniature.train_audio import colour
from soundguide.miniature.train_generator import GENERATOR, beside, factor_layout, fit_mapping, reconstruction_loss
from soundguide.miniature.train_image_text import spoil
from soundguide.miniature.training import Training
from soundguide.models.stylegan2 import StyleGAN2


def run(folder: Path, stop_at: int | None) -> torch.Tensor:
    """Fit a line for 40 steps, or up to a stop after ``stop_at`` of them; return the averaged weights."""
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    training = Training(module, folder, num_steps=40, learning_rate=0.3, average_over=5)
    for step in training.steps():
        x = torch.randn(16, 3, generator=training.generator)
        training.update((module(x) - x.sum(1, keepdim=True)).square().mean())
        if step + 1 == stop_at:
            training.step += 1
            training.save()
            break
    return next(training.averaged.parameters()).clone()


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", None)
    run(tmp_path / "parts", 17)
    torch.testing.assert_close(run(tmp_path / "parts", None), whole, rtol=0, atol=0)


def test_training_learns(tmp_path: Path) -> None:
    assert (run(tmp_path, None) - 1).abs().max() < 0.3


def test_factors_lie_in_orthogonal_directions_of_w() -> None:
    directions, _ = factor_layout(128)
    gram = directions @ directions.T
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-3)


def test_the_mapping_learns_the_layout_of_factors() -> None:
    short, longer = (fit_mapping(StyleGAN2(GENERATOR), num_steps=steps) for steps in (5, 150))
    assert longer < 0.5 * short


def test_codes_move_aside_in_common_only_where_no_factor_lies() -> None:
    directions, _ = factor_layout(GENERATOR.w_dim)
    ws = torch.randn(64, 1, GENERATOR.w_dim, generator=torch.Generator().manual_seed(0)).expand(-1, 4000, -1)
    common = beside(ws, torch.Generator().manual_seed(1)).mean(1)  # each layer's own move averages out
    along = common @ nn.functional.normalize(directions, dim=1).T
    assert along.shape == (64, NUM_FACTORS)
    assert along.abs().mean() < 0.05 * common.norm(dim=1).mean()


def test_an_error_where_an_event_shows_counts_five_times() -> None:
    truth = torch.zeros(1, 3, 8, 8)
    image = torch.full_like(truth, 0.2)  # no edges: only the pixel term is left
    plain, masked = (reconstruction_loss(image, truth, torch.full((1, 1, 8, 8), m)) for m in (0.0, 1.0))
    torch.testing.assert_close(masked, 5 * plain)


def test_spoiled_pictures_stay_in_range_and_some_are_left_alone() -> None:
    images = torch.rand(60, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    spoiled = spoil(images, torch.Generator().manual_seed(1))
    same = (spoiled == images).flatten(1).all(1)
    assert spoiled.abs().max() <= 1
    assert 8 < int(same.sum()) < 35


def test_coloured_sound_keeps_its_shape_and_changes_its_level() -> None:
    log_mel = torch.randn(8, 64, 20, generator=torch.Generator().manual_seed(0))
    coloured = colour(log_mel, log_mel.flip(0), torch.Generator().manual_seed(1))
    assert coloured.shape == log_mel.shape and torch.isfinite(coloured).all()
    assert (coloured - log_mel).mean((1, 2)).std() > 0.1


def test_averaged_weights_come_with_the_running_statistics_of_the_trained_ones(tmp_path: Path) -> None:
    module = nn.BatchNorm1d(3)
    training = Training(module, tmp_path, num_steps=20, learning_rate=0.01)
    for _ in training.steps():
        training.update(module(5 + torch.randn(16, 3, generator=training.generator)).square().mean())
    averaged = training.averaged
    assert isinstance(averaged, nn.BatchNorm1d) and averaged.running_mean is not None
    assert (averaged.running_mean > 3).all()
