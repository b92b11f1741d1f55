"""A song in segments, each heard for itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_world import SAMPLE_RATE

from soundguide.audio.decode import decode_audio, encode_wav
from soundguide.audio.windows import Heard
from soundguide.errors import InvalidAudio
from soundguide.film.segments import Segment, at_one_level, hear_segments
from soundguide.manipulator import Manipulator


def song(seconds: float, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    swell = 0.05 + 0.2 * np.sin(np.linspace(0, 7, round(seconds * SAMPLE_RATE))) ** 2
    return encode_wav((rng.uniform(-1, 1, len(swell)) * swell).astype(np.float32), SAMPLE_RATE)


def test_a_song_shorter_than_a_segment_is_one(single: Manipulator) -> None:
    (only,) = hear_segments(song(0.7), single.world.listener, seconds=10)
    assert (only.start, only.seconds) == (0, pytest.approx(0.7))


def test_a_segment_is_heard_like_a_file_of_its_own(single: Manipulator) -> None:
    listener, data = single.world.listener, song(5.2)
    samples = decode_audio(data, sample_rate=SAMPLE_RATE)
    segments = list(hear_segments(data, listener, seconds=2))
    assert [(part.index, part.start, part.seconds) for part in segments] == [
        (0, 0, 2),
        (1, 2, 2),
        (2, 4, pytest.approx(1.2)),
    ]
    for part in segments:
        first = round(part.start * SAMPLE_RATE)
        alone = listener.hear(encode_wav(samples[first : first + round(part.seconds * SAMPLE_RATE)], SAMPLE_RATE))
        assert part.heard is not None
        torch.testing.assert_close(part.heard.embedding, alone.embedding)
        assert part.heard.level_db == pytest.approx(alone.level_db, abs=1e-3)


def test_nothing_is_heard_in_a_silent_segment(single: Manipulator) -> None:
    loud = decode_audio(song(2), sample_rate=SAMPLE_RATE)
    data = encode_wav(np.concatenate([loud, np.zeros(2 * SAMPLE_RATE, np.float32), loud]), SAMPLE_RATE)
    assert [part.heard is None for part in hear_segments(data, single.world.listener, seconds=2)] == [
        False,
        True,
        False,
    ]


def test_a_silent_song_is_refused(single: Manipulator) -> None:
    with pytest.raises(InvalidAudio, match="silent"):
        list(hear_segments(encode_wav(np.zeros(SAMPLE_RATE), SAMPLE_RATE), single.world.listener, seconds=2))


def test_segments_at_one_level_aim_at_the_same_strength() -> None:
    embedding = torch.ones(4) / 2
    parts = [Segment(i, i, 1, Heard(embedding, level)) for i, level in enumerate((-20.0, -40.0))]
    (level,) = {part.heard.level_db for part in at_one_level([*parts, Segment(2, 2, 1, None)]) if part.heard}
    # gains 0.1 and 0.01, each weighted by itself
    assert level == pytest.approx(20 * math.log10((0.1**2 + 0.01**2) / 0.11))
