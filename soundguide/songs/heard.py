"""What was heard of a song, one embedding for each segment, and the small file that keeps it. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from soundguide.errors import InvalidAudio

SILENT_RMS = 10.0 ** (-70.0 / 20.0)  # a pause is never quite silent: noise, and the resampler's ringing at its ends

_REMEDY = "Give another output folder, in which the songs are heard again"


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a song, in order: at least one.

    ``embeddings`` ``[N, E]`` float32, unit norm, 0 where a segment has none; ``rms`` ``[N]``: mean of its windows' root
    mean squares, the weight of the segment; ``level`` ``[N]``: the same weighted by itself, which is how loud its
    sounding parts are, full scale 1; ``seconds`` ``[N]``: lengths.
    """

    embeddings: NDArray[np.float32]
    rms: NDArray[np.float32]
    level: NDArray[np.float32]
    seconds: NDArray[np.float64]

    def __len__(self) -> int:
        """Return N."""
        return len(self.seconds)

    @property
    def audible(self) -> NDArray[np.bool_]:
        """Which segments can guide an edit, ``[N]``: above -70 dBFS, and with an embedding."""
        heard: NDArray[np.bool_] = (self.rms >= SILENT_RMS) & (np.abs(self.embeddings).max(1) > 0)
        return heard

    def span(self, index: int) -> tuple[float, float]:
        """Return where a segment begins and ends in the song, seconds."""
        start = float(self.seconds[:index].sum())
        return start, start + float(self.seconds[index])

    def level_db(self, index: int) -> float:
        """Return the level of a segment, dB relative to full scale. Raises `InvalidAudio` for one that is silent."""
        if not self.audible[index]:
            start, end = self.span(index)
            raise InvalidAudio(
                f"the segment from {start:g} to {end:g} s is silent, or its parts cancel each other; there is nothing "
                "to be guided by. Leave it out, or take one picture for the whole song"
            )
        return 20 * math.log10(float(self.level[index]))

    def encode(self, metadata: dict[str, str]) -> bytes:
        """Return the content of a file, safetensors with ``metadata``. Equal input gives equal bytes."""
        from safetensors.numpy import save

        return save({name: np.ascontiguousarray(getattr(self, name)) for name in self.__slots__}, metadata=metadata)

    @classmethod
    def decode(cls, data: bytes, uri: str) -> Self:
        """Return what `encode` wrote to ``uri``. Raises `InvalidAudio` where it is damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            return cls(**load(data))
        except (SafetensorError, TypeError) as exc:
            raise InvalidAudio(f"{uri} holds no segments of a song ({exc}). {_REMEDY}") from exc
