"""Sounds of any length as windows of the encoder's length, embedded in batches and pooled in constant memory."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from soundguide.errors import InvalidAudio

Samples = npt.NDArray[np.float32]
EncodeWaveforms = Callable[[Tensor], Tensor]  # [B, T] -> unit-norm [B, E]


def split_windows(blocks: Iterable[Samples], *, window_samples: int, hop_samples: int) -> Iterator[Samples]:
    """Cut a stream of sample blocks into windows ``[window_samples]`` that cover every sample, in constant memory.

    Windows start every `hop_samples` (at most `window_samples`). If samples are left, a last window is aligned to the
    end of the sound. A sound shorter than one window is repeated until it fills one.

    Raises:
        InvalidAudio: the stream holds no samples.
    """
    assert 1 <= hop_samples <= window_samples, f"hop {hop_samples} must lie in 1..{window_samples}, or samples are lost"
    pending: list[Samples] = []  # joined only when a window is whole: short blocks must not cost a copy each
    num_pending = 0
    start = 0  # of the next window, counted from the first pending sample
    for block in blocks:
        pending.append(block)
        num_pending += block.size
        if num_pending < start + window_samples:
            continue
        joined = np.concatenate(pending)
        while joined.size >= start + window_samples:
            yield joined[start : start + window_samples].copy()
            start += hop_samples
        # The samples from the latest window on stay: the last window, aligned to the end, reaches back into it.
        kept = joined[start - hop_samples :].copy()
        pending, num_pending, start = [kept], kept.size, hop_samples
    if num_pending == 0:
        raise InvalidAudio("the sound holds 0 samples; give a recording of at least 0.1 s")
    rest = np.concatenate(pending)
    if start == 0:
        yield np.resize(rest, window_samples)  # repeats the sound
    elif rest.size > start - hop_samples + window_samples:
        yield rest[-window_samples:].copy()


def embed_windows(windows: Iterable[Samples], encode: EncodeWaveforms, *, batch_size: int) -> Tensor:
    """Embed windows ``[T]`` in batches of `batch_size`; return ``[N, E]`` in their order."""
    return torch.cat([encode(batch) for batch in _batches(windows, batch_size)])


def window_rms(waveforms: Tensor) -> Tensor:
    """Return the root mean square of each row of `waveforms` ``[B, T]`` as ``[B]``, float64: the weight for pooling."""
    return waveforms.double().square().mean(dim=1).sqrt()


class PooledEmbedding:
    """The running weighted mean of unit-norm embeddings, in memory that does not grow with the sound."""

    def __init__(self) -> None:
        """Start with nothing added."""
        self._sum: Tensor | None = None  # [E], float64
        self._total_weight = 0.0
        self._dtype = torch.float32

    def add(self, embeddings: Tensor, weights: Tensor | None = None) -> None:
        """Add `embeddings` ``[N, E]`` with `weights` ``[N]`` >= 0; without weights each counts 1."""
        values = embeddings.double()  # hours of windows are summed: float32 would drift
        if weights is not None:
            values = values * weights.to(values)[:, None]
        added = values.sum(dim=0)
        self._sum = added if self._sum is None else self._sum + added
        self._total_weight += float(embeddings.shape[0] if weights is None else weights.sum())
        self._dtype = embeddings.dtype

    def result(self) -> Tensor:
        """Return the pooled embedding ``[E]``, unit norm.

        Raises:
            InvalidAudio: nothing was added, all weights are zero, or the embeddings cancel each other.
        """
        found = self.direction()
        if found is None:
            raise InvalidAudio(
                f"the windows of this sound have no direction in common: their sum has norm {self._norm:.1e} of "
                f"{self._total_weight:.1e}. They are silent or cancel each other; give a sound with clear content"
            )
        return found

    def direction(self) -> Tensor | None:
        """Return what `result` does, None where that raises."""
        # 1e-6 of the longest possible sum is the rounding error of float32 embeddings, not a direction.
        if self._sum is None or not self._norm > 1e-6 * self._total_weight:
            return None
        return (self._sum / self._norm).to(self._dtype)

    @property
    def _norm(self) -> float:
        return 0.0 if self._sum is None else float(torch.linalg.vector_norm(self._sum))


def pool_embeddings(embeddings: Tensor, weights: Tensor | None = None) -> Tensor:
    """Pool `embeddings` ``[N, E]`` to ``[E]``: mean weighted by `weights` ``[N]``, then unit norm.

    Weights from `window_rms` keep silent gaps from diluting the sound. Raises InvalidAudio as `PooledEmbedding.result`.
    """
    pooled = PooledEmbedding()
    pooled.add(embeddings, weights)
    return pooled.result()


@dataclass(frozen=True, slots=True)
class Heard:
    """What a sound says, ``embedding`` ``[E]`` of unit norm, and how loudly: ``level_db``, dB below full scale."""

    embedding: Tensor
    level_db: float


def pool_stream(windows: Iterable[Samples], encode: EncodeWaveforms, *, batch_size: int) -> Heard:
    """Embed windows ``[T]`` and pool them, weighted by their RMS; memory holds one batch.

    The level is that of the mean RMS under the same weights: pauses neither dilute a sound nor soften it.

    Raises:
        InvalidAudio: as `PooledEmbedding.result`.
    """
    pooled, squares, total = PooledEmbedding(), 0.0, 0.0
    for batch in _batches(windows, batch_size):
        rms = window_rms(batch)
        pooled.add(encode(batch), rms)
        squares, total = squares + float(rms.square().sum()), total + float(rms.sum())
    return Heard(pooled.result(), 20 * math.log10(squares / total))


def _batches(windows: Iterable[Samples], batch_size: int) -> Iterator[Tensor]:
    assert batch_size >= 1, f"batch_size must be at least 1, got {batch_size}"
    iterator = iter(windows)
    while batch := list(islice(iterator, batch_size)):
        yield torch.from_numpy(np.stack(batch))
