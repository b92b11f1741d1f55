"""Hearing: one embedding for a sound of any length, and the labels that lie nearest to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO

import torch
from torch import Tensor

from soundguide.audio.decode import Samples, iter_audio
from soundguide.audio.windows import Heard, pool_stream, split_windows
from soundguide.models.protocols import AudioEncoder, ImageTextEncoder

WINDOW_BATCH = 16
LABEL_SCALE = 20.0  # inverse temperature of label probabilities; CLIP's own 100 would call every guess certain


class Listener:
    """Embeds sounds and names what they are like.

    ``labels`` are what can be heard; their embeddings come from the text tower, so any words will do. Runs without
    autograd.
    """

    def __init__(
        self, audio: AudioEncoder, text: ImageTextEncoder, labels: Sequence[str], *, device: torch.device
    ) -> None:
        self.audio, self.labels, self.device = audio, tuple(labels), device
        self.label_embeddings = torch.zeros(0, text.embed_dim, device=device)
        if self.labels:
            with torch.no_grad():
                self.label_embeddings = text.encode_text(list(self.labels)).to(device)

    def hear(self, sound: bytes | BinaryIO) -> Heard:
        """Return embedding and level of a sound file: windows of the encoder's length, pooled by loudness.

        Constant memory at any length. Raises `InvalidAudio`.
        """
        return self.hear_blocks(iter_audio(sound, sample_rate=self.audio.sample_rate))

    def hear_blocks(self, blocks: Iterable[Samples]) -> Heard:
        """Return what `hear` does of samples ``[T]`` at the encoder's rate, block by block."""
        hop = max(1, self.audio.num_samples // 2)
        windows = split_windows(blocks, window_samples=self.audio.num_samples, hop_samples=hop)
        return pool_stream(windows, self.encode, batch_size=WINDOW_BATCH)

    def embed(self, sound: bytes | BinaryIO) -> Tensor:
        """Return the unit-norm embedding ``[E]`` alone that `hear` returns."""
        return self.hear(sound).embedding

    def embed_windows(self, sound: bytes | BinaryIO) -> Tensor:
        """Return one embedding for each window that follows the one before without overlap, ``[N, E]``."""
        num = self.audio.num_samples
        blocks = iter_audio(sound, sample_rate=self.audio.sample_rate)
        windows = split_windows(blocks, window_samples=num, hop_samples=num)
        return torch.cat([self.encode(torch.from_numpy(window)[None]) for window in windows])

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Return the probability of each label, ``[..., num_labels]``, for embeddings ``[..., E]``."""
        return torch.softmax(LABEL_SCALE * embeddings.to(self.device) @ self.label_embeddings.T, -1)

    def top(self, embedding: Tensor, num: int = 3) -> tuple[tuple[str, float], ...]:
        """Return the ``num`` likeliest labels of an embedding ``[E]`` with their probabilities, best first."""
        probabilities = self.probabilities(embedding).tolist()
        best = sorted(range(len(probabilities)), key=probabilities.__getitem__, reverse=True)[:num]
        return tuple((self.labels[index], probabilities[index]) for index in best)

    def encode(self, waveforms: Tensor) -> Tensor:
        """Return the unit-norm embeddings ``[B, E]`` of windows ``[B, T]`` at the encoder's rate."""
        with torch.no_grad():
            return self.audio.encode_audio(waveforms.to(self.device)).float()
