"""Building blocks of the synthesiser: random draws, shaped noise, grains, envelopes, levels.

Everything works on mono waveforms ``[T]``, float64, at `SAMPLE_RATE_HZ`; times are in seconds, frequencies in Hz.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

SAMPLE_RATE_HZ = 16_000
Floats = NDArray[np.float64]
Ranges = Literal["train", "edge", "held_out"]
"""'edge' is within the train ranges too, with every parameter near one of its ends."""

# Octave-band centres at which the colour of noise is given.
BAND_CENTRES_HZ = (90.0, 180.0, 350.0, 700.0, 1400.0, 2800.0, 5600.0)
HELD_OUT_MARGIN = 0.25  # of the train range, on each side: audibly other, still the same thing


class Draw:
    """Draw the parameters of one sound, inside the train ranges or just outside of them.

    `uniform` and `log_uniform` obey ``ranges``; what only scatters many grains of one sound uses ``rng`` directly.
    Train draws follow the arcsine law, which is densest near both ends. Where many parameters are drawn, all of them
    are hardly ever near their ends at once, as they are beyond them: hence ``"edge"``.
    """

    def __init__(self, rng: np.random.Generator, ranges: Ranges = "train") -> None:
        self.rng = rng
        self.ranges = ranges

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high], or in the margins beside it; a range of positive numbers stays positive."""
        if self.ranges != "held_out":
            return self._inside(low, high)
        margin = HELD_OUT_MARGIN * (high - low)
        floor = low - margin if low <= 0 else max(low - margin, 0.6 * low)
        # 1 - random() is in (0, 1], so that the end points, which training can draw, are left out
        share = 1.0 - float(self.rng.random())
        if self.rng.random() < 0.5 and low != 0:
            return low - share * (low - floor)
        return high + share * margin

    def log_uniform(self, low: float, high: float) -> float:
        """Return a positive number, uniform in its logarithm, in [low, high] or in the margins beside it."""
        return float(np.exp2(self.uniform_between_logs(np.log2(low), np.log2(high))))

    def uniform_between_logs(self, low: float, high: float) -> float:
        """Return a log2 in [low, high] or in the margins beside it, whatever the sign of the logarithm."""
        if self.ranges != "held_out":
            return self._inside(low, high)
        beyond = (1.0 - float(self.rng.random())) * HELD_OUT_MARGIN * (high - low)
        return low - beyond if self.rng.random() < 0.5 else high + beyond

    def _inside(self, low: float, high: float) -> float:
        concentration = 0.5 if self.ranges == "train" else 0.1
        return low + (high - low) * float(self.rng.beta(concentration, concentration))

    def pick(self, kinds: Sequence[str]) -> str:
        """Return one of the kinds; kinds are the same in both ranges, only their parameters differ."""
        return kinds[int(self.rng.integers(len(kinds)))]

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return bool(self.rng.random() < probability)


def seconds_axis(num_samples: int) -> Floats:
    """Return the time of each sample, ``[T]``."""
    return np.arange(num_samples) / SAMPLE_RATE_HZ


def shaped_noise(rng: np.random.Generator, num_samples: int, levels_db: Sequence[float]) -> Floats:
    """Return noise of unit RMS whose power density follows ``levels_db`` at `BAND_CENTRES_HZ`."""
    padded = fft.next_fast_len(num_samples, real=True)
    frequencies = np.maximum(fft.rfftfreq(padded, 1 / SAMPLE_RATE_HZ), 1.0)
    curve = np.interp(np.log2(frequencies), np.log2(BAND_CENTRES_HZ), np.asarray(levels_db, dtype=np.float64))
    gain = 10 ** (curve / 20) * np.minimum(1.0, (frequencies / 45.0) ** 2)  # recordings hold next to nothing below
    noise = fft.irfft(fft.rfft(rng.standard_normal(padded)) * gain, padded)[:num_samples]
    return unit(noise)


def bed(draw: Draw, num_samples: int, levels_db: Sequence[float]) -> Floats:
    """Return `shaped_noise` whose tilt and single bands are drawn around ``levels_db``."""
    tilt = draw.uniform(-1.2, 1.2)
    jittered = [level + tilt * (band - 3) + draw.uniform(-2.5, 2.5) for band, level in enumerate(levels_db)]
    return shaped_noise(draw.rng, num_samples, jittered)


def drift(rng: np.random.Generator, num_samples: int, rate_hz: float) -> Floats:
    """Return a smooth random curve of zero mean and unit deviation that turns about ``rate_hz`` times a second."""
    spacing = SAMPLE_RATE_HZ / max(2.0 * rate_hz, 0.02)
    num_knots = int(num_samples / spacing) + 4
    position = np.arange(num_samples) / spacing + rng.random()
    left = position.astype(np.int64)
    blend = 0.5 - 0.5 * np.cos(np.pi * (position - left))
    knots = rng.standard_normal(num_knots)
    return knots[left] * (1 - blend) + knots[left + 1] * blend


def resonant_noise(rng: np.random.Generator, centre_hz: Floats, bandwidth_hz: float) -> Floats:
    """Return unit-RMS noise in a band that follows ``centre_hz`` ``[T]``: low-passed noise on a moving carrier."""
    num_samples = len(centre_hz)
    pole = float(np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE_HZ))
    base = rng.standard_normal((2, num_samples))
    base = signal.lfilter([1.0], [1.0, -2 * pole, pole * pole], base, axis=-1)
    phase = 2 * np.pi * np.cumsum(centre_hz) / SAMPLE_RATE_HZ
    return unit(base[0] * np.cos(phase) - base[1] * np.sin(phase))


