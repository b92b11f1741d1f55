"""Windows over streams of any length, and pooling of their embeddings."""

import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from soundguide.audio.windows import (
    PooledEmbedding,
    embed_windows,
    pool_embeddings,
    pool_stream,
    split_windows,
    window_rms,
)
from soundguide.errors import InvalidAudio


def ramp(num_samples: int) -> np.ndarray:
    return np.arange(num_samples, dtype=np.float32)


def cut(samples: np.ndarray, block: int) -> Iterator[np.ndarray]:
    return (samples[start : start + block] for start in range(0, samples.size, block))


def encode(waveforms: Tensor) -> Tensor:
    features = torch.stack([waveforms.mean(dim=1), waveforms.abs().mean(dim=1) + 1e-3, waveforms.amax(dim=1)], dim=1)
    return torch.nn.functional.normalize(features, dim=1)


@pytest.mark.parametrize("block", [1, 7, 64, 1_000])
@pytest.mark.parametrize(("window", "hop"), [(10, 10), (10, 5), (10, 3), (10, 1)])
@pytest.mark.parametrize("num_samples", [10, 11, 19, 20, 21, 29, 57])
def test_windows_stand_at_every_hop_and_at_the_end(num_samples: int, window: int, hop: int, block: int) -> None:
    windows = list(split_windows(cut(ramp(num_samples), block), window_samples=window, hop_samples=hop))
    starts = list(range(0, num_samples - window + 1, hop))
    if starts[-1] != num_samples - window:
        starts.append(num_samples - window)
    np.testing.assert_array_equal(np.stack(windows), [ramp(num_samples)[start : start + window] for start in starts])
    assert {int(sample) for row in windows for sample in row} == set(range(num_samples))


def test_a_tenth_of_a_second_is_repeated_to_fill_one_window() -> None:
    samples = ramp(1_600)
    (window,) = split_windows([samples[:100], samples[100:]], window_samples=160_000, hop_samples=80_000)
    np.testing.assert_array_equal(window, np.tile(samples, 100))


def test_a_stream_without_samples_is_refused() -> None:
    with pytest.raises(InvalidAudio, match="0 samples"):
        list(split_windows([], window_samples=10, hop_samples=5))


def test_windows_may_be_kept_and_changed_without_touching_others() -> None:
    windows = []
    for window in split_windows(cut(ramp(40), 15), window_samples=10, hop_samples=5):
        windows.append(window.copy())
        window[:] = -1
    np.testing.assert_array_equal(np.stack(windows)[:, 0], np.arange(0, 35, 5))


def test_embeddings_do_not_depend_on_the_batch_size() -> None:
    noise = np.random.default_rng(0).normal(size=(7, 50)).astype(np.float32)
    alone = embed_windows(noise, encode, batch_size=1)
    assert alone.shape == (7, 3)
    for batch_size in (2, 3, 100):
        torch.testing.assert_close(embed_windows(noise, encode, batch_size=batch_size), alone)


def test_pooling_is_the_weighted_mean_made_unit_norm() -> None:
    embeddings = torch.nn.functional.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    weights = torch.tensor([0.0, 1.0, 2.0, 0.5, 3.0])
    expected = np.zeros(8)
    for row, weight in zip(embeddings.numpy(), weights.numpy(), strict=True):
        expected += row * weight
    np.testing.assert_allclose(pool_embeddings(embeddings, weights), expected / np.linalg.norm(expected), atol=1e-6)
    mean = embeddings.mean(dim=0)
    torch.testing.assert_close(pool_embeddings(embeddings), mean / mean.norm())


def test_silent_gaps_do_not_dilute_the_sound() -> None:
    sound = np.random.default_rng(0).normal(0, 0.3, 1_000).astype(np.float32)
    with_gap = np.concatenate([sound, np.zeros(9_000, np.float32)])
    pooled = [
        pool_stream(split_windows([samples], window_samples=100, hop_samples=100), encode, batch_size=8)
        for samples in (sound, with_gap)
    ]
    torch.testing.assert_close(pooled[0].embedding, pooled[1].embedding)
    assert pooled[0].level_db == pytest.approx(pooled[1].level_db)


@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.001])
def test_the_level_of_a_sine_is_that_of_its_effective_value(amplitude: float) -> None:
    sine = (amplitude * np.sin(2 * np.pi * np.arange(5_000) / 100)).astype(np.float32)
    windows = split_windows([sine], window_samples=1_000, hop_samples=500)
    level_db = pool_stream(windows, encode, batch_size=3).level_db
    assert level_db == pytest.approx(20 * np.log10(amplitude) - 3.01, abs=0.01)


def test_streamed_pooling_equals_pooling_at_once() -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, 5_037).astype(np.float32)
    windows = list(split_windows([noise], window_samples=100, hop_samples=60))
    at_once = pool_embeddings(
        encode(torch.from_numpy(np.stack(windows))), window_rms(torch.from_numpy(np.stack(windows)))
    )
    for batch_size in (1, 7, 1_000):
        pooled = pool_stream(windows, encode, batch_size=batch_size)
        torch.testing.assert_close(pooled.embedding, at_once)
        again = pool_stream(windows, encode, batch_size=batch_size)
        assert torch.equal(pooled.embedding, again.embedding) and pooled.level_db == again.level_db


def test_window_rms_of_a_full_scale_sine_is_its_effective_value() -> None:
    sine = torch.sin(2 * torch.pi * torch.arange(1_000) / 100)
    torch.testing.assert_close(window_rms(torch.stack([sine, 0 * sine])), torch.tensor([0.5**0.5, 0.0]).double())


@pytest.mark.parametrize(
    ("embeddings", "weights"),
    [
        (torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), None),
        (torch.tensor([[1.0, 0.0]]), torch.zeros(1)),
    ],
)
def test_embeddings_without_a_common_direction_are_refused(embeddings: Tensor, weights: Tensor | None) -> None:
    with pytest.raises(InvalidAudio, match="no direction"):
        pool_embeddings(embeddings, weights)


def test_nothing_pooled_is_refused() -> None:
    with pytest.raises(InvalidAudio, match="no direction"):
        PooledEmbedding().result()


def test_an_hour_is_pooled_in_bounded_memory_and_quickly() -> None:
    second = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    blocks = (second if index % 2 else np.zeros(16_000, np.float32) for index in range(3_600))
    tracemalloc.start()
    started = time.perf_counter()
    pooled = pool_stream(
        split_windows(blocks, window_samples=160_000, hop_samples=80_000),
        lambda batch: encode(batch[:, ::16]),
        batch_size=4,
    )
    seconds = time.perf_counter() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20  # the whole hour is 220 MiB
    assert seconds < 20.0
    assert float(pooled.embedding.norm()) == pytest.approx(1.0)
