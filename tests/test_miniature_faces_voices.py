"""The voices of the face world: contracts of the waveforms, and expressions that simple features tell apart."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import stft

from soundguide.errors import InvalidSettings
from soundguide.miniature.dsp import Ranges
from soundguide.miniature.faces.labels import LABELS
from soundguide.miniature.faces.throat import VOWELS_HZ, Speaker, phonate, resonate
from soundguide.miniature.faces.voices import synthesise

Floats = NDArray[np.float64]
RATE_HZ = 16_000


def clip(
    label: str, seed: int, *, seconds: float = 4.0, intensity: float = 0.7, ranges: Ranges = "train"
) -> NDArray[np.float32]:
    return synthesise(label, seconds=seconds, intensity=intensity, rng=np.random.default_rng(seed), ranges=ranges)


def spectrum(waveform: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return frequencies and powers ``[F, N]``, 100 frames a second."""
    hertz, _, values = stft(waveform.astype(np.float64), RATE_HZ, nperseg=512, noverlap=352)
    return hertz, np.abs(values) ** 2


def features(waveform: NDArray[np.float32]) -> dict[str, float]:
    """Four plain measures: onsets a second, centroid, share of loud frames, and how much of it are partials."""
    hertz, power = spectrum(waveform)
    level = 10 * np.log10(power[hertz > 100].sum(0) + 1e-12)
    loud = level > level.max() - 20
    onsets = np.sum(np.diff(loud.astype(int)) == 1)
    total = power[:, loud].sum(1)
    voiced = power[(hertz > 150) & (hertz < 4000)][:, loud]
    return {
        "onsets": float(onsets) / (len(waveform) / RATE_HZ),
        "centroid": float((hertz * total).sum() / total.sum()),
        "loud": float(loud.mean()),
        "tonal": float(np.median(10 * np.log10(voiced.max(0) / np.median(voiced, axis=0)))),
    }


def typical(label: str) -> dict[str, float]:
    measured = [features(clip(label, seed, seconds=3.0)) for seed in range(8)]
    return {name: float(np.median([each[name] for each in measured])) for name in measured[0]}


@pytest.mark.parametrize("label", LABELS)
def test_clips_have_the_asked_length_and_stay_inside_full_scale(label: str) -> None:
    cases: list[tuple[float, float, Ranges]] = [(0.4, 0.1, "train"), (3.0, 1.0, "held_out"), (2.0, 0.5, "edge")]
    for seed, (seconds, intensity, ranges) in enumerate(cases):
        waveform = clip(label, seed, seconds=seconds, intensity=intensity, ranges=ranges)
        assert waveform.shape == (round(seconds * RATE_HZ),) and waveform.dtype == np.float32
        assert np.isfinite(waveform).all() and 0 < np.abs(waveform).max() < 1


@pytest.mark.parametrize("label", LABELS)
def test_the_seed_decides_the_waveform_and_the_speaker(label: str) -> None:
    first, again, other = (clip(label, seed, seconds=1.0) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.5


@pytest.mark.parametrize("label", LABELS)
def test_a_stronger_expression_is_louder(label: str) -> None:
    def level(intensity: float) -> float:
        clips = [clip(label, seed, seconds=2.0, intensity=intensity) for seed in range(3)]
        return float(10 * np.log10(np.mean([np.mean(np.square(each, dtype=np.float64)) for each in clips])))

    levels = [level(intensity) for intensity in (0.1, 0.4, 0.7, 1.0)]
    assert np.all(np.diff(levels) > 0) and levels[-1] - levels[0] > 12


def test_expressions_are_told_apart_by_plain_features() -> None:
    giggling, sobbing, coughing, sneezing, screaming, yawning = (typical(label) for label in LABELS)
    assert giggling["onsets"] > 1.3 * max(sobbing["onsets"], sneezing["onsets"], screaming["onsets"])
    assert yawning["onsets"] < 0.6 * giggling["onsets"] and yawning["centroid"] < giggling["centroid"]
    assert screaming["tonal"] > max(coughing["tonal"], sneezing["tonal"])
    assert sneezing["centroid"] > 1.5 * max(sobbing["centroid"], yawning["centroid"])
    assert sneezing["loud"] < screaming["loud"]
    assert coughing["tonal"] < min(giggling["tonal"], sobbing["tonal"])


def test_a_vowel_has_its_resonances_where_peterson_and_barney_found_them() -> None:
    speaker = Speaker(pitch_hz=110.0, tract=1.0, breath=0.0, rough=0.0, dull=1.0)
    for vowel in ("ah", "ee", "oo"):
        source = phonate(speaker, np.random.default_rng(0), np.full(RATE_HZ, 110.0))
        hertz, power = spectrum(resonate(source, vowel, speaker).astype(np.float32))
        smooth = np.convolve(power.mean(1), np.ones(5) / 5, mode="same")  # over the partials
        first = VOWELS_HZ[vowel][0]
        low = (hertz > 150) & (hertz < 1000 if vowel != "ah" else hertz < 900)
        assert abs(hertz[low][smooth[low].argmax()] - first) < 130


def test_an_unknown_label_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSettings, match=r"'raining' is unknown.*giggling.*yawning"):
        clip("raining", 0)
