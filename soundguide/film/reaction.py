"""What a film reacts to: loudness, onsets and beat of its song, as one number from 0 to 1 for each frame."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d, uniform_filter1d

from soundguide.audio.decode import Samples, iter_audio
from soundguide.errors import InvalidConfig
from soundguide.film.segments import SONG_LIMITS
from soundguide.models.fetch import CACHE_VARIABLE, cache_folder

Curve = NDArray[np.float64]

RATE_HZ, HOP, N_FFT = 22_050, 512, 2_048  # librosa's own, for which its beat tracker is made
ENVELOPE_HZ = RATE_HZ / HOP

LOUDNESS, ONSETS, BEAT = 0.55, 0.2, 0.25  # their shares
MOMENT_SECONDS = 0.4  # over which loudness is taken (EBU R 128: momentary)
RANGE_SECONDS, LEAST_RANGE_DB = 20.0, 12.0  # soft and loud are what they are for the passage around
FLOOR_DB = -70.0  # softer is silence
PULSE_SECONDS = 0.25  # in which a beat fades
ATTACK_SECONDS, RELEASE_SECONDS = 0.15, 0.35

_BEAT_SECONDS, _BEAT_MARGIN = 60.0, 10.0  # the beat is tracked in parts that overlap: memory must not grow


@dataclass(frozen=True, slots=True)
class Envelopes:
    """How a song goes, `ENVELOPE_HZ` values a second; an hour takes a megabyte.

    ``level_db`` ``[N]``: RMS; ``flux`` ``[N]``: onset strength, dB; ``beats``: seconds.
    """

    level_db: NDArray[np.float32]
    flux: NDArray[np.float32]
    beats: Curve


def measure_song(song: bytes | BinaryIO) -> Envelopes:
    """Measure a sound file as a stream. Raises `InvalidAudio`, and `InvalidConfig` where librosa is not installed."""
    _compile_once()
    return _measure(iter_audio(song, sample_rate=RATE_HZ, limits=SONG_LIMITS))


def _measure(blocks: Iterable[Samples]) -> Envelopes:
    librosa = require_librosa()
    levels: list[NDArray[np.float32]] = []
    fluxes: list[NDArray[np.float32]] = []
    before: NDArray[np.float32] | None = None
    for samples in overlapping(blocks):
        framing = {"hop_length": HOP, "center": False}
        rms = librosa.feature.rms(y=samples, frame_length=N_FFT, **framing)[0]
        levels.append(librosa.amplitude_to_db(rms, ref=1.0, amin=1e-5, top_db=None).astype(np.float32))
        power = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, n_fft=N_FFT, **framing)
        mel = librosa.power_to_db(power, ref=1.0, amin=1e-4, top_db=None)  # [M, F]
        joined = np.concatenate([mel[:, :1] if before is None else before, mel], 1)
        # spectral flux (Böck & Widmer 2013), as librosa.onset.onset_strength has it
        fluxes.append(np.maximum(0, np.diff(joined, axis=1)).mean(0).astype(np.float32))
        before = mel[:, -1:]
    flux = np.concatenate(fluxes)
    return Envelopes(np.concatenate(levels), flux, _beats(flux))


def overlapping(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """Cut blocks ``[T]`` anew so that the frames within the pieces are those of the whole song, each once.

    Half a frame of silence is added before and after: frame k has its middle at sample k * `HOP`.
    """
    held = np.zeros(N_FFT // 2, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        num = (held.size - N_FFT) // HOP + 1
        if num > 0:
            yield held[: (num - 1) * HOP + N_FFT]
            held = held[num * HOP :]
    held = np.concatenate([held, np.zeros(N_FFT // 2, np.float32)])
    if held.size >= N_FFT:
        yield held


def _beats(flux: NDArray[np.float32]) -> Curve:
    """Return the beats in seconds, tracked in parts (Ellis 2007, librosa)."""
    librosa = require_librosa()
    part, margin = round(_BEAT_SECONDS * ENVELOPE_HZ), round(_BEAT_MARGIN * ENVELOPE_HZ)
    found: list[Curve] = []
    for start in range(0, len(flux), part):
        first = max(0, start - margin)
        around = flux[first : start + part + margin]
        if not around.any():
            continue
        _, frames = librosa.beat.beat_track(onset_envelope=around, sr=RATE_HZ, hop_length=HOP, trim=False)
        frames = np.asarray(frames) + first
        found.append(frames[(frames >= start) & (frames < start + part)])
    beats: Curve = np.concatenate([np.zeros(0), *found]) / ENVELOPE_HZ
    return beats


def drive_of(envelopes: Envelopes, *, num_frames: int, fps: int) -> Curve:
    """Return how much goes on in each frame, ``[num_frames]`` in [0, 1], smoothed by attack and release.

    No frame differs from the one before by more than `largest_step`.
    """
    wanted = LOUDNESS * loudness_of(envelopes.level_db) + _hits_of(envelopes)
    # frame k shows what sounds from k / fps on; the attack is looked ahead for, so that it does not come late
    ahead = ATTACK_SECONDS / 2
    first = ((np.arange(num_frames) / fps + ahead) * ENVELOPE_HZ).astype(int).clip(max=len(wanted) - 1)
    peaks = np.maximum.reduceat(wanted, first)
    rise, fall = largest_step(fps), _share(fps, RELEASE_SECONDS)
    smooth, value = np.empty(num_frames), 0.0
    for frame, peak in enumerate(peaks.tolist()):
        value += (rise if peak > value else fall) * (peak - value)
        smooth[frame] = value
    return smooth


def loudness_of(level_db: NDArray[np.float32]) -> Curve:
    """Return momentary loudness ``[N]`` between 0, the softest of the passage around, and 1, the loudest."""
    power = uniform_filter1d(10 ** (level_db.astype(np.float64) / 10), _num(MOMENT_SECONDS), mode="nearest")
    level = np.maximum(10 * np.log10(np.maximum(power, 1e-12)), FLOOR_DB)
    around = _num(RANGE_SECONDS)
    high, low = (
        uniform_filter1d(extreme(level, around, mode="nearest"), around, mode="nearest")
        for extreme in (maximum_filter1d, minimum_filter1d)
    )
    # music of one level throughout must not be torn apart
    wider = np.maximum(0, LEAST_RANGE_DB - (high - low)) / 2
    loudness: Curve = ((level - low + wider) / (high - low + 2 * wider)).clip(0, 1)
    loudness[level <= FLOOR_DB] = 0
    return loudness


def largest_step(fps: int) -> float:
    """Return the most by which the drive changes from one frame to the next: what is left of 1 times the attack."""
    return _share(fps, ATTACK_SECONDS)


def _hits_of(envelopes: Envelopes) -> Curve:
    flux = envelopes.flux.astype(np.float64)
    peak = uniform_filter1d(
        maximum_filter1d(flux, _num(RANGE_SECONDS), mode="nearest"), _num(RANGE_SECONDS), mode="nearest"
    )
    # the root: a few hard strokes must not make all others small
    onsets = np.sqrt(np.divide(flux, peak, out=np.zeros_like(flux), where=peak > 0.1).clip(0, 1))
    at = np.round(envelopes.beats * ENVELOPE_HZ).astype(int)
    at = at[at < len(flux)]
    pulses, fade = np.zeros_like(flux), math.exp(-1 / (PULSE_SECONDS * ENVELOPE_HZ))
    # a beat counts as much as what sounds on it: trackers find beats where there are none, too
    near = maximum_filter1d(onsets, 5, mode="nearest")
    pulses[at] = near[at]
    value = 0.0
    for index, pulse in enumerate(pulses.tolist()):
        value = max(pulse, value * fade)
        pulses[index] = value
    hits: Curve = ONSETS * onsets + BEAT * pulses
    return hits


def _num(seconds: float) -> int:
    return max(1, round(seconds * ENVELOPE_HZ))


def _share(fps: int, seconds: float) -> float:
    return 1 - math.exp(-1 / (fps * seconds))


def _numba_folder() -> Path:
    return cache_folder() / "numba"


def is_compiled() -> bool:
    """Say whether librosa's functions were compiled before; `measure_song` takes up to a minute longer if not."""
    return any(_numba_folder().rglob("*.nbi"))


@cache
def _compile_once() -> None:
    """Compile librosa's functions into a cache of ours, one process at a time.

    Processes that compile them side by side, as actors on one machine do, can leave Numba's cache with entries that
    crash whoever loads them. So it is ours alone, and locked.
    """
    folder = _numba_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidConfig(f"{folder} cannot be made ({error}). Set {CACHE_VARIABLE} to a folder that can") from error
    with FileLock(folder / ".lock"):
        rng = np.random.default_rng(0)
        _measure([rng.standard_normal(4 * RATE_HZ).astype(np.float32)])


def require_librosa() -> ModuleType:
    """Return librosa. Raises `InvalidConfig` where it is not installed."""
    os.environ.setdefault("NUMBA_CACHE_DIR", str(_numba_folder()))  # read when Numba is imported, which librosa does
    try:
        import librosa
    except ImportError as error:
        raise InvalidConfig(
            "a film that reacts to its song needs librosa. Install it: pip install 'soundguide[music]'; or give "
            "--react 0."
        ) from error
    module: ModuleType = librosa
    return module
