"""The six sounds of the face world: people who giggle, sob, cough, sneeze, scream and yawn.

Same conventions as `soundguide.miniature.sounds`: levels, 16 kHz, ranges and the generator as the only source of
chance. Every clip has one speaker.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from soundguide.miniature.dsp import (
    SAMPLE_RATE_HZ,
    Draw,
    Floats,
    Ranges,
    band,
    bed,
    db,
    drift,
    seconds_axis,
    unit,
)
from soundguide.miniature.faces.throat import (
    Speaker,
    aspirate,
    draw_speaker,
    glide,
    lay,
    phonate,
    resonate,
    samples,
    sniff,
    swell,
)
from soundguide.miniature.sounds import perform

ROOM_DB = (0.0, -3.0, -8.0, -12.0, -17.0, -22.0, -28.0)


def synthesise(
    label: str, *, seconds: float, intensity: float, rng: np.random.Generator, ranges: Ranges = "train"
) -> NDArray[np.float32]:
    """Render one of `labels.LABELS` as a mono waveform ``[T]`` at 16 kHz, float32 in (-1, 1).

    Arguments and errors as `soundguide.miniature.sounds.synthesise`.
    """
    return perform(_VOICES, label, seconds=seconds, intensity=intensity, rng=rng, ranges=ranges)


def giggling(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return bouts of quick, falling syllables, ha ha ha, with gasps between them."""
    speaker, rng, out = draw_speaker(draw), draw.rng, np.zeros(num_samples)
    rate, rise = draw.uniform(4.3, 6.3), draw.log_uniform(1.25, 1.9)
    vowel = draw.pick(("ah", "uh", "a", "eh", "ee"))
    now = -rng.uniform(0.0, 0.8)
    while now < num_samples / SAMPLE_RATE_HZ:
        count = int(rng.integers(4, 8)) + round(5 * intensity * rng.random())
        for k in range(count):
            share = k / count
            pitch = speaker.pitch_hz * rise * (1 + 0.45 * intensity) * (1.15 - 0.35 * share) * rng.uniform(0.96, 1.05)
            loud = (0.55 + 0.45 * intensity) * (1.0 - 0.6 * share**1.5)
            lay(out, now, loud * _laugh(draw, speaker, pitch, vowel, 1 / rate))
            now += rng.uniform(0.9, 1.1) / rate * (1 + 0.15 * share)
        gasp = samples(draw.uniform(0.18, 0.40))
        lay(out, now + 0.05, db(draw.uniform(-18.0, -9.0)) * aspirate(rng, gasp, "eh", speaker) * swell(gasp, 0.7))
        now += gasp / SAMPLE_RATE_HZ + rng.uniform(0.08, 0.45) * (1.3 - intensity)
    return _in_a_room(draw, out)


def _laugh(draw: Draw, speaker: Speaker, pitch: float, vowel: str, length_s: float) -> Floats:
    """Return one syllable: a puff of breath, then the vowel."""
    length = samples(length_s)
    t = np.linspace(0.0, 1.0, length)
    hertz = pitch * (1 + 0.10 * np.sin(np.pi * np.clip(t * 1.5, 0, 1)) - 0.12 * t)
    voiced = resonate(phonate(speaker, draw.rng, hertz), vowel, speaker) * np.clip((t - 0.28) / 0.10, 0, 1)
    voiced *= np.clip((0.95 - t) / 0.35, 0, 1) ** 0.8
    puff = aspirate(draw.rng, length, vowel, speaker) * swell(length, 0.25)
    return voiced + db(-13.0) * puff


