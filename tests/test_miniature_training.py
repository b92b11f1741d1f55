"""The training loops of the miniature: they learn, and a stopped one goes on as if nothing had happened."""

import logging
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from soundguide.miniature.labels import LABELS
from soundguide.miniature.models import load_generator, load_image_text
from soundguide.miniature.reader import train_reader
from soundguide.miniature.scenes import NUM_FACTORS
from soundguide.miniature.train_audio import AUDIO, train_audio
from soundguide.miniature.train_generator import (
    GENERATOR,
    beside,
    factor_layout,
    fit_mapping,
    reconstruction_loss,
    train_generator,
)
from soundguide.miniature.train_image_text import spoil, train_image_text
from soundguide.miniature.training import Training, as_matrix
from soundguide.models.stylegan2 import StyleGAN2


def run(folder: Path, stop_at: int | None, *, by_muon: bool = False, interrupted_at: int | None = None) -> torch.Tensor:
    """Fit a line for 40 steps, or up to a stop after ``stop_at`` of them; return the averaged weights.

    ``interrupted_at``: the step, counting from 1, in the middle of which Ctrl-C is pressed.
    """
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    matrices = [module.weight] if by_muon else []
    training = Training(
        module, folder, num_steps=40, learning_rate=0.3, matrices=matrices, matrix_rate=0.5, average_over=5
    )
    for step in training.steps():
        x = torch.randn(16, 3, generator=training.generator)
        if step + 1 == interrupted_at:
            signal.raise_signal(signal.SIGINT)
        training.update((module(x) - x.sum(1, keepdim=True)).square().mean())
        if step + 1 == stop_at:
            training.step += 1
            training.save()
            break
    return next(training.averaged.parameters()).clone()


@pytest.mark.parametrize("by_muon", [False, True])
def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path, by_muon: bool) -> None:
    whole = run(tmp_path / "whole", None, by_muon=by_muon)
    run(tmp_path / "parts", 17, by_muon=by_muon)
    torch.testing.assert_close(run(tmp_path / "parts", None, by_muon=by_muon), whole, rtol=0, atol=0)


def test_an_interrupted_training_ends_its_step_and_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt, match="Step 17 of 40 is saved in .* Give the same command again"):
        run(tmp_path / "parts", None, interrupted_at=17)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    torch.testing.assert_close(run(tmp_path / "parts", None), whole, rtol=0, atol=0)


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    training = Training(nn.Linear(3, 1), tmp_path, num_steps=40, learning_rate=0.3)
    next(steps := training.steps())
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    steps.close()  # type: ignore[attr-defined]


def test_a_training_says_at_once_what_it_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Training(nn.Linear(3, 1), tmp_path / "state", num_steps=40, learning_rate=0.3)
    assert caplog.messages == [f"training Linear: 40 steps, state in {tmp_path / 'state'}"]


@pytest.mark.parametrize("by_muon", [False, True])
def test_training_learns(tmp_path: Path, by_muon: bool) -> None:
    assert (run(tmp_path, None, by_muon=by_muon) - 1).abs().max() < 0.3


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_and_its_gradient_become_matrices_in_the_same_order(layout: torch.memory_format) -> None:
    kernel = torch.arange(2 * 3 * 3 * 3.0).reshape(2, 3, 3, 3).to(memory_format=layout)
    matrix = as_matrix(kernel, kernel)
    assert matrix.data_ptr() == kernel.data_ptr()  # Muon's steps must reach the kernel itself
    assert matrix.equal(as_matrix(kernel.contiguous(), kernel))


def test_a_few_steps_train_a_generator_that_draws(tmp_path: Path) -> None:
    model = train_generator(tmp_path, num_steps=3, mapping_steps=5, pool_size=128, compiled=False)
    untrained = StyleGAN2(GENERATOR).synthesis.state_dict()
    images = model.synthesize(model.map(torch.randn(2, model.z_dim, generator=torch.Generator().manual_seed(0))))
    assert torch.isfinite(images).all()
    assert all(
        not value.equal(untrained[name]) for name, value in model.synthesis.state_dict().items() if "weight" in name
    )
    assert model.w_avg.abs().max() > 0


def test_a_few_steps_train_a_clip_and_a_reader(tmp_path: Path) -> None:
    clip = train_image_text(tmp_path / "clip", load_generator(), num_steps=2, pool_size=128)
    norms = clip.encode_image(torch.zeros(2, 3, 64, 64)).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(2))
    factors, events = train_reader(tmp_path / "reader", num_steps=2, pool_size=128)(torch.zeros(1, 3, 64, 64))
    assert torch.isfinite(factors).all() and events.shape == (1, len(LABELS))


def test_a_few_steps_train_a_sound_encoder(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, (2 * len(LABELS), AUDIO.num_samples + 1600))
    np.save(tmp_path / "clips.npy", noise.astype(np.int16))  # where an earlier run leaves its clips
    encoder = train_audio(tmp_path, load_image_text(), num_steps=2)
    norms = encoder.encode_audio(torch.zeros(2, encoder.num_samples)).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(2))


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


def test_averaged_weights_come_with_the_running_statistics_of_the_trained_ones(tmp_path: Path) -> None:
    module = nn.BatchNorm1d(3)
    training = Training(module, tmp_path, num_steps=20, learning_rate=0.01)
    for _ in training.steps():
        training.update(module(5 + torch.randn(16, 3, generator=training.generator)).square().mean())
    averaged = training.averaged
    assert isinstance(averaged, nn.BatchNorm1d) and averaged.running_mean is not None
    assert (averaged.running_mean > 3).all()
