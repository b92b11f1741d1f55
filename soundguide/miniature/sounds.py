"""The synthesiser of the miniature world: a label and an intensity become a waveform.

`synthesise` renders one label; `mix` and `over` put sounds together, `room` into a place, `recording_chain` through
a microphone. Every parameter comes from a train range, or with ``ranges="held_out"`` from just outside of it, so
that generalisation can be measured. The generator that is passed is the only source of chance.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from soundguide.errors import InvalidSettings
from soundguide.miniature import music, sounds_elements, sounds_life, sounds_town
from soundguide.miniature.dsp import (
    SAMPLE_RATE_HZ,
    Draw,
    Floats,
    Ranges,
    db,
    impulses,
    limit,
    seconds_axis,
    shaped_noise,
    unit,
)

__all__ = ["SAMPLE_RATE_HZ", "Draw", "Ranges", "at_intensity", "mix", "over", "recording_chain", "room", "synthesise"]

MIN_SECONDS, MAX_SECONDS = 0.05, 120.0
QUIET_RMS_DB, LOUD_RMS_DB = -40.0, -15.0  # RMS at intensity 0 and 1, relative to full scale
PEAK_OVER_RMS_DB = 15.0  # sounds with rarer peaks (snaps, booms) are set by their peaks instead of their RMS
FADE_SECONDS = 0.005

_SYNTHESISERS: dict[str, Callable[[Draw, int, float], Floats]] = {
    "raining": sounds_elements.raining,
    "thunderstorm": sounds_elements.thunderstorm,
    "wind noise": sounds_elements.wind_noise,
    "fire crackling": sounds_elements.fire_crackling,
    "sea waves": sounds_elements.sea_waves,
    "bird song": sounds_life.bird_song,
    "crickets chirping at night": sounds_life.crickets_chirping_at_night,
    "fireworks exploding": sounds_life.fireworks_exploding,
    "river flowing": sounds_elements.river_flowing,
    "walking in snow": sounds_life.walking_in_snow,
    "city traffic": sounds_town.city_traffic,
    "train passing": sounds_town.train_passing,
    "underwater bubbling": sounds_elements.underwater_bubbling,
    "church bells": sounds_town.church_bells,
    "funny music": music.funny_music,
    "latin music": music.latin_music,
    "techno music": music.techno_music,
    "dark ambient music": music.dark_ambient_music,
    "orchestral music": music.orchestral_music,
}


def synthesise(
    label: str, *, seconds: float, intensity: float, rng: np.random.Generator, ranges: Ranges = "train"
) -> NDArray[np.float32]:
    """Render one of `LABELS` as a mono waveform ``[T]`` at 16 kHz, float32 in (-1, 1).

    ``seconds`` 0.05..120; ``intensity`` 0..1 sets loudness (about -40 to -15 dBFS) and content. A clip starts anywhere
    in the sound, as a cut from a recording does. Raises `InvalidSettings` for an unknown label or a value out of range.
    """
    return perform(_SYNTHESISERS, label, seconds=seconds, intensity=intensity, rng=rng, ranges=ranges)


def perform(
    synthesisers: Mapping[str, Callable[[Draw, int, float], Floats]],
    label: str,
    *,
    seconds: float,
    intensity: float,
    rng: np.random.Generator,
    ranges: Ranges,
) -> NDArray[np.float32]:
    """Render a label with one of ``synthesisers``, at its level; otherwise as `synthesise`."""
    if label not in synthesisers:
        raise InvalidSettings(f"label {label!r} is unknown; use one of: {', '.join(synthesisers)}")
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise InvalidSettings(f"seconds is {seconds}; use a length of {MIN_SECONDS} to {MAX_SECONDS} seconds")
    if not 0.0 <= intensity <= 1.0:
        raise InvalidSettings(f"intensity is {intensity}; use a number from 0 (a whisper) to 1 (loud)")
    num_samples = round(seconds * SAMPLE_RATE_HZ)
    waveform = synthesisers[label](Draw(rng, ranges), num_samples, intensity)
    return at_intensity(waveform, intensity)


def mix(parts: Sequence[NDArray[np.float32]], gains_db: Sequence[float]) -> NDArray[np.float32]:
    """Sum waveforms of one length ``[T]`` after their gains in dB; where the sum would clip, all of it gets softer.

    Raises `InvalidSettings` when there are no parts, or the lengths or the number of gains differ.
    """
    if not parts or len(parts) != len(gains_db) or len({len(part) for part in parts}) != 1:
        raise InvalidSettings(
            f"mix got {len(parts)} parts of lengths {sorted({len(part) for part in parts})} and {len(gains_db)} gains; "
            "give at least one part, all of one length, and one gain for each"
        )
    total = np.zeros(len(parts[0]))
    for part, gain_db in zip(parts, gains_db, strict=True):
        total += db(gain_db) * part
    return _with_headroom(total)


def over(waveform: NDArray[np.float32], background: NDArray[np.float32], level_db: float) -> NDArray[np.float32]:
    """Put a waveform ``[T]`` over a ``background`` whose RMS is ``level_db`` above (below: negative) its own."""
    return mix((waveform, background), (0.0, level_db + _rms_db(waveform) - _rms_db(background)))


def room(waveform: NDArray[np.float32], *, rng: np.random.Generator, ranges: Ranges = "train") -> NDArray[np.float32]:
    """Place a waveform ``[T]`` in a synthetic room at unchanged RMS: early reflections, then a decaying diffuse tail.

    RT60 0.15-1.5 s, highs dying sooner; wet level -18 to -3 dB; first reflections within 4-45 ms.
    """
    draw = Draw(rng, ranges)
    rt60 = draw.log_uniform(0.15, 1.5)
    t = seconds_axis(int(min(rt60, 1.2) * SAMPLE_RATE_HZ))
    # 60 dB is a factor of 1000 in amplitude
    low = shaped_noise(rng, len(t), (0, 0, 0, 0, -6, -18, -30)) * np.exp(-np.log(1000) * t / rt60)
    high = shaped_noise(rng, len(t), (-40, -30, -20, -8, 0, 0, -3)) * np.exp(-np.log(1000) * t / (0.5 * rt60))
    tail = (low + draw.uniform(0.4, 0.9) * high) * np.minimum(1.0, t / 0.02)
    num_early = int(rng.integers(4, 12))
    delays = 0.004 + draw.uniform(0.015, 0.04) * rng.random(num_early)
    early = impulses(len(t), delays, rng.choice([-1.0, 1.0], num_early) * np.exp(-delays / 0.02))
    diffuse = tail / np.sqrt(np.sum(tail**2)) + draw.uniform(0.3, 0.8) * early / np.sqrt(np.sum(early**2) + 1e-9)
    response = db(draw.uniform(-18.0, -3.0)) * diffuse
    response[0] += 1.0
    wet = signal.oaconvolve(waveform.astype(np.float64), response)[: len(waveform)]
    return _with_headroom(unit(wet) * float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))))


def recording_chain(
    waveform: NDArray[np.float32], *, rng: np.random.Generator, ranges: Ranges = "train"
) -> NDArray[np.float32]:
    """Pass a waveform ``[T]`` through a drawn microphone: tone, band limits, background noise, level.

    Tilt within 2 dB an octave, bumps of 4 dB, high-pass 30-180 Hz, low-pass 3.2-7.5 kHz, SNR 12-45 dB, level -10..5 dB.
    """
    draw, num_samples = Draw(rng, ranges), len(waveform)
    tilt, bumps = draw.uniform(-2.0, 2.0), [draw.uniform(-4.0, 4.0) for _ in range(7)]
    low_hz, high_hz = draw.log_uniform(30.0, 180.0), draw.log_uniform(3200.0, 7500.0)
    steep = draw.uniform(1.0, 3.0)
    frequencies = np.maximum(np.fft.rfftfreq(num_samples, 1 / SAMPLE_RATE_HZ), 5.0)
    octaves = np.log2(frequencies / 700.0)
    curve = 10 ** ((tilt * octaves + np.interp(octaves, np.arange(-3, 4), bumps)) / 20)
    curve /= np.sqrt(1 + (low_hz / frequencies) ** (2 * steep)) * np.sqrt(1 + (frequencies / high_hz) ** (4 * steep))
    heard = np.fft.irfft(np.fft.rfft(waveform.astype(np.float64)) * curve, num_samples)
    rms_in = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    colour = draw.uniform(-6.0, 0.0)  # dB an octave: from brown to white
    hiss = shaped_noise(rng, num_samples, [colour * k for k in range(7)])
    noisy = unit(heard) + db(-draw.uniform(12.0, 45.0)) * hiss
    return _with_headroom(unit(noisy) * rms_in * db(draw.uniform(-10.0, 5.0)))


def at_intensity(waveform: NDArray[np.floating[Any]], intensity: float) -> NDArray[np.float32]:
    """Give a waveform ``[T]`` the level of an intensity, 0..1; round off what peaks remain, and fade the cut ends."""
    target = db(QUIET_RMS_DB + (LOUD_RMS_DB - QUIET_RMS_DB) * intensity)
    level = unit(waveform - waveform.mean())
    peak = float(np.quantile(np.abs(level), 0.999))
    loud = limit(level * target * min(1.0, db(PEAK_OVER_RMS_DB) / max(peak, 1e-9)))
    fade = _fade_in(len(loud))
    return (loud * fade * fade[::-1]).astype(np.float32)


def _fade_in(num_samples: int) -> Floats:
    """Return a ramp from 0 to 1 over the first milliseconds, then 1, ``[T]``."""
    return np.minimum(1.0, seconds_axis(num_samples) / FADE_SECONDS)


def _rms_db(waveform: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)) + 1e-12))


def _with_headroom(waveform: Floats) -> NDArray[np.float32]:
    """Scale down what would exceed full scale; leave the rest alone."""
    peak = float(np.max(np.abs(waveform), initial=0.0))
    return (waveform * (0.98 / peak if peak > 0.98 else 1.0)).astype(np.float32)
