"""A song of any length as the parts that a film's key codes follow, each heard for itself, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
import torch

from soundguide.audio.decode import AudioLimits
from soundguide.audio.windows import Heard
from soundguide.listen import Listener
from soundguide.songs.heard import Segments
from soundguide.songs.segments import embed_song

SONG_LIMITS = AudioLimits(max_bytes=8 * 2**30)  # read as a stream: hours of WAV are welcome


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

    @property
    def end(self) -> float:
        """When the next one begins."""
        return self.start + self.seconds


def hear_segments(
    song: bytes | BinaryIO, listener: Listener, *, seconds: float, on_heard: Callable[[float], None] | None = None
) -> list[Segment]:
    """Cut a sound file into segments of ``seconds`` and hear each: windows of the encoder's length, pooled by loudness.

    A rest of under half a segment joins the one before. Memory holds a few segments, whatever the song's length.
    ``on_heard`` is told how far it has come, seconds. Raises `InvalidAudio` as `iter_audio`.
    """
    heard = embed_song(song, listener.encode, listener.audio, seconds=seconds, limits=SONG_LIMITS, on_heard=on_heard)
    return film_segments(heard, device=listener.device)


def film_segments(heard: Segments, *, device: torch.device) -> list[Segment]:
    """Return the segments of a song as a film takes them, their embeddings on ``device``."""
    starts = np.concatenate([[0.0], np.cumsum(heard.seconds)[:-1]])
    found = []
    for index, (embedding, audible) in enumerate(zip(heard.embeddings, heard.audible, strict=True)):
        sounding = Heard(torch.tensor(embedding, device=device), heard.level_db(index)) if audible else None
        found.append(Segment(index, float(starts[index]), float(heard.seconds[index]), sounding))
    return found


def at_one_level(segments: Iterable[Segment]) -> list[Segment]:
    """Return segments heard at the level of the whole song.

    How strong a film's key codes are then does not follow the song's loudness from part to part: that is the
    reaction's part alone.
    """
    listed = list(segments)
    gains = [10 ** (segment.heard.level_db / 20) for segment in listed if segment.heard is not None]
    # loud parts count more, as loud windows do within a part
    level = 20 * math.log10(sum(gain * gain for gain in gains) / sum(gains)) if gains else -math.inf
    return [
        segment if segment.heard is None else replace(segment, heard=Heard(segment.heard.embedding, level))
        for segment in listed
    ]