def band(waveform: Floats, low_hz: float, high_hz: float) -> Floats:
    """Return the waveform between two frequencies (second order each side)."""
    low, high = max(low_hz, 15.0), min(high_hz, 7900.0)
    sos = signal.butter(2, (min(low, 0.9 * high), high), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    return np.asarray(signal.sosfilt(sos, waveform), dtype=np.float64)


def lowpass(waveform: Floats, cutoff_hz: float, order: int = 2) -> Floats:
    """Return the waveform below a frequency."""
    sos = signal.butter(order, min(cutoff_hz, 7900.0), "lowpass", fs=SAMPLE_RATE_HZ, output="sos")
    return np.asarray(signal.sosfilt(sos, waveform), dtype=np.float64)


def poisson_times(rng: np.random.Generator, rate_hz: float, seconds: float, *, at_least: int = 0) -> Floats:
    """Return sorted event times in [0, seconds), on average ``rate_hz`` a second."""
    count = max(int(rng.poisson(rate_hz * seconds)), at_least)
    return np.sort(rng.uniform(0.0, seconds, count))


def impulses(num_samples: int, times: Floats, gains: Floats) -> Floats:
    """Return a sparse train ``[T]``: each time (seconds) holds its gain; times outside are dropped."""
    index = np.floor(np.asarray(times) * SAMPLE_RATE_HZ).astype(np.int64)
    keep = (index >= 0) & (index < num_samples)
    return np.bincount(index[keep], weights=np.asarray(gains)[keep], minlength=num_samples).astype(np.float64)


def scatter(num_samples: int, times: Floats, grains: Floats) -> Floats:
    """Return the sum of grains ``[N, G]`` placed at their times (seconds, may be negative), cut to ``[T]``."""
    out = np.zeros(num_samples)
    if len(times) == 0:
        return out
    index = np.floor(times * SAMPLE_RATE_HZ).astype(np.int64)[:, None] + np.arange(grains.shape[1])
    keep = (index >= 0) & (index < num_samples)
    return np.bincount(index[keep], weights=grains[keep], minlength=num_samples).astype(np.float64)


def decay(length_s: float, time_constant_s: float, attack_s: float = 0.001) -> Floats:
    """Return an envelope that rises within ``attack_s`` and falls to 1/e in each ``time_constant_s``."""
    t = seconds_axis(max(int(length_s * SAMPLE_RATE_HZ), 8))
    return np.minimum(1.0, t / max(attack_s, 1e-4)) * np.exp(-t / time_constant_s)


def bursts(
    draw: Draw, num_samples: int, *, rate_hz: float, low_hz: float, high_hz: float, decay_s: float, spread: float = 0.8
) -> Floats:
    """Return many short noise grains (drops, crackles, crunches) at random times, of log-normal loudness.

    Four kernels of different brightness and length are convolved with sparse trains: cost does not grow with the rate.
    """
    seconds, out = num_samples / SAMPLE_RATE_HZ, np.zeros(num_samples)
    for brightness in (0.6, 0.85, 1.15, 1.5):
        times = poisson_times(draw.rng, rate_hz / 4, seconds, at_least=1)
        gains = draw.rng.lognormal(0.0, spread, len(times)) * draw.rng.choice([-1.0, 1.0], len(times))
        envelope = decay(6 * decay_s / brightness, decay_s / brightness, 0.0003)
        kernel = band(draw.rng.standard_normal(len(envelope)) * envelope, low_hz * brightness, high_hz * brightness)
        out += signal.oaconvolve(impulses(num_samples, times, gains), unit(kernel))[:num_samples]
    return unit(out)


def bubbles(
    rng: np.random.Generator,
    num_samples: int,
    times: Floats,
    pitch_hz: Floats,
    rise: float,
    *,
    length_s: float = 0.1,
) -> Floats:
    """Return bubbles ``[T]``: decaying sines, higher ones shorter, whose pitch rises by ``rise`` while they sound."""
    length = int(length_s * SAMPLE_RATE_HZ)
    t = seconds_axis(length)[None, :]
    damping = rng.uniform(0.045, 0.11, (len(times), 1)) * pitch_hz[:, None] ** 0.92
    swept = pitch_hz[:, None] * t * (1 + 0.5 * rise * t * damping / 3)
    grains = np.sin(2 * np.pi * swept) * np.exp(-damping * t) * np.minimum(1.0, t / 0.002)
    fade = np.minimum(1.0, (length - np.arange(length)) / 200)
    loudness = rng.lognormal(0.0, 0.7, (len(times), 1)) * (700 / pitch_hz[:, None]) ** 0.5
    return scatter(num_samples, times, grains * fade * loudness)


def unit(waveform: Floats) -> Floats:
    """Return the waveform at RMS 1; silence stays silence."""
    rms = float(np.sqrt(np.mean(np.square(waveform)))) if waveform.size else 0.0
    return waveform / rms if rms > 1e-12 else waveform


def db(level_db: float) -> float:
    """Return the amplitude factor of a level in decibel."""
    return float(10 ** (level_db / 20))


def limit(waveform: Floats, *, knee: float = 0.7, ceiling: float = 0.98) -> Floats:
    """Return the waveform with peaks above the knee bent smoothly below the ceiling: rounder, never cut flat."""
    size, room = np.abs(waveform), ceiling - knee
    bent = knee + room * np.tanh((size - knee) / room)
    return np.where(size > knee, np.sign(waveform) * bent, waveform)
