"""From rows of prepared shards to the tensors of a step: sounds cut, texts chosen, weak partners drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundguide.audio.decode import Samples, decode_audio
from soundguide.clips.tables import fixed_rows, stable_hash
from soundguide.clips.weak_partners import WeakPartners
from soundguide.errors import InvalidAudio, InvalidManifest

COLUMNS = ("id", "labels", "sound", "has_frame", "image_embedding", "text_embedding", "augmented_text_embeddings")
"""The columns of the shards that training reads."""

_CROP, _TEXT = 1, 2  # streams of chance of one clip


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """N clips of one worker.

    ``waveforms``: ``[N, T]`` float32 at the encoder's rate. ``text``, ``image``, ``partner``: ``[N, E]``, unit rows of
    CLIP; ``image`` and ``partner`` are zeros where ``has_image`` or ``has_partner`` ``[N]``, bool, is False.
    ``labels``: ``[N, L]``, bool. ``fell_back``: ``[N]``, bool, where no other clip shares a label, so that the partner
    is the clip's own frame.
    """

    waveforms: Tensor
    text: Tensor
    image: Tensor
    partner: Tensor
    has_image: Tensor
    has_partner: Tensor
    fell_back: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.waveforms)

    def to(self, device: torch.device) -> ClipBatch:
        """Return the batch on another device."""
        return ClipBatch(**{name: rows.to(device, non_blocking=True) for name, rows in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class BatchReader:
    """Turns tables of clips (`COLUMNS`) into `ClipBatch`; what a clip gets depends on seed, epoch and its id alone.

    ``num_samples``, ``sample_rate``: of the encoder. ``partners`` None leaves the partners out. ``text_share``: chance
    that a clip gets one of its augmented texts.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        num_samples: int,
        sample_rate: int,
        partners: WeakPartners | None,
        text_share: float,
        seed: int,
    ) -> None:
        self._columns = {label: column for column, label in enumerate(labels)}
        self._num_samples, self._sample_rate = num_samples, sample_rate
        self._partners, self._text_share, self.seed = partners, text_share, seed

    def read(self, table: pa.Table, *, epoch: int) -> ClipBatch:
        """Return the clips of a table in their order.

        Raises `InvalidManifest` for a clip whose sound cannot be read or whose label the set does not have.
        """
        ids, labels = table["id"].to_pylist(), table["labels"].to_pylist()
        image, has_image = fixed_rows(table["image_embedding"]), np.array(table["has_frame"], dtype=bool)
        marked = np.zeros((len(ids), len(self._columns)), bool)
        waveforms = np.zeros((len(ids), self._num_samples), np.float32)
        text = fixed_rows(table["text_embedding"]).copy()
        variants = table["augmented_text_embeddings"]
        for row, (id, names) in enumerate(zip(ids, labels, strict=True)):
            waveforms[row] = self._window(id, table["sound"][row].as_py(), self._rng(id, epoch, _CROP))
            marked[row, [self._column(id, name) for name in names]] = True
            others = variants[row].values
            rng = self._rng(id, epoch, _TEXT)
            if len(others) and rng.random() < self._text_share:
                text[row] = fixed_rows(others)[rng.integers(len(others))]
        partner, rows = np.zeros_like(text), np.full(len(ids), -2)
        if self._partners is not None:
            drawn = self._partners.draw(ids, labels, image, seed=self.seed, epoch=epoch)
            partner, rows = drawn.embeddings, drawn.rows
        arrays: dict[str, NDArray[np.generic]] = {
            "waveforms": waveforms,
            "text": text,
            "image": image.copy(),
            "partner": partner,
            "has_image": has_image,
            "has_partner": rows > -2,
            "fell_back": rows == -1,
            "labels": marked,
        }
        return ClipBatch(**{name: torch.from_numpy(rows) for name, rows in arrays.items()})

    def _window(self, id: str, sound: bytes, rng: np.random.Generator) -> Samples:
        """Return a window of the encoder's length from a place of chance; a shorter sound is repeated."""
        try:
            waveform = decode_audio(sound, sample_rate=self._sample_rate)
        except InvalidAudio as error:
            raise InvalidManifest(
                f"the clip {id!r} has a sound that cannot be read ({error}). Prepare the clips again"
            ) from error
        if len(waveform) < self._num_samples:
            waveform = np.tile(waveform, -(-self._num_samples // len(waveform)))
        start = int(rng.integers(len(waveform) - self._num_samples + 1))
        return waveform[start : start + self._num_samples]

    def _column(self, id: str, label: str) -> int:
        try:
            return self._columns[label]
        except KeyError as error:
            raise InvalidManifest(f"the clip {id!r} has the label {label!r}, which is new. Begin a new run") from error

    def _rng(self, id: str, epoch: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, stream, stable_hash(id)))
