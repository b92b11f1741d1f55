"""A song as segments: cut from its stream, embedded once, and kept in a small file.

The paper's music edits (Lee et al. 2022, Sec. 5.3) take 10 s of a piece; longer pieces are cut into such segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from soundguide.audio.decode import AudioLimits, iter_audio
from soundguide.audio.windows import EncodeWaveforms, PooledEmbedding, Samples, split_windows, window_rms
from soundguide.kept_memory import return_freed_memory
from soundguide.models.protocols import AudioEncoder
from soundguide.songs.heard import Segments

_WINDOW_BATCH = 16


def cut_segments(blocks: Iterable[Samples], segment_samples: int) -> Iterator[Samples]:
    """Join sample blocks to segments of ``segment_samples`` that cover every sample once, in constant memory.

    What is left at the end is a segment of its own where it is half a segment at least, or all there is; less is
    joined to the segment before.
    """
    assert segment_samples >= 1, f"segment_samples must be at least 1, got {segment_samples}"
    held: list[Samples] = []  # joined only when there is enough: short blocks must not cost a copy each
    num_held, enough = 0, 2 * segment_samples
    for block in blocks:
        held.append(block)
        num_held += block.size
        if num_held < enough:
            continue
        joined = np.concatenate(held)
        num_whole = joined.size // segment_samples - 1  # the last whole one waits for what may be joined to it
        for start in range(0, num_whole * segment_samples, segment_samples):
            yield joined[start : start + segment_samples].copy()
        held = [joined[num_whole * segment_samples :].copy()]
        num_held = held[0].size
    rest = np.concatenate(held) if held else np.zeros(0, np.float32)
    if rest.size >= 1.5 * segment_samples:
        yield rest[:segment_samples].copy()
        rest = rest[segment_samples:].copy()
    if rest.size:
        yield rest


def embed_song(
    song: bytes | BinaryIO,
    encode: EncodeWaveforms,
    audio: AudioEncoder,
    *,
    seconds: float,
    limits: AudioLimits,
    on_heard: Callable[[float], None] | None = None,
) -> Segments:
    """Cut a sound file into segments of ``seconds`` and embed each, as a stream.

    ``encode``: runs the encoder ``audio`` where it lies. ``on_heard`` is told how far it has come, seconds. Raises
    `InvalidAudio` as `iter_audio`.
    """
    rate = audio.sample_rate

    def segments() -> Iterator[Samples]:
        end = 0.0
        blocks = iter_audio(song, sample_rate=rate, block_seconds=seconds, limits=limits)
        for samples in cut_segments(blocks, round(seconds * rate)):
            end += samples.size / rate
            if on_heard is not None:
                on_heard(end)
            yield samples

    return embed_segments(segments(), encode, window_samples=audio.num_samples, sample_rate=rate)


def embed_segments(
    segments: Iterable[Samples], encode: EncodeWaveforms, *, window_samples: int, sample_rate: int
) -> Segments:
    """Embed segments ``[T]`` as `Listener.hear` embeds a sound: overlapping windows of the encoder, pooled by loudness.

    Windows of several segments share a batch; memory holds one batch and the embeddings. A segment that is silent, or
    whose windows have no direction in common, has the embedding 0.
    """
    pooled: list[_Segment] = []
    windows = _number_windows(segments, pooled, window_samples=window_samples, sample_rate=sample_rate)
    while batch := list(islice(windows, _WINDOW_BATCH)):
        waveforms = torch.from_numpy(np.stack([window for _, window in batch]))
        embeddings, rms = encode(waveforms), window_rms(waveforms)
        for place, (segment, _) in enumerate(batch):
            segment.add(embeddings[place], rms[place])
        return_freed_memory()  # the heap would be left in pieces: 150 MiB of them by an hour of music
    return Segments(
        embeddings=np.stack([segment.embedding() for segment in pooled]),
        rms=np.array([segment.sum_rms / segment.num_windows for segment in pooled], np.float32),
        level=np.array([segment.sum_squares / max(segment.sum_rms, 1e-12) for segment in pooled], np.float32),
        seconds=np.array([segment.seconds for segment in pooled], np.float64),
    )


def _number_windows(
    segments: Iterable[Samples], pooled: list[_Segment], *, window_samples: int, sample_rate: int
) -> Iterator[tuple[_Segment, Samples]]:
    """Yield the windows of all segments, each with the segment that it belongs to, which joins ``pooled``."""
    hop = max(1, window_samples // 2)
    for samples in segments:
        pooled.append(_Segment(seconds=samples.size / sample_rate))
        for window in split_windows([samples], window_samples=window_samples, hop_samples=hop):
            yield pooled[-1], window


class _Segment:
    """What is known of one segment so far."""

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds
        self.sum_rms = self.sum_squares = 0.0
        self.num_windows = 0
        self._pooled = PooledEmbedding()
        self._zero: NDArray[np.float32] = np.zeros(0, np.float32)

    def add(self, embedding: torch.Tensor, rms: torch.Tensor) -> None:
        self._pooled.add(embedding[None], rms[None])
        self.sum_rms += float(rms)
        self.sum_squares += float(rms.square())
        self.num_windows += 1
        self._zero = np.zeros(embedding.shape[0], np.float32)

    def embedding(self) -> NDArray[np.float32]:
        direction = self._pooled.direction()
        return self._zero if direction is None else direction.cpu().numpy()
