"""Animals, people and machines: chirps, knocks, horns and bells over the murmur of their places.

Same contract as `soundguide.miniature.sounds_elements`: a waveform ``[T]`` of free level per call.
"""

import numpy as np
from scipy import signal

from soundguide.miniature.dsp import (
    SAMPLE_RATE_HZ,
    Draw,
    Floats,
    band,
    bed,
    bursts,
    db,
    decay,
    drift,
    impulses,
    lowpass,
    poisson_times,
    resonant_noise,
    scatter,
    seconds_axis,
    shaped_noise,
    unit,
)

COUNTRYSIDE_DB = (0.0, -6.0, -9.0, -14.0, -18.0, -24.0, -28.0)


def bird_song(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return songbirds, crows, a woodpecker or cuckoos and doves, over a quiet wood."""
    kind = draw.pick(("songbirds", "songbirds", "chorus", "crows", "woodpecker", "coo"))
    match kind:
        case "songbirds" | "chorus":
            birds = np.zeros(num_samples)
            for _ in range((4 if kind == "chorus" else 1) + round(3 * intensity)):
                birds += _songbird(draw, num_samples)
        case "crows":
            birds = _crows(draw, num_samples, intensity)
        case "woodpecker":
            birds = _woodpecker(draw, num_samples) + db(draw.uniform(-24.0, -10.0)) * _songbird(draw, num_samples)
        case _:
            birds = _coo(draw, num_samples) + db(draw.uniform(-20.0, -8.0)) * _songbird(draw, num_samples)
    if kind == "chorus" and draw.chance(0.5):
        birds += db(draw.uniform(-14.0, -4.0)) * _coo(draw, num_samples)
    air = np.exp(draw.uniform(0.05, 0.5) * drift(draw.rng, num_samples, draw.uniform(0.5, 3.0)))
    wood = air * bed(draw, num_samples, COUNTRYSIDE_DB)
    wood_db = draw.uniform(-42.0, -12.0) if kind in ("songbirds", "chorus") else draw.uniform(-26.0, -8.0)
    return unit(birds) + db(wood_db) * wood


def _songbird(draw: Draw, num_samples: int) -> Floats:
    """Return phrases of repeated whistled syllables, the voice of one bird, unit RMS."""
    rng, seconds = draw.rng, num_samples / SAMPLE_RATE_HZ
    pitch, width = draw.log_uniform(2300.0, 5200.0), draw.uniform(0.1, 0.45)
    lasting, num_kinds = draw.log_uniform(0.05, 0.16), 5
    t = seconds_axis(int(0.3 * SAMPLE_RATE_HZ))[None, :]
    lengths = np.clip(lasting * rng.uniform(0.6, 1.6, (num_kinds, 1)), 0.03, 0.29)
    x = np.clip(t / lengths, 0, 1)
    sweep, bow, start = (rng.uniform(-width, width, (num_kinds, 1)) for _ in range(3))
    warble = draw.uniform(0.0, 0.08) * np.sin(2 * np.pi * draw.uniform(15.0, 45.0) * t)
    hertz = np.minimum(pitch * np.exp2(start + sweep * x + bow * 4 * x * (1 - x) + warble), 7400.0)
    phase = 2 * np.pi * np.cumsum(hertz, axis=1) / SAMPLE_RATE_HZ
    syllables = (np.sin(phase) + draw.uniform(0.02, 0.2) * np.sin(2 * phase) * (hertz < 3700)) * np.sin(
        np.pi * x
    ) ** 0.8
    times, kinds = [], []
    now = -rng.uniform(0.0, 1.0)
    while now < seconds:
        for _ in range(int(rng.integers(1, 4))):  # a phrase: a few trills of one syllable each
            syllable, repeats = int(rng.integers(num_kinds)), int(rng.integers(1, 9))
            step = float(lengths[syllable, 0]) * draw.uniform(1.1, 1.6)
            times += [now + step * k for k in range(repeats)]
            kinds += [syllable] * repeats
            now += step * repeats + 0.03
        now += rng.exponential(draw.uniform(0.3, 0.9))
    gains = rng.uniform(0.5, 1.0, (len(times), 1))
    grains: Floats = np.asarray(syllables[kinds], dtype=np.float64) * gains
    song = scatter(num_samples, np.array(times), grains)
    return unit(song) * rng.uniform(0.4, 1.0)


def _crows(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return series of hoarse caws: a buzzing harmonic source through two throat resonances."""
    rng, seconds = draw.rng, num_samples / SAMPLE_RATE_HZ
    t, out = seconds_axis(int(0.6 * SAMPLE_RATE_HZ)), np.zeros(num_samples)
    for _ in range(1 + round(2 * intensity)):
        voice, lasting = draw.uniform(420.0, 620.0), draw.uniform(0.22, 0.4)
        x = np.clip(t / lasting, 0, 1)
        hertz = voice * (1 + 0.12 * np.sin(np.pi * x) + 0.02 * drift(rng, len(t), 40.0))
        buzz = signal.sawtooth(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE_HZ) + 0.6 * rng.standard_normal(len(t))
        throat = draw.uniform(1000.0, 1500.0)
        caw = band(buzz, 0.8 * throat, 1.3 * throat) + 0.5 * band(buzz, 1.7 * throat, 2.3 * throat)
        caw *= np.sin(np.pi * x) ** 0.5
        now = rng.uniform(-0.5, 0.8)
        while now < seconds:
            calls: Floats = now + (lasting + draw.uniform(0.12, 0.35)) * np.arange(float(rng.integers(2, 6)))
            out += scatter(num_samples, calls, rng.uniform(0.6, 1.0, (len(calls), 1)) * caw)
            now = float(calls[-1]) + rng.uniform(0.6, 2.0)
    return unit(out)


def _woodpecker(draw: Draw, num_samples: int) -> Floats:
    """Return drum rolls on a hollow trunk, 12-22 beats a second."""
    seconds = num_samples / SAMPLE_RATE_HZ
    now = min(draw.rng.uniform(-0.3, 0.4), 0.5 * seconds)  # however short the clip, a roll has begun
    trunk = draw.log_uniform(650.0, 1700.0)
    click = draw.rng.standard_normal(900) * decay(0.05625, draw.uniform(0.004, 0.009))
    knock = unit(band(click, 0.8 * trunk, 1.25 * trunk)) + draw.uniform(0.1, 0.5) * unit(band(click, 400.0, 4500.0))
    times, gains = [], []
    while now < seconds:
        beats = int(draw.rng.integers(9, 20))
        times.append(now + np.arange(beats) / draw.uniform(13.0, 21.0))
        gains.append(np.linspace(0.7, 1.0, beats)[::-1] * draw.rng.uniform(0.7, 1.0))
        now = float(times[-1][-1]) + draw.rng.uniform(0.8, 2.2)
    train = impulses(num_samples, np.concatenate(times), np.concatenate(gains))
    return unit(signal.oaconvolve(train, knock)[:num_samples])


def _coo(draw: Draw, num_samples: int) -> Floats:
    """Return the two falling notes of a cuckoo, or a dove's coo: low, round whistles."""
    seconds, high = num_samples / SAMPLE_RATE_HZ, draw.uniform(480.0, 720.0)
    t = seconds_axis(int(0.45 * SAMPLE_RATE_HZ))
    notes = []
    for pitch, lasting in (
        (high, draw.uniform(0.15, 0.25)),
        (high * draw.uniform(0.74, 0.86), draw.uniform(0.25, 0.4)),
    ):
        x = np.clip(t / lasting, 0, 1)
        phase = 2 * np.pi * pitch * (t + 0.004 * np.sin(np.pi * x))
        notes.append((np.sin(phase) + 0.12 * np.sin(2 * phase) + 0.05 * np.sin(3 * phase)) * np.sin(np.pi * x) ** 0.7)
    starts = np.arange(draw.rng.uniform(-0.3, 0.4), seconds, draw.uniform(1.1, 1.8))
    grains = np.repeat(np.stack(notes), len(starts), axis=0)
    return unit(scatter(num_samples, np.concatenate([starts, starts + draw.uniform(0.28, 0.4)]), grains))


def crickets_chirping_at_night(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return field crickets, trilling tree crickets, a night with katydids, or a village with frogs far away."""
    kind = draw.pick(("field", "field", "tree", "katydids", "village"))
    rng, t = draw.rng, seconds_axis(num_samples)
    out = np.zeros(num_samples)
    for _ in range(1 + round((3 if kind == "field" else 2) * intensity)):
        carrier = draw.uniform(2900.0, 4900.0) * (1 + 0.002 * drift(rng, num_samples, 3.0))
        pulse_hz = draw.uniform(38.0, 60.0) if kind == "tree" else draw.uniform(20.0, 34.0)
        pulse = np.abs(np.sin(np.pi * pulse_hz * t)) ** draw.uniform(1.0, 2.0)
        if kind != "tree":
            chirp_hz, pulses = draw.uniform(0.8, 2.6), int(rng.integers(2, 6))
            place = (t * chirp_hz + rng.random() + 0.03 * drift(rng, num_samples, 0.5)) % 1.0
            pulse *= place < min(pulses * chirp_hz / pulse_hz, 0.75)
        phase = 2 * np.pi * np.cumsum(carrier) / SAMPLE_RATE_HZ
        out += rng.uniform(0.3, 1.0) * pulse * np.sin(phase)
    out = unit(out)
    if kind == "katydids":
        rasp = (np.abs(np.sin(np.pi * draw.uniform(25.0, 45.0) * t)) ** 3) / (
            1 + np.exp(-20 * (drift(rng, num_samples, 1.5) + 0.2))
        )
        out += db(draw.uniform(-8.0, 2.0)) * unit(
            rasp * shaped_noise(rng, num_samples, (-60, -60, -50, -40, -25, -8, 0))
        )
    if kind == "village":
        croaks = poisson_times(rng, draw.uniform(3.0, 9.0), num_samples / SAMPLE_RATE_HZ, at_least=1)
        g = seconds_axis(2400)
        frog_hz = draw.log_uniform(400.0, 800.0) * np.exp2(rng.normal(0.0, 0.4, (len(croaks), 1)))
        glide = 1 + draw.uniform(-0.25, 0.25) * g / g[-1]
        croak = (
            np.sin(2 * np.pi * frog_hz * g * glide)
            * np.abs(np.sin(np.pi * draw.uniform(25, 50) * g))
            * np.hanning(2400)
        )
        frogs = scatter(num_samples, croaks, rng.lognormal(0, 0.6, (len(croaks), 1)) * croak)
        murmur = bed(draw, num_samples, (-14, -7, -1, 0, -10, -22, -34))
        out = db(draw.uniform(-32.0, -6.0)) * out + draw.uniform(0.5, 1.6) * unit(frogs) + 0.8 * murmur
    far = draw.uniform(0.05, 0.4) if kind == "village" else 1.0
    chorus = resonant_noise(rng, np.full(num_samples, draw.uniform(3200.0, 5000.0)), draw.uniform(60.0, 250.0))
    night = bed(draw, num_samples, (0, -4, -11, -15, -15, -14, -15))
    return out + far * (db(draw.uniform(-22.0, 2.0)) * chorus + db(draw.uniform(-20.0, -3.0)) * night)


def fireworks_exploding(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return rockets near or far, or a volley: whistle up, boom with echoes, crackling rain of sparks."""
    kind = draw.pick(("near", "far", "volley", "finale"))
    rng, seconds = draw.rng, num_samples / SAMPLE_RATE_HZ
    rate = (
        {"near": 0.6, "far": 1.0, "volley": 3.5, "finale": 1.5}[kind] * draw.log_uniform(0.7, 1.6) * (0.5 + intensity)
    )
    booms = poisson_times(rng, rate, seconds)
    booms = np.concatenate([booms, [rng.uniform(0.05, 0.5) * seconds]])
    gains = rng.lognormal(-0.7, 0.5, len(booms))
    length, ring = 1.6, draw.uniform(0.12, 0.3)
    noise_size = int(length * SAMPLE_RATE_HZ)
    thump = decay(length, 0.5 * ring) * shaped_noise(rng, noise_size, (0, -3, -10, -20, -30, -40, -50))
    blast = decay(length, ring) * shaped_noise(rng, noise_size, (-12, -4, 0, -3, -12, -22, -36))
    snap = decay(length, draw.uniform(0.01, 0.035)) * shaped_noise(rng, noise_size, (-20, -12, -6, 0, 0, -3, -8))
    tail = decay(length, 3 * ring, 0.05) * shaped_noise(rng, noise_size, (-6, 0, -2, -8, -18, -30, -45))
    near = {"near": 1.0, "far": 0.2, "volley": 0.7, "finale": 1.2}[kind] * draw.uniform(0.7, 1.3)
    boom = draw.uniform(0.3, 1.2) * thump + blast + near * (0.4 + intensity) * snap + draw.uniform(0.2, 0.7) * tail
    out = signal.oaconvolve(impulses(num_samples, booms, gains), boom)[:num_samples]
    sparks = signal.oaconvolve(impulses(num_samples, booms + draw.uniform(0.2, 0.5), gains), decay(1.5, 0.5, 0.2))
    crackle = bursts(draw, num_samples, rate_hz=draw.uniform(35.0, 90.0), low_hz=900, high_hz=6000, decay_s=0.003)
    out += draw.uniform(0.1, 0.5) * near * sparks[:num_samples] * crackle
    if kind == "finale":  # so many that they run together into a fluttering rumble
        rumble = bursts(draw, num_samples, rate_hz=draw.uniform(12.0, 40.0), low_hz=110, high_hz=900, decay_s=0.035)
        out = unit(out) + db(draw.uniform(-3.0, 6.0)) * rumble
    elif kind != "far":
        x = seconds_axis(int(1.1 * SAMPLE_RATE_HZ)) / 1.1
        rising = draw.uniform(900.0, 1500.0) * np.exp2(draw.uniform(0.7, 1.3) * x)
        whistle = np.sin(2 * np.pi * np.cumsum(rising) / SAMPLE_RATE_HZ + 0.6 * np.sin(2 * np.pi * 28 * 1.1 * x))
        fired = booms[rng.random(len(booms)) < 0.55]
        flights = np.outer(draw.uniform(0.06, 0.22) * np.ones(len(fired)), whistle * np.sin(np.pi * x) ** 0.6)
        out += scatter(num_samples, fired - 1.15, flights)
    return unit(out) + db(draw.uniform(-34.0, -14.0)) * bed(draw, num_samples, (-8, -4, 0, -3, -10, -20, -30))


def walking_in_snow(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return steps in powder, crust or squeaking cold snow: twice a second a crunch of many small breaks."""
    kind = draw.pick(("powder", "crust", "squeaky"))
    rng, seconds = draw.rng, num_samples / SAMPLE_RATE_HZ
    low, high, grain_s = {
        "powder": (120.0, 1500.0, 0.007),
        "crust": (250.0, 3200.0, 0.004),
        "squeaky": (200.0, 2600.0, 0.003),
    }[kind]
    pitch, step_s = draw.log_uniform(0.75, 1.3), 1 / draw.uniform(1.4, 2.2)
    steps = np.arange(-rng.uniform(0.0, 1.0), seconds / step_s) * step_s
    steps = steps + rng.normal(0.0, 0.03 * step_s, len(steps))
    press = decay(0.6, draw.uniform(0.06, 0.12), draw.uniform(0.03, 0.15))
    roll_off = np.roll(press, int(draw.uniform(0.12, 0.2) * SAMPLE_RATE_HZ))  # heel first, then the toe
    roll_off[: int(0.1 * SAMPLE_RATE_HZ)] = 0.0
    foot = press + draw.uniform(0.4, 0.9) * roll_off
    gains = rng.lognormal(0.0, draw.uniform(0.1, 0.45), len(steps)) * np.where(
        np.arange(len(steps)) % 2, 1.0, draw.uniform(0.7, 0.95)
    )
    # a step that began just before the clip still sounds in it: render a second of lead-in
    steady = impulses(num_samples + SAMPLE_RATE_HZ, steps + 1.0, gains)
    envelope = signal.oaconvolve(steady, foot)[SAMPLE_RATE_HZ : SAMPLE_RATE_HZ + num_samples]
    envelope = np.maximum(envelope, 0.0)  # the FFT leaves rounding below zero
    rate = draw.log_uniform(250.0, 600.0) * (0.6 + 0.8 * intensity)
    crunch = bursts(draw, num_samples, rate_hz=rate, low_hz=low * pitch, high_hz=high * pitch, decay_s=grain_s)
    thud = bursts(
        draw, num_samples, rate_hz=draw.uniform(25.0, 80.0), low_hz=60, high_hz=500, decay_s=0.018, spread=0.6
    )
    envelope += draw.uniform(0.01, 0.12) * np.exp(0.5 * drift(rng, num_samples, 3.0))  # the drag between two steps
    out = envelope * crunch + db(draw.uniform(-8.0, 2.0)) * envelope**1.5 * thud
    if kind == "squeaky":
        creak = resonant_noise(rng, draw.uniform(700.0, 1500.0) * (1 + 0.15 * drift(rng, num_samples, 4.0)), 60.0)
        out += draw.uniform(0.25, 0.6) * envelope**2 * creak
    out += db(draw.uniform(-34.0, -18.0)) * lowpass(bed(draw, num_samples, COUNTRYSIDE_DB), 4000.0)
    return np.asarray(out, np.float64)
