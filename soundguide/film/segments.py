"""A song of any length as segments, each heard for itself, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from soundguide.audio.decode import AudioLimits, Samples, iter_audio
from soundguide.audio.windows import Heard
from soundguide.errors import InvalidAudio
from soundguide.listen import Listener
from soundguide.songs.segments import cut_segments

SONG_LIMITS = AudioLimits(max_bytes=8 * 2**30)  # read as a stream: hours of WAV are welcome
SILENT_DB = -70.0  # a segment's level, below full scale, under which nothing is to be heard in it


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a song and what is heard in it: nothing (None) where it is silent. Times in seconds."""

    index: int
    start: float
    seconds: float
    heard: Heard | None

    @property
    def middle(self) -> float:
        """When its key code is reached."""
        return self.start + self.seconds / 2


def hear_segments(song: bytes | BinaryIO, listener: Listener, *, seconds: float) -> Iterator[Segment]:
    """Cut a sound file into segments of ``seconds`` and hear each: windows of the encoder's length, pooled by loudness.

    A rest of under half a segment joins the one before. Memory holds a few segments, whatever the song's length. Raises
    `InvalidAudio` as `iter_audio`.
    """
    rate = listener.audio.sample_rate
    blocks = iter_audio(song, sample_rate=rate, block_seconds=seconds, limits=SONG_LIMITS)
    start = 0
    for index, samples in enumerate(cut_segments(blocks, round(seconds * rate))):
        yield Segment(index, start / rate, samples.size / rate, _hear(samples, listener))
        start += samples.size


def _hear(samples: Samples, listener: Listener) -> Heard | None:
    if level_db(samples) <= SILENT_DB:
        return None
    try:
        return listener.hear_blocks([samples])
    except InvalidAudio:  # its windows have no direction in common: there is nothing to follow
        return None


def level_db(samples: Samples) -> float:
    """Return the RMS of samples ``[T]`` in dB below full scale."""
    return 10 * math.log10(float(np.mean(np.square(samples, dtype=np.float64))) + 1e-20)


def at_one_level(segments: Iterable[Segment]) -> list[Segment]:
    """Return segments heard at the level of the whole song.

    How strong a film's key codes are then does not follow the song's loudness from part to part: that is the
    reaction's part alone.
    """
    listed = list(segments)
    gains = [10 ** (segment.heard.level_db / 20) for segment in listed if segment.heard is not None]
    # loud parts count more, as loud windows do within a part
    level = 20 * math.log10(sum(gain * gain for gain in gains) / sum(gains)) if gains else -math.inf
    return [_at_level(segment, level) for segment in listed]


def _at_level(segment: Segment, level: float) -> Segment:
    heard = None if segment.heard is None else Heard(segment.heard.embedding, level)
    return Segment(segment.index, segment.start, segment.seconds, heard)
