"""Clips of the miniature world, and the bias that can be set."""

import numpy as np
import pytest
import torch

from soundguide.miniature.clips import BIASES, LEVEL_JITTER_DB, make_clips, scene_of, sound_of
from soundguide.miniature.labels import LABELS
from soundguide.miniature.scenes import CONTINUOUS


def test_clips_take_labels_in_turn_and_can_be_made_again() -> None:
    first, again = (list(make_clips(3, seed=4, seconds=0.5)) for _ in range(2))
    assert [clip.label for clip in first] == list(LABELS[:3])
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.waveform, b.waveform)
        assert torch.equal(a.factors, b.factors) and a.text == b.text


def test_the_scene_of_a_clip_shows_its_event_and_more_so_when_louder() -> None:
    index = len(CONTINUOUS) + LABELS.index("sea waves")
    soft, loud = (scene_of("sea waves", x, torch.Generator().manual_seed(3))[index] for x in (0.3, 1.0))
    assert soft == pytest.approx(0.3) and loud == pytest.approx(1.0)


def test_a_sound_is_as_loud_as_its_event_is_strong_whatever_the_microphone() -> None:
    def level(intensity: float, seed: int) -> float:
        waveform = sound_of("raining", intensity, np.random.default_rng(seed), seconds=2.0)
        return float(10 * np.log10(np.mean(np.square(waveform, dtype=np.float64))))

    soft, loud = (np.array([level(intensity, seed) for seed in range(12)]) for intensity in (0.3, 0.9))
    assert 13 < loud.mean() - soft.mean() < 17  # 25 dB from 0 to 1
    for levels, rule in ((soft, -40 + 25 * 0.3), (loud, -40 + 25 * 0.9)):  # what has peaks is softer
        assert rule - LEVEL_JITTER_DB - 5 < levels.min() and levels.max() < rule + LEVEL_JITTER_DB + 0.1


def biased_share(bias: float) -> float:
    """The share of thunder clips whose factor lies in the biased range, which chance alone would reach at 0.2."""
    factor, low, high = BIASES["thunderstorm"]
    generator = torch.Generator().manual_seed(5)
    values = [scene_of("thunderstorm", 0.7, generator, bias=bias)[CONTINUOUS.index(factor)] for _ in range(300)]
    return float(np.mean([low <= value <= high for value in values]))


def test_bias_says_how_often_a_sound_is_found_in_its_usual_scene() -> None:
    assert abs(biased_share(0.0) - 0.2) < 0.08
    assert abs(biased_share(0.9) - (0.9 + 0.1 * 0.2)) < 0.06