def sobbing(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return trembling wails that fall, and jerky breaths in between, sometimes a sniff."""
    speaker, rng, out = draw_speaker(draw), draw.rng, np.zeros(num_samples)
    tremor, depth = draw.uniform(5.0, 8.5), draw.uniform(0.02, 0.07)
    now = -rng.uniform(0.0, 1.2)
    while now < num_samples / SAMPLE_RATE_HZ:
        wail = _wail(draw, speaker, tremor, depth, intensity)
        lay(out, now, (0.5 + 0.5 * intensity) * wail)
        now += len(wail) / SAMPLE_RATE_HZ + 0.05
        for _ in range(int(rng.integers(2, 5))):  # the breath comes back in jerks
            jerk = samples(draw.uniform(0.07, 0.13))
            gasp = aspirate(rng, jerk, "uh", speaker) * swell(jerk, 0.4)
            squeak = resonate(phonate(speaker, rng, np.linspace(1.5, 1.9, jerk) * speaker.pitch_hz), "uh", speaker)
            lay(out, now, db(-10.0) * gasp + db(-16.0) * squeak * swell(jerk, 0.5))
            now += jerk / SAMPLE_RATE_HZ + rng.uniform(0.05, 0.12)
        if rng.random() < 0.35:
            lay(out, now, db(draw.uniform(-16.0, -8.0)) * sniff(draw, speaker))
            now += 0.25
        now += rng.uniform(0.0, 0.4) * (1.2 - intensity)
    return _in_a_room(draw, out)


def _wail(draw: Draw, speaker: Speaker, tremor_hz: float, depth: float, intensity: float) -> Floats:
    rng, length = draw.rng, samples(draw.uniform(0.6, 1.5))
    t = np.linspace(0.0, 1.0, length)
    shake = np.sin(2 * np.pi * tremor_hz * seconds_axis(length) + 3 * drift(rng, length, 1.0))
    top = speaker.pitch_hz * draw.uniform(1.5, 2.2) * (1 + 0.3 * intensity)
    hertz = top * (0.85 + 0.15 * np.sin(np.pi * np.clip(3 * t, 0, 1)) - 0.38 * t) * (1 + depth * shake)
    voice = glide(phonate(speaker, rng, hertz, breath=1.5), ("uh", "aw", draw.pick(("oo", "aw", "uh"))), speaker)
    return voice * swell(length, 0.25) * (1 + 0.45 * shake * np.clip(t * 2, 0, 1))


def coughing(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return fits of coughs: a burst, a hoarse rush of air, a short voiced end."""
    speaker, rng, out = draw_speaker(draw), draw.rng, np.zeros(num_samples)
    now = -rng.uniform(0.0, 0.3)
    dry = draw.uniform(0.2, 1.0)
    while now < num_samples / SAMPLE_RATE_HZ:
        for k in range(int(rng.integers(1, 3)) + round(2 * intensity * rng.random())):
            lay(out, now, (0.5 + 0.5 * intensity) * rng.uniform(0.7, 1.0) * 0.92**k * _cough(draw, speaker, dry))
            now += draw.uniform(0.28, 0.48)
        now += rng.uniform(0.15, 0.9) * (1.4 - intensity)
    return _in_a_room(draw, out)


def _cough(draw: Draw, speaker: Speaker, dry: float) -> Floats:
    rng, length = draw.rng, samples(draw.uniform(0.26, 0.42))
    t = seconds_axis(length)
    burst = unit(band(rng.standard_normal(length), 250.0, 4500.0)) * np.exp(-t / 0.016)
    rush = aspirate(rng, length, "uh", speaker) * np.minimum(1.0, t / 0.004) * np.exp(-t / draw.uniform(0.05, 0.10))
    hertz = speaker.pitch_hz * np.linspace(1.35, 0.85, length)
    hoarse = np.maximum(0.0, 1 + 0.8 * drift(rng, length, 45.0))
    voiced = resonate(phonate(speaker, rng, hertz, breath=3.0), "uh", speaker) * hoarse
    voiced *= np.clip((t - 0.02) / 0.03, 0, 1) * np.exp(-np.maximum(t - 0.06, 0) / draw.uniform(0.05, 0.11))
    ends = np.clip((t[-1] - t) / 0.03, 0, 1)
    return np.asarray(1.6 * burst + rush + (1.15 - dry) * voiced * ends, np.float64)


def sneezing(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return sneezes: breaths in that rise, ah, ah, then a hissing burst, tchoo; and a sniff."""
    speaker, rng, out = draw_speaker(draw), draw.rng, np.zeros(num_samples)
    now = -rng.uniform(0.0, 0.9)
    while now < num_samples / SAMPLE_RATE_HZ:
        for k in range(int(rng.integers(1, 3))):
            length = samples(draw.uniform(0.22, 0.42))
            hertz = speaker.pitch_hz * np.linspace(1.2 + 0.25 * k, 1.6 + 0.35 * k, length)
            tone = resonate(phonate(speaker, rng, hertz, breath=3.0), "ah", speaker)
            gasp = 0.5 * tone + aspirate(rng, length, "ah", speaker)
            lay(out, now, db(-15.0 + 3 * k) * gasp * swell(length, 0.75))
            now += length / SAMPLE_RATE_HZ + rng.uniform(0.02, 0.12)
        lay(out, now, (0.45 + 0.55 * intensity) * _tchoo(draw, speaker))
        now += draw.uniform(0.55, 0.8)
        if rng.random() < 0.5:
            lay(out, now, db(draw.uniform(-22.0, -12.0)) * sniff(draw, speaker))
        now += rng.uniform(0.2, 1.1) * (1.3 - intensity)
    return _in_a_room(draw, out)


def _tchoo(draw: Draw, speaker: Speaker) -> Floats:
    rng, length = draw.rng, samples(draw.uniform(0.40, 0.60))
    t = seconds_axis(length)
    hiss_s = draw.uniform(0.07, 0.14)
    low = draw.log_uniform(1700.0, 2800.0)
    hiss = unit(band(rng.standard_normal(length), low, 7600.0))
    hiss *= np.minimum(1.0, t / 0.003) * np.exp(-((t / hiss_s) ** 2))
    hertz = speaker.pitch_hz * np.interp(t / t[-1], (0.0, 0.3, 1.0), (1.5, 2.1, 1.1))
    vowel = glide(phonate(speaker, rng, hertz, breath=2.0), (draw.pick(("ee", "uh")), "oo", "oo"), speaker)
    vowel *= np.clip((t - 0.6 * hiss_s) / 0.03, 0, 1) * np.exp(-np.maximum(t - hiss_s, 0) / draw.uniform(0.08, 0.16))
    ends = np.clip((t[-1] - t) / 0.05, 0, 1)
    return np.asarray(1.5 * hiss + draw.uniform(0.4, 1.0) * vowel * ends, np.float64)


def screaming(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return long, high, rough screams; roughness is a modulation of 30 to 150 Hz (Arnal et al. 2015)."""
    speaker, rng, out = draw_speaker(draw), draw.rng, np.zeros(num_samples)
    vowel, rough_hz = draw.pick(("ah", "a", "eh", "ah")), draw.log_uniform(38.0, 120.0)
    height = draw.log_uniform(2.6, 4.0)
    now = -rng.uniform(0.0, 0.7)
    while now < num_samples / SAMPLE_RATE_HZ:
        length = samples(draw.uniform(0.8, 2.2))
        t = np.linspace(0.0, 1.0, length)
        top = min(speaker.pitch_hz * height * (0.8 + 0.35 * intensity), 1350.0)
        hertz = top * (0.72 + 0.28 * np.clip(t / 0.12, 0, 1) - 0.22 * np.clip((t - 0.7) / 0.3, 0, 1) ** 2)
        hertz *= 1 + 0.025 * drift(rng, length, 6.0)
        beat = np.sin(2 * np.pi * rough_hz * seconds_axis(length) + 2.0 * drift(rng, length, 12.0))
        rough = 1 + (0.25 + 0.55 * intensity) * beat
        voice = resonate(phonate(speaker, rng, hertz, breath=1.5) * rough, vowel, speaker)
        ends = np.clip(t / 0.05, 0, 1) * np.clip((1 - t) / 0.12, 0, 1)
        lay(out, now, (0.5 + 0.5 * intensity) * np.tanh(1.4 * voice) * ends)
        now += length / SAMPLE_RATE_HZ
        gasp = samples(draw.uniform(0.2, 0.4))
        lay(out, now + 0.03, db(draw.uniform(-24.0, -14.0)) * aspirate(rng, gasp, "uh", speaker) * swell(gasp, 0.7))
        now += gasp / SAMPLE_RATE_HZ + rng.uniform(0.05, 0.5) * (1.3 - intensity)
    return _in_a_room(draw, out)


def yawning(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return yawns: a long breath in, then a long, soft, sinking vowel."""
    speaker, rng, out = draw_speaker(draw), draw.rng, np.zeros(num_samples)
    now = -rng.uniform(0.0, 1.6)
    while now < num_samples / SAMPLE_RATE_HZ:
        length = samples(draw.uniform(0.8, 1.5))
        lay(out, now, db(draw.uniform(-18.0, -10.0)) * aspirate(rng, length, "aw", speaker) * swell(length, 0.7))
        now += length / SAMPLE_RATE_HZ - 0.05
        length = samples(draw.uniform(1.6, 2.8))
        t = np.linspace(0.0, 1.0, length)
        hertz = speaker.pitch_hz * (1.15 + 0.35 * intensity) * np.interp(t, (0, 0.2, 1), (0.95, 1.25, 0.62))
        voice = glide(phonate(speaker, rng, hertz, breath=3.0), ("uh", "ah", "aw", "oo"), speaker)
        sigh = aspirate(rng, length, "aw", speaker)
        soft = voice + db(draw.uniform(-16.0, -8.0)) * sigh
        lay(out, now, (0.5 + 0.5 * intensity) * soft * swell(length, 0.25))
        now += length / SAMPLE_RATE_HZ + rng.uniform(0.2, 1.0) * (1.3 - intensity)
    return _in_a_room(draw, out)


def _in_a_room(draw: Draw, voice: Floats) -> Floats:
    """Put the quiet of a room under a voice."""
    return unit(voice) + db(draw.uniform(-48.0, -28.0)) * bed(draw, len(voice), ROOM_DB)


_VOICES: dict[str, Callable[[Draw, int, float], Floats]] = {
    "giggling": giggling,
    "sobbing": sobbing,
    "coughing": coughing,
    "sneezing": sneezing,
    "screaming": screaming,
    "yawning": yawning,
}
