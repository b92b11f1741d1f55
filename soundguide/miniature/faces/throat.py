"""A human voice from its parts: a buzzing source, breath, and the resonances of a throat of some size.

Waveforms ``[T]`` are float64 at `dsp.SAMPLE_RATE_HZ`, of free level. Source and filter as in Fant (1960).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import signal

from soundguide.miniature.dsp import SAMPLE_RATE_HZ, Draw, Floats, band, drift, unit
from soundguide.miniature.score import play, wavetable

VOWELS_HZ: dict[str, tuple[float, float, float]] = {
    "ah": (730.0, 1090.0, 2440.0),
    "uh": (640.0, 1190.0, 2390.0),
    "a": (660.0, 1720.0, 2410.0),
    "eh": (530.0, 1840.0, 2480.0),
    "ee": (270.0, 2290.0, 3010.0),
    "aw": (570.0, 840.0, 2410.0),
    "oo": (300.0, 870.0, 2240.0),
}
"""The first three resonances of each vowel: means of men's, Peterson and Barney (1952), table II."""

_HIGHER_HZ = (3400.0, 4500.0)
_BANDWIDTHS_HZ = (80.0, 90.0, 130.0, 190.0, 260.0)


@dataclass(frozen=True, slots=True)
class Speaker:
    """One voice: ``pitch_hz`` when calm; ``tract`` multiplies resonances, above 1 for a shorter throat.

    ``breath``: noise against tone; ``rough``: how unsteady, 0..1; ``dull``: fall of the source's partials.
    """

    pitch_hz: float
    tract: float
    breath: float
    rough: float
    dull: float


def draw_speaker(draw: Draw) -> Speaker:
    """Return a man, a woman, a child or anyone between."""
    small = draw.uniform(0.0, 1.0)
    return Speaker(
        pitch_hz=105.0 * 2 ** (1.3 * small) * draw.log_uniform(0.86, 1.16),
        tract=(0.94 + 0.36 * small) * draw.log_uniform(0.95, 1.05),
        breath=draw.log_uniform(0.04, 0.20),
        rough=draw.uniform(0.05, 0.5),
        dull=draw.uniform(0.9, 1.5),
    )


def phonate(speaker: Speaker, rng: np.random.Generator, hertz: Floats, *, breath: float = 1.0) -> Floats:
    """Return the source, a voice without a throat, at a pitch that moves ``[T]``; ``breath`` multiplies its own."""
    unsteady = 1 + 0.02 * speaker.rough * drift(rng, len(hertz), 25.0) + 0.01 * drift(rng, len(hertz), 4.0)
    moving = np.clip(hertz * unsteady, 50.0, 2500.0)
    partials = np.arange(1.0, 81.0) ** -speaker.dull
    tone = play(wavetable(float(moving.max()), list(partials)), moving)
    tone = unit(tone) * (1 + 0.25 * speaker.rough * drift(rng, len(hertz), 30.0))
    return tone + breath * speaker.breath * rng.standard_normal(len(hertz))


def resonate(source: Floats, vowel: str, speaker: Speaker) -> Floats:
    """Return a source ``[T]`` through the throat of a speaker that is shaped for a vowel, at RMS 1."""
    out = source
    for hertz, width in zip((*VOWELS_HZ[vowel], *_HIGHER_HZ), _BANDWIDTHS_HZ, strict=True):
        centre = min(hertz * speaker.tract, 7600.0)
        radius = np.exp(-np.pi * width * speaker.tract / SAMPLE_RATE_HZ)
        poles = (1.0, -2 * radius * np.cos(2 * np.pi * centre / SAMPLE_RATE_HZ), radius**2)
        out = signal.lfilter([sum(poles)], poles, out)
    lips: Floats = np.diff(out, prepend=0.0)  # they radiate highs better
    return unit(0.25 * out + lips * 2.0)


def glide(source: Floats, vowels: tuple[str, ...], speaker: Speaker) -> Floats:
    """Return a source ``[T]`` whose throat moves from the first vowel to the last."""
    place = np.linspace(0.0, len(vowels) - 1.0, len(source))
    heard = [np.clip(1 - np.abs(place - k), 0, 1) * resonate(source, vowel, speaker) for k, vowel in enumerate(vowels)]
    return np.asarray(np.sum(heard, axis=0), np.float64)


def aspirate(rng: np.random.Generator, num_samples: int, vowel: str, speaker: Speaker) -> Floats:
    """Return breath through an open throat, ``[T]`` at RMS 1."""
    noise = rng.standard_normal(num_samples)
    return unit(resonate(noise, vowel, speaker) + 0.6 * unit(band(noise, 1500.0, 7000.0)))


def sniff(draw: Draw, speaker: Speaker) -> Floats:
    """Return a wet, short breath in through the nose."""
    length = int(draw.uniform(0.10, 0.22) * SAMPLE_RATE_HZ)
    noise = band(draw.rng.standard_normal(length), 1400.0 * speaker.tract, 6500.0)
    return unit(noise) * swell(length, 0.5)


def swell(num_samples: int, peak: float) -> Floats:
    """Return an envelope that rises smoothly until the share ``peak`` of its length, and falls again."""
    place = (np.arange(num_samples) + 0.5) / max(num_samples, 1)
    angle = 0.5 * np.pi * np.where(place < peak, place / peak, 1 - (place - peak) / (1 - peak))
    return np.asarray(np.sin(angle) ** 2, np.float64)


def lay(out: Floats, start_s: float, sound: Floats) -> None:
    """Add a sound to ``out`` ``[T]`` from a time on, which may be negative; what lies outside is cut."""
    start = int(start_s * SAMPLE_RATE_HZ)
    begin, end = max(start, 0), min(start + len(sound), len(out))
    if begin < end:
        out[begin:end] += sound[begin - start : end - start]


def samples(seconds: float) -> int:
    """Return how many samples last so long, at least a few."""
    return max(int(seconds * SAMPLE_RATE_HZ), 32)
