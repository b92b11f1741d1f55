"""The synthesiser: contracts of the waveforms, honest held-out ranges, and labels that a simple ear can tell apart."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import stft

from soundguide.errors import InvalidSettings
from soundguide.miniature.dsp import Draw
from soundguide.miniature.labels import EVENTS, LABELS, MUSIC_STYLES
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, Ranges, mix, recording_chain, room, synthesise


def clip(
    label: str, seed: int, *, seconds: float = 4.0, intensity: float = 0.6, ranges: Ranges = "train"
) -> NDArray[np.float32]:
    return synthesise(label, seconds=seconds, intensity=intensity, rng=np.random.default_rng(seed), ranges=ranges)


def rms_db(waveform: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.mean(waveform.astype(np.float64) ** 2) + 1e-20))


def rank_correlation(values: Sequence[float] | NDArray[np.float64]) -> float:
    ranks = np.argsort(np.argsort(values))
    return float(np.corrcoef(ranks, np.arange(len(values)))[0, 1])


def describe(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """Describe a clip by its band levels, how each third of the spectrum moves, and how fast: level does not matter."""
    frequencies, _, spectrum = stft(waveform.astype(np.float64), SAMPLE_RATE_HZ, nperseg=512, noverlap=352)
    power = np.abs(spectrum) ** 2
    edges = np.geomspace(60, 8000, 19)
    bands = np.stack(
        [power[(frequencies >= a) & (frequencies < b)].sum(0) + 1e-12 for a, b in zip(edges, edges[1:], strict=False)]
    )
    decibel = 10 * np.log10(np.maximum(bands, bands.max() * 1e-7))
    average = decibel.mean(1) - decibel.mean()
    thirds = 10 * np.log10(np.maximum(bands.reshape(3, 6, -1).sum(1), bands.max() * 1e-7))
    moves = thirds - thirds.mean(1, keepdims=True)
    rates = np.abs(np.fft.rfft(moves * np.hanning(moves.shape[1]), axis=1)) ** 2
    hertz = np.fft.rfftfreq(moves.shape[1], 0.01)
    limits = (0.2, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 50.0)
    modulation = [rates[:, (hertz >= a) & (hertz < b)].sum(1) for a, b in zip(limits, limits[1:], strict=False)]
    tonality = (10 * np.log10(power + 1e-12)).std(0).mean()
    return np.concatenate([average, decibel.std(1), 3 * np.log10(np.array(modulation).ravel() + 1e-3), [tonality]])


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("seconds", [0.5, 4.0, 11.0])
def test_clips_have_the_asked_length_and_stay_inside_full_scale(label: str, seconds: float) -> None:
    whisper: tuple[int, float, Ranges] = (0, 0.1, "train")
    loud: tuple[int, float, Ranges] = (1, 1.0, "held_out")
    for seed, intensity, ranges in (whisper, loud) if seconds < 10 else (loud,):
        waveform = clip(label, seed, seconds=seconds, intensity=intensity, ranges=ranges)
        assert waveform.shape == (round(seconds * 16_000),)
        assert waveform.dtype == np.float32
        assert np.isfinite(waveform).all()
        assert np.abs(waveform).max() < 1.0
        assert rms_db(waveform) > -62.0


@pytest.mark.parametrize("label", LABELS)
def test_the_seed_decides_the_waveform(label: str) -> None:
    first, again, other = (clip(label, seed, seconds=0.5) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.9


@pytest.mark.parametrize("label", LABELS)
def test_rms_rises_with_intensity(label: str) -> None:
    levels = []
    for intensity in (0.1, 0.4, 0.7, 1.0):
        clips = [clip(label, seed, seconds=1.0, intensity=intensity) for seed in (1, 2)]
        levels.append(float(np.mean([rms_db(waveform) for waveform in clips])))
    assert rank_correlation(levels) > 0.99
    assert levels[-1] - levels[0] > 12.0


def test_intensity_changes_content_not_only_gain() -> None:
    for label in ("raining", "fire crackling", "thunderstorm"):
        quiet, loud = (describe(clip(label, 3, intensity=intensity)) for intensity in (0.1, 1.0))
        assert np.abs(quiet - loud).max() > 1.0


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.8), (0.0, 1.0), (-6.0, 6.0), (200.0, 400.0), (-8.0, -2.0)])
def test_held_out_draws_avoid_the_train_range_and_stay_near(low: float, high: float) -> None:
    draw = Draw(np.random.default_rng(0), "held_out")
    drawn = np.array([draw.uniform(low, high) for _ in range(2000)])
    assert not ((drawn >= low) & (drawn <= high)).any()
    margin = 0.25 * (high - low) + 1e-9
    assert ((drawn >= low - margin) & (drawn <= high + margin)).all()
    assert low == 0.0 or (drawn < low).any()
    assert (drawn > high).any()


def test_held_out_log_draws_avoid_the_train_range() -> None:
    draw = Draw(np.random.default_rng(0), "held_out")
    drawn = np.array([draw.log_uniform(0.5, 8.0) for _ in range(2000)])
    assert ((drawn < 0.5) | (drawn > 8.0)).all()
    assert (drawn < 0.5).any() and (drawn > 8.0).any() and (drawn >= 0.25).all() and (drawn <= 16.0).all()


@pytest.mark.parametrize(("ranges", "near_ends"), [("train", 0.4), ("edge", 0.75)])
def test_train_and_edge_draws_stay_in_the_train_range(ranges: Ranges, near_ends: float) -> None:
    draw = Draw(np.random.default_rng(0), ranges)
    drawn = np.array([draw.uniform(0.3, 0.8) for _ in range(2000)])
    assert drawn.min() >= 0.3 and drawn.max() <= 0.8
    logs = np.log2([draw.log_uniform(0.5, 8.0) for _ in range(2000)])
    assert logs.min() >= -1 - 1e-9 and logs.max() <= 3 + 1e-9
    for place in ((drawn - 0.3) / 0.5, (logs + 1) / 4):
        assert ((place < 0.1) | (place > 0.9)).mean() == pytest.approx(near_ends, abs=0.08)


def test_an_unknown_label_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSettings, match=r"'gargling' is unknown.*raining.*orchestral music"):
        clip("gargling", 0)


@pytest.mark.parametrize(("seconds", "intensity"), [(0.0, 0.5), (float("nan"), 0.5), (1.0, 1.5), (1.0, -0.1)])
def test_values_out_of_range_are_refused(seconds: float, intensity: float) -> None:
    with pytest.raises(InvalidSettings):
        clip("raining", 0, seconds=seconds, intensity=intensity)


def test_mix_sums_exactly_below_full_scale_and_scales_above() -> None:
    rng = np.random.default_rng(0)
    soft = [0.1 * rng.uniform(-1, 1, 800).astype(np.float32) for _ in range(2)]
    np.testing.assert_allclose(mix(soft, [0.0, -20.0]), soft[0] + 0.1 * soft[1], atol=1e-6)
    loud = mix([9 * part for part in soft], [6.0, 6.0])
    assert np.abs(loud).max() <= 0.98 + 1e-6
    assert np.corrcoef(loud, soft[0] + soft[1])[0, 1] > 0.9999


def test_mix_refuses_parts_of_different_lengths() -> None:
    with pytest.raises(InvalidSettings, match="one length"):
        mix([np.zeros(3, np.float32), np.zeros(4, np.float32)], [0.0, 0.0])


def test_a_room_makes_a_click_ring_on() -> None:
    click = np.zeros(16_000, np.float32)
    click[1000] = 0.5
    wet = room(click, rng=np.random.default_rng(0))
    assert wet.shape == click.shape and wet.dtype == np.float32
    assert np.abs(wet[:1000]).max() < 1e-6
    energy = [float(np.sum(wet[a : a + 1600].astype(np.float64) ** 2)) for a in (1001, 2601, 4201)]
    assert energy[0] > energy[1] > energy[2]


def test_a_recording_chain_adds_a_noise_floor_and_keeps_length() -> None:
    tone = np.where(np.arange(32_000) < 16_000, 0.3 * np.sin(np.arange(32_000) * 0.3), 0.0).astype(np.float32)
    heard = recording_chain(tone, rng=np.random.default_rng(0), ranges="held_out")
    assert heard.shape == tone.shape and heard.dtype == np.float32 and np.abs(heard).max() < 1.0
    assert -70.0 < rms_db(heard[20_000:]) < rms_db(heard[:16_000]) - 6.0


def test_a_simple_ear_tells_the_labels_apart() -> None:
    def rendered(seeds: range) -> NDArray[np.float64]:
        return np.array([[describe(clip(label, s, seconds=2.5)) for s in seeds] for label in LABELS])

    known, fresh = rendered(range(100, 106)), rendered(range(200, 202))
    centre, spread = known.mean((0, 1)), known.std((0, 1)) + 1e-9
    centroids = ((known - centre) / spread).mean(1)
    distance = np.linalg.norm((fresh - centre)[:, :, None] / spread - centroids, axis=-1)
    right = distance.argmin(-1) == np.arange(len(LABELS))[:, None]
    assert right.mean() >= 0.7, dict(zip(LABELS, right.mean(1), strict=True))


def test_the_vocabulary_is_fixed() -> None:
    assert LABELS == EVENTS + MUSIC_STYLES
    assert (len(EVENTS), len(MUSIC_STYLES), len(set(LABELS))) == (14, 5, 19)
