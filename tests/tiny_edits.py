"""Prepared edits for the world of `tiny_world`, and how to do them."""

import asyncio
import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tiny_world import SAMPLE_RATE

from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings
from soundguide.manipulator import Manipulator
from soundguide.records import ManipulatedEdit, PreparedEdit

SHORT = EditSettings(num_steps=8, num_views=2, inversion_steps=6)


def noise(seed: int, num_samples: int = 6000) -> bytes:
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, num_samples).astype(np.float32)
    return encode_wav(samples, SAMPLE_RATE)


def with_sound(id: str, sound: bytes, settings: EditSettings = SHORT, seed: int | None = 0) -> PreparedEdit:
    return PreparedEdit(id, settings, sound, hashlib.sha256(sound).hexdigest(), seed=seed)


def with_text(id: str, text: str, settings: EditSettings = SHORT, seed: int = 0) -> PreparedEdit:
    return PreparedEdit(id, settings.override({"text": text}), seed=seed)


def with_photo(id: str, photo: NDArray[np.uint8], settings: EditSettings = SHORT) -> PreparedEdit:
    digest = hashlib.sha256(photo.tobytes()).hexdigest()
    return replace(with_sound(id, noise(0), settings, seed=None), photo=photo, source_sha256=digest)


def do(manipulator: Manipulator, edit: PreparedEdit) -> ManipulatedEdit:
    return asyncio.run(manipulator.edit(edit))


def do_all(manipulator: Manipulator, edits: list[PreparedEdit]) -> list[ManipulatedEdit]:
    async def main() -> list[ManipulatedEdit]:
        return await asyncio.gather(*(manipulator.edit(edit) for edit in edits))

    return asyncio.run(main())


def draw_photo(manipulator: Manipulator) -> NDArray[np.uint8]:
    """Return a picture that the generator can draw."""
    return do(manipulator, with_text("photo", "x", EditSettings(num_steps=0), seed=42)).image
