"""Notes and their placing in time: wavetable voices, and a score that collects them on a grid of beats."""

from collections.abc import Sequence

import numpy as np
from scipy import fft

from soundguide.miniature.dsp import SAMPLE_RATE_HZ, Draw, Floats, db, decay, seconds_axis

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
TABLE_SIZE = 4096


def pitch_hz(key: float, scale: Sequence[int], degree: int) -> float:
    """Return the frequency of a scale degree (any integer, 0 is the key note) above the MIDI number ``key``."""
    octave, step = divmod(degree, len(scale))
    return float(440.0 * 2 ** ((key + 12 * octave + scale[step] - 69) / 12))


def wavetable(hertz: float, partials: Sequence[float]) -> Floats:
    """Return one cycle ``[TABLE_SIZE]`` with these partial amplitudes, without those above the Nyquist frequency."""
    amplitudes = np.asarray(partials)[: max(int(0.47 * SAMPLE_RATE_HZ / hertz), 1)]
    spectrum = np.zeros(TABLE_SIZE // 2 + 1, dtype=np.complex128)
    spectrum[1 : len(amplitudes) + 1] = -0.5j * TABLE_SIZE * amplitudes
    return np.asarray(fft.irfft(spectrum, TABLE_SIZE), dtype=np.float64)


def play(table: Floats, hertz: Floats) -> Floats:
    """Return the wavetable read at a frequency that may move, ``[T]``."""
    phase = np.cumsum(hertz) * (TABLE_SIZE / SAMPLE_RATE_HZ)
    return np.asarray(table[phase.astype(np.int64) & (TABLE_SIZE - 1)])


def pluck(hertz: float, length_s: float, partials: Sequence[float], ring_s: float) -> Floats:
    """Return a plucked or struck note: bright at first, then duller, faster when higher."""
    envelope = decay(length_s, ring_s * (220.0 / hertz) ** 0.3, 0.003)
    steady = np.full(len(envelope), hertz)
    dull = [amplitude / (1 + 0.6 * k) for k, amplitude in enumerate(partials)]
    tone = play(wavetable(hertz, dull), steady) + envelope**1.5 * play(wavetable(hertz, partials), steady)
    return np.asarray(tone * envelope * np.minimum(1.0, np.linspace(20.0, 0.0, len(envelope))))


def hold(hertz: float, length_s: float, partials: Sequence[float], attack_s: float, vibrato: float = 0.0) -> Floats:
    """Return a sustained note with a slow attack, release, and a vibrato that sets in late."""
    t = seconds_axis(max(int(length_s * SAMPLE_RATE_HZ), 64))
    wobble = 1 + vibrato * np.minimum(1.0, 2 * t) * np.sin(2 * np.pi * 5.4 * t + hertz)
    envelope = np.minimum(1.0, t / attack_s) * np.minimum(1.0, (length_s - t).clip(0) / min(0.12, 0.3 * length_s))
    return np.asarray(play(wavetable(hertz, partials), hertz * wobble) * envelope)


class Score:
    """Collect notes on a grid of beats into a waveform that begins at a drawn beat of the first two bars."""

    def __init__(self, draw: Draw, num_samples: int, beats_per_minute: float) -> None:
        self.num_samples = num_samples
        self.beat_s = 60.0 / beats_per_minute
        self.first_beat = float(draw.rng.uniform(0.0, 8.0))
        self.last_beat = self.first_beat + num_samples / SAMPLE_RATE_HZ / self.beat_s
        self.out = np.zeros(num_samples)

    def add(self, beat: float, note: Floats, level_db: float = 0.0) -> None:
        """Add a note at a beat; what lies outside of the clip is cut."""
        start = int((beat - self.first_beat) * self.beat_s * SAMPLE_RATE_HZ)
        begin, end = max(start, 0), min(start + len(note), self.num_samples)
        if begin < end:
            self.out[begin:end] += db(level_db) * note[begin - start : end - start]

    def repeat(self, beats: Sequence[float], bar_beats: float, note: Floats, level_db: float = 0.0) -> None:
        """Add the same note (a drum) at these beats of each bar."""
        for bar in self.bars(bar_beats):
            for beat in beats:
                self.add(bar * bar_beats + beat, note, level_db)

    def bars(self, bar_beats: float, lead_in: int = 1) -> range:
        """Return the numbers of the bars that sound in the clip, with a bar before it."""
        return range(int(self.first_beat // bar_beats) - lead_in, int(self.last_beat // bar_beats) + 1)
