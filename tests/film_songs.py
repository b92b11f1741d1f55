"""Short songs for the tests of films, and how to make a film of the tiny world."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from tiny_world import SAMPLE_RATE

from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings
from soundguide.film.make import Film, Unwatched, Watcher, make_film
from soundguide.film.settings import FilmSettings
from soundguide.manipulator import Manipulator
from soundguide.records import PreparedEdit

SHORT = EditSettings(num_steps=3, num_views=1, inversion_steps=4)
CALM = FilmSettings(fps=8, segment_seconds=1, react=0, size=32)  # needs no librosa


def swelling(seconds: float, seed: int = 0) -> bytes:
    """Return a WAV of noise that swells and fades."""
    rng = np.random.default_rng(seed)
    level = 0.02 + 0.3 * np.sin(np.linspace(0, np.pi * seconds / 2, round(seconds * SAMPLE_RATE))) ** 2
    return encode_wav((rng.uniform(-1, 1, len(level)) * level).astype(np.float32), SAMPLE_RATE)


def film(
    manipulator: Manipulator,
    output: Path,
    song: bytes,
    settings: FilmSettings = CALM,
    *,
    edit: PreparedEdit | None = None,
    keep: bool = False,
    watcher: Watcher = Unwatched(),  # noqa: B008 - has no state
) -> Film:
    """Make a film of seed 7."""
    edit = edit or PreparedEdit("film", SHORT, seed=7)
    return make_film(manipulator, edit, io.BytesIO(song), output, settings, keep=keep, watcher=watcher)
