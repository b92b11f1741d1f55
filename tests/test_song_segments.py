"""Segments and poolings of songs, against slow and plain computations of the same."""

import math
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from soundguide.audio.windows import pool_embeddings, split_windows, window_rms
from soundguide.errors import InvalidAudio
from soundguide.songs.heard import Segments
from soundguide.songs.pooling import POOLINGS, TRIMMED, Pooling, geometric_median, pool_segments
from soundguide.songs.segments import cut_segments, embed_segments


def blocks_of(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


@pytest.mark.parametrize("size", [1, 7, 100, 333, 5000])
@pytest.mark.parametrize(
    ("num_samples", "lengths"),
    [
        (30, [30]),
        (100, [100]),
        (149, [149]),
        (150, [100, 50]),
        (220, [100, 120]),
        (1000, [100] * 10),
        (1049, [100] * 9 + [149]),
    ],
)
def test_segments_cover_every_sample_once_whatever_the_blocks(num_samples: int, lengths: list[int], size: int) -> None:
    samples = np.arange(num_samples, dtype=np.float32)
    segments = list(cut_segments(blocks_of(samples, size), 100))
    assert [segment.size for segment in segments] == lengths
    np.testing.assert_array_equal(np.concatenate(segments), samples)


def spectrum(waveforms: Tensor) -> Tensor:
    """An encoder for tests: the direction of the lowest 16 lines of the spectrum."""
    return torch.nn.functional.normalize(torch.fft.rfft(waveforms).abs()[:, 1:17] + 1e-3, dim=1)


def test_segments_are_embedded_as_their_windows_pooled_alone() -> None:
    rng = np.random.default_rng(0)
    segments = [
        rng.standard_normal(size).astype(np.float32) * gain for size, gain in ((250, 0.1), (250, 0.5), (90, 0.2))
    ]
    segments[1][50:200] = 0
    found = embed_segments(iter(segments), spectrum, window_samples=100, sample_rate=50)
    assert found.seconds.tolist() == [5.0, 5.0, 1.8]
    for number, segment in enumerate(segments):
        windows = torch.from_numpy(np.stack(list(split_windows([segment], window_samples=100, hop_samples=50))))
        rms = window_rms(windows)
        np.testing.assert_allclose(found.embeddings[number], pool_embeddings(spectrum(windows), rms).numpy(), atol=1e-6)
        assert found.level[number] == pytest.approx(float(rms.square().sum() / rms.sum()), rel=1e-5)
        assert found.rms[number] == pytest.approx(float(rms.mean()), rel=1e-5)


def test_a_night_of_music_is_heard_in_constant_memory() -> None:
    rate, hours = 200, 8
    block = np.random.default_rng(0).standard_normal(30 * rate).astype(np.float32)
    tracemalloc.start()
    segments = cut_segments((block for _ in range(hours * 120)), 10 * rate)
    found = embed_segments(segments, spectrum, window_samples=10 * rate, sample_rate=rate)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == hours * 360
    assert peak < 4 * 2**20 < hours * 3600 * rate * 4  # its samples alone are 23 MB


def test_a_file_of_segments_gives_back_what_was_written_and_damage_is_told() -> None:
    found = segments_of(np.eye(3), [0.1, 0.2, 0.3])
    data = found.encode({"encoder": "abc"})
    again = Segments.decode(data, "x")
    for name in Segments.__slots__:
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    with pytest.raises(InvalidAudio, match="song.safetensors holds no segments"):
        Segments.decode(data[:40], "song.safetensors")


def segments_of(points: np.ndarray, weights: list[float] | np.ndarray) -> Segments:
    directions = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    loud = np.asarray(weights, np.float32)
    return Segments(directions.astype(np.float32), loud, loud * 1.5, np.full(len(loud), 10.0))


@pytest.fixture
def drawn() -> Segments:
    rng = np.random.default_rng(3)
    return segments_of(rng.standard_normal(8) + 0.4 * rng.standard_normal((9, 8)), rng.uniform(0.05, 0.5, 9))


def test_the_mean_is_that_of_a_listener(drawn: Segments) -> None:
    found = pool_segments(drawn, "mean")
    wanted = pool_embeddings(torch.from_numpy(drawn.embeddings), torch.from_numpy(drawn.rms))
    np.testing.assert_allclose(found.embedding, wanted.numpy(), atol=1e-6)
    level = float((drawn.rms * drawn.level).sum() / drawn.rms.sum())
    assert found.level_db == pytest.approx(20 * math.log10(level), abs=1e-5)


def test_the_trimmed_mean_is_that_without_the_farthest_quarter(drawn: Segments) -> None:
    mean = pool_segments(drawn, "mean").embedding
    distances = [float(np.linalg.norm(point - mean)) for point in drawn.embeddings]
    kept = sorted(sorted(range(9), key=distances.__getitem__)[: 9 - int(TRIMMED * 9)])
    assert len(kept) == 7
    rest = Segments(drawn.embeddings[kept], drawn.rms[kept], drawn.level[kept], drawn.seconds[kept])
    found, wanted = pool_segments(drawn, "trimmed"), pool_segments(rest, "mean")
    np.testing.assert_allclose(found.embedding, wanted.embedding, atol=1e-6)
    assert found.level_db == pytest.approx(wanted.level_db)


def test_the_medoid_is_the_segment_with_the_least_distances(drawn: Segments) -> None:
    sums = [
        sum(float(w) * math.dist(point, other) for other, w in zip(drawn.embeddings, drawn.rms, strict=True))
        for point in drawn.embeddings
    ]
    best = sums.index(min(sums))
    found = pool_segments(drawn, "medoid")
    np.testing.assert_allclose(found.embedding, drawn.embeddings[best], atol=1e-6)
    assert found.nearest == best and found.level_db == pytest.approx(20 * math.log10(float(drawn.level[best])))


@pytest.mark.parametrize("seed", range(5))
def test_the_geometric_median_has_the_least_sum_of_distances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, weights = rng.standard_normal((7, 3)), rng.uniform(0.1, 1, 7)
    if seed == 4:
        weights[2] = 5  # heavier than all others together: the median lies on it

    def cost(x: np.ndarray) -> float:
        return float(weights @ np.linalg.norm(points - x, axis=1))

    found = geometric_median(points, weights)
    searched = minimize(
        cost, points.mean(0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 9999}
    )
    assert cost(found) <= searched.fun + 1e-7
    if seed == 4:
        np.testing.assert_allclose(found, points[2], atol=1e-6)


def test_a_median_that_begins_on_a_point_leaves_it() -> None:
    rng = np.random.default_rng(1)
    points, weights = rng.standard_normal((7, 2)) ** 3, rng.uniform(0.1, 1, 7)
    points[0] = weights[1:] @ points[1:] / weights[1:].sum()  # so that it is the mean of all, where the search begins
    weights[0] = 0.01
    found = geometric_median(points, weights)
    costs = [float(weights @ np.linalg.norm(points - x, axis=1)) for x in (found, points[0])]
    assert costs[0] < costs[1] - 1e-3


@pytest.mark.parametrize("pooling", POOLINGS)
def test_silent_segments_count_for_nothing_and_equal_ones_are_their_own_pooling(pooling: Pooling) -> None:
    points = np.stack([np.eye(4)[0], np.eye(4)[0], np.zeros(4), np.eye(4)[1]])
    found = pool_segments(segments_of(points, [0.2, 0.2, 0.0, 1e-6]), pooling)
    np.testing.assert_allclose(found.embedding, np.eye(4)[0], atol=1e-6)
    assert found.nearest == 0 and found.level_db == pytest.approx(20 * math.log10(0.3), abs=1e-4)
    with pytest.raises(InvalidAudio, match="every segment of the song is silent"):
        pool_segments(segments_of(points, [0.0] * 4), pooling)


def test_robust_poolings_are_led_astray_less_than_the_mean() -> None:
    rng = np.random.default_rng(0)
    style, applause = np.eye(16)[0], np.eye(16)[1]
    points = np.concatenate(
        [style + 0.1 * rng.standard_normal((8, 16)), applause + 0.02 * rng.standard_normal((3, 16))]
    )
    song = segments_of(points, [0.1] * 8 + [0.15] * 3)  # and the applause is loud
    near = {pooling: float(pool_segments(song, pooling).embedding @ style) for pooling in POOLINGS}
    assert min(near[pooling] for pooling in POOLINGS if pooling != "mean") > near["mean"] + 0.03


def test_a_song_of_one_segment_is_that_segment() -> None:
    song = segments_of(np.array([[0.6, 0.8]]), [0.1])
    for pooling in POOLINGS:
        np.testing.assert_allclose(pool_segments(song, pooling).embedding, [0.6, 0.8], atol=1e-6)
