"""The image-text encoder over decoded clips: frames, texts and augmented texts, each embedded once, in batches."""

import io
from collections.abc import Sequence
from random import Random
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from PIL import Image

from soundguide.clips.facts import Augment, EmbedderConfig, find_augment
from soundguide.clips.tables import DECODED_SCHEMA, clip_table
from soundguide.errors import InvalidConfig
from soundguide.images import ImageLimits, decode_image
from soundguide.models.checkpoint import load_model
from soundguide.models.image_text import OpenClipEncoder
from soundguide.models.manifest import resolve_model
from soundguide.views import area_resize
from soundguide.world import device_name, picture

Floats = NDArray[np.float32]
Value = TypeVar("Value")
_STORED_FRAMES = ImageLimits(min_side=1)  # they were bounded when they were cut


class ClipEmbedder:
    """Turns tables of decoded clips into tables of `ClipPair` rows; Ray Data's actor, a plain class.

    `augment` None takes `facts.find_augment`'s. Raises `InvalidCheckpoint` or
    `InvalidConfig` where the model is missing or has another role.
    """

    def __init__(self, config: EmbedderConfig, augment: Augment | None = None) -> None:
        if config.num_threads:
            torch.set_num_threads(config.num_threads)
        self._config = config
        self._device = torch.device(device_name(config.device))
        loaded = load_model(resolve_model(config.image_text, "image_text"), device=self._device)
        if not isinstance(loaded.module, OpenClipEncoder):
            raise InvalidConfig(
                f"embedder.image_text names a model of kind {loaded.config.kind!r}. Name an image-text encoder"
            )
        self._model = loaded.module
        self._augment = augment or find_augment(config)

    @property
    def embed_dim(self) -> int:
        """Width E of the embeddings."""
        return self._model.embed_dim

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return decoded clips (`tables.DECODED_SCHEMA`) with their embeddings (`tables.clip_schema`), order kept."""
        good = np.array(pc.equal(batch["status"], "ok"), dtype=bool)
        ids, texts = batch["id"].to_pylist(), batch["text"].to_pylist()
        augmented = [
            self._variants(id, text) if ok else [] for id, text, ok in zip(ids, texts, good.tolist(), strict=True)
        ]
        shown = good & np.array(batch["has_frame"], dtype=bool)
        image_embeddings = np.zeros((batch.num_rows, self.embed_dim), np.float32)
        image_embeddings[shown] = self.embed_frames(batch["frame"].filter(pa.array(shown)).to_pylist())
        spoken = [text for text, ok in zip(texts, good.tolist(), strict=True) if ok]
        flat = [variant for variants in augmented for variant in variants]
        embedded = self.embed_texts([*spoken, *flat])
        text_embeddings = np.zeros_like(image_embeddings)
        text_embeddings[good] = embedded[: len(spoken)]
        finite = np.isfinite(image_embeddings).all(1) & np.isfinite(text_embeddings).all(1)
        if not (finite.all() and np.isfinite(embedded).all()):
            raise InvalidConfig(
                f"the image-text encoder {self._config.image_text} gives embeddings that are not finite. Check its "
                "weights"
            )
        return clip_table(
            batch.cast(DECODED_SCHEMA),
            image_embeddings=image_embeddings,
            text_embeddings=text_embeddings,
            augmented_texts=augmented,
            augmented_text_embeddings=embedded[len(spoken) :],
        )

    @torch.no_grad()
    def embed_frames(self, frames: Sequence[bytes]) -> Floats:
        """Embed N encoded pictures as ``[N, E]``."""
        side = self._model.resolution
        parts = [np.zeros((0, self.embed_dim), np.float32)]
        for chunk in _chunks(frames, self._config.batch_size):
            images = [self._resized(data, side) for data in chunk]
            parts.append(self._model.encode_image(torch.cat(images)).float().cpu().numpy())
        return np.concatenate(parts)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Embed N texts as ``[N, E]``; one that stands there many times is embedded once."""
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        parts = [np.zeros((0, self.embed_dim), np.float32)]
        for chunk in _chunks(list(places), self._config.batch_size):
            parts.append(self._model.encode_text(list(chunk)).float().cpu().numpy())
        rows: Floats = np.concatenate(parts)[[places[text] for text in texts]]
        return rows

    def _resized(self, data: bytes, side: int) -> torch.Tensor:
        """Return a stored frame as ``[1, 3, R, R]``: sizes differ, so each is resized as the encoder would itself."""
        square = decode_image(data, resolution=_side_of(data), limits=_STORED_FRAMES)
        return area_resize(picture(square, self._device)[None], side)

    def _variants(self, id: str, text: str) -> list[str]:
        num = self._config.num_augmented_texts
        if not num:
            return []
        # The clip's own generator: its variants do not depend on its neighbours.
        return self._augment(text, num, Random(f"{self._config.seed}:{id}"))


def _side_of(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return min(image.size)


def _chunks(values: Sequence[Value], size: int) -> list[Sequence[Value]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
