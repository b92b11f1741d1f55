"""A short piece that changes its style in the middle, to make films of.

``python -m soundguide.miniature.song OUT.flac`` writes half a minute; the same file every time.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soundguide.audio.decode import encode_flac
from soundguide.miniature.labels import MUSIC_STYLES
from soundguide.miniature.sounds import SAMPLE_RATE_HZ, Ranges, synthesise
from soundguide.storage import Storage

CROSSFADE_SECONDS = 2.0
SOFT_DB = -14.0  # a phrase's softest moment, against its loudest
PHRASE_SECONDS = (4.0, 8.0)
INTENSITY = 0.9


def change_of_style(
    first: str, second: str, *, seconds: float, rng: np.random.Generator, ranges: Ranges = "train"
) -> NDArray[np.float32]:
    """Return a piece ``[T]`` at 16 kHz that passes from one style of music to another in its middle.

    It is played in phrases that swell and fade, as music is. Raises `InvalidSettings` as `synthesise`.
    """
    num, faded = round(seconds * SAMPLE_RATE_HZ), round(CROSSFADE_SECONDS * SAMPLE_RATE_HZ)
    gain_db = phrases_db(num, rng)
    half = seconds / 2 + CROSSFADE_SECONDS / 2
    parts = [
        synthesise(style, seconds=half, intensity=INTENSITY, rng=rng, ranges=ranges).astype(np.float64)
        for style in (first, second)
    ]
    fade = np.sin(np.linspace(0, np.pi / 2, faded))  # of equal power
    parts[0][-faded:] *= fade[::-1]
    parts[1][:faded] *= fade
    piece = np.zeros(num)
    piece[: len(parts[0])] += parts[0][:num]
    piece[num - len(parts[1]) :] += parts[1]
    played: NDArray[np.float32] = (piece * 10 ** (gain_db / 20)).astype(np.float32)
    return played


def phrases_db(num_samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the gain ``[num_samples]`` of phrases of chance lengths, between `SOFT_DB` and 0."""
    turns = [-float(rng.uniform(*PHRASE_SECONDS)) / 2]
    while turns[-1] * SAMPLE_RATE_HZ < num_samples:
        turns.append(turns[-1] + float(rng.uniform(*PHRASE_SECONDS)) / 2)
    phase = np.pi * np.interp(np.arange(num_samples) / SAMPLE_RATE_HZ, turns, np.arange(len(turns)))
    gain: NDArray[np.float64] = SOFT_DB * (0.5 + 0.5 * np.cos(phase + np.pi * float(rng.integers(2))))
    return gain


if __name__ == "__main__":
    parser = ArgumentParser(prog="python -m soundguide.miniature.song", description="Write a piece in two styles.")
    parser.add_argument("output", nargs="?", default="out/song.flac", help="a .flac file (default: %(default)s)")
    parser.add_argument("--first", default="orchestral music", choices=MUSIC_STYLES)
    parser.add_argument("--second", default="techno music", choices=MUSIC_STYLES)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chance = np.random.default_rng(chosen.seed)
    song = change_of_style(chosen.first, chosen.second, seconds=chosen.seconds, rng=chance)
    Storage().write_bytes(str(Path(chosen.output)), encode_flac(song, SAMPLE_RATE_HZ))
    print(chosen.output)
