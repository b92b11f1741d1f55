"""The sounds of a town: traffic, trains, bells.

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
    resonant_noise,
    seconds_axis,
    shaped_noise,
    unit,
)


def _horn(
    rng: np.random.Generator, num_samples: int, pitches_hz: list[float], start_s: float, length_s: float
) -> Floats:
    """Return a blast of several reedy tones at once, silent outside its time."""
    t = seconds_axis(num_samples)
    shape = np.clip((t - start_s) / 0.03, 0, 1) * np.clip((start_s + length_s - t) / 0.08, 0, 1)
    tone = np.zeros(num_samples)
    for pitch in pitches_hz:
        tone += signal.sawtooth(2 * np.pi * (pitch * t + rng.random()), 0.8)
    return np.asarray(lowpass(tone, 2600.0) * shape / len(pitches_hz))


def _engine(draw: Draw, num_samples: int, idle_hz: float) -> Floats:
    """Return the hum of an engine: harmonics of its firing rate, a little unsteady, unit RMS."""
    hertz = idle_hz * np.exp2(draw.uniform(0.03, 0.3) * drift(draw.rng, num_samples, draw.uniform(0.3, 0.9)))
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE_HZ
    pulses = np.exp(3 * np.cos(phase)) * (1 + 0.5 * draw.rng.standard_normal(num_samples))
    return unit(band(pulses - pulses.mean(), 45.0, draw.uniform(250.0, 700.0)))


def city_traffic(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return a busy street with horns, a road with cars passing, a motorway or a queue of idling engines."""
    kind = draw.pick(("street", "road", "motorway", "queue"))
    rng, seconds, t = draw.rng, num_samples / SAMPLE_RATE_HZ, seconds_axis(num_samples)
    colour, murmur_db, cars_hz, engine_db, horn_chance = {
        "street": ((0.0, -3.0, -6.0, -12.0, -19.0, -24.0, -34.0), 0.0, 0.25, -6.0, 0.75),
        "road": ((0.0, -7.0, -10.0, -12.0, -16.0, -26.0, -38.0), -10.0, 0.4, -10.0, 0.1),
        "motorway": ((0.0, -1.0, -5.0, -4.0, -6.0, -14.0, -27.0), 0.0, 0.8, -14.0, 0.05),
        "queue": ((-9.0, 0.0, -7.0, -16.0, -21.0, -25.0, -32.0), -3.0, 0.1, 1.0, 0.6),
    }[kind]
    swell = np.exp(0.2 * drift(rng, num_samples, 0.3))
    out = db(murmur_db) * swell * bed(draw, num_samples, colour)
    tyres = bed(draw, num_samples, (-2, -6, -5, -1, -4, -14, -26))
    hiss = bed(draw, num_samples, (-30, -22, -14, -5, 0, -5, -14))
    for _ in range(max(int(rng.poisson(cars_hz * seconds * (0.4 + 1.2 * intensity))), int(kind == "road"))):
        since = (t - rng.uniform(-0.5, seconds + 0.5)) / draw.uniform(0.5, 1.6)
        near = 1 / (1 + since * since)
        out += draw.rng.uniform(0.5, 1.2) * (near * tyres + draw.uniform(0.2, 0.6) * near * near * hiss)
    for _ in range(1 + round(2 * intensity)):
        idle = draw.log_uniform(18.0, 130.0)
        out += (
            db(engine_db + draw.uniform(-4.0, 3.0))
            * np.exp(draw.uniform(0.2, 0.6) * drift(rng, num_samples, 0.8))
            * _engine(draw, num_samples, idle)
        )
    while draw.chance(horn_chance * (0.5 + 0.5 * intensity)):
        pitch, start = draw.uniform(330.0, 480.0), rng.uniform(-0.2, max(seconds - 0.3, 0.1))
        chord = [pitch, pitch * draw.uniform(1.18, 1.27)]
        out += db(draw.uniform(-8.0, 4.0)) * _horn(rng, num_samples, chord, start, draw.uniform(0.2, 0.9))
        horn_chance *= 0.6
    if kind in ("street", "queue") and draw.chance(0.5):  # doors, heels, loose loads
        clanks = bursts(draw, num_samples, rate_hz=draw.uniform(1.5, 4.0), low_hz=400, high_hz=3000, decay_s=0.015)
        out += db(draw.uniform(-20.0, -6.0)) * clanks
    if draw.chance(0.25):  # brakes
        start, high = rng.uniform(0.0, seconds), draw.uniform(1800.0, 3600.0)
        shape = np.exp(-(((t - start) / 0.35) ** 2))
        out += db(draw.uniform(-18.0, -6.0)) * shape * resonant_noise(rng, np.full(num_samples, high), 30.0)
    return out


def train_passing(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return a train from inside, passing by, with its horn, or drawn by steam: wheels knock on rail joints."""
    kind = draw.pick(("inside", "passing", "passing", "horn", "steam"))
    rng, seconds, t = draw.rng, num_samples / SAMPLE_RATE_HZ, seconds_axis(num_samples)
    colour = {
        "inside": (0.0, -10.0, -15.0, -26.0, -36.0, -42.0, -50.0),
        "passing": (0.0, -1.0, -1.0, -3.0, -11.0, -18.0, -28.0),
        "horn": (0.0, -2.0, -3.0, -5.0, -12.0, -19.0, -29.0),
        "steam": (-2.0, -1.0, 0.0, -3.0, -8.0, -14.0, -22.0),
    }[kind]
    joint_s = draw.uniform(0.55, 1.0) if kind == "inside" else draw.uniform(0.36, 0.7)
    pair_s = draw.uniform(0.1, 0.16)
    starts = np.arange(-rng.random(), seconds / joint_s + 1) * joint_s
    starts = starts + rng.normal(0, 0.008, len(starts))
    times = np.concatenate([starts, starts + pair_s])
    gains = rng.uniform(0.6, 1.0, len(times))
    noise_size = int(0.25 * SAMPLE_RATE_HZ)
    knock_db = (0, -3, -8, -14, -20, -26, -34) if kind == "inside" else (0, 0, -1, -2, -6, -12, -20)
    knock = decay(0.25, draw.uniform(0.018, 0.05), 0.004) * shaped_noise(rng, noise_size, knock_db)
    clatter = unit(signal.oaconvolve(impulses(num_samples, times, gains), knock)[:num_samples])
    roll = bed(draw, num_samples, colour) * np.exp(0.15 * drift(rng, num_samples, 2.0))
    clatter_db = {"inside": -1.0, "passing": 5.0, "horn": 1.0, "steam": -3.0}[kind] + draw.uniform(-3.0, 3.0)
    out = roll + db(clatter_db) * clatter
    if kind in ("passing", "inside") and draw.chance(0.6):  # flanges sing on the rail
        sing = resonant_noise(rng, draw.uniform(2200.0, 4500.0) * (1 + 0.01 * drift(rng, num_samples, 1.0)), 40.0)
        swell = np.exp(0.8 * drift(rng, num_samples, 0.8))
        out += db(draw.uniform(-30.0, -16.0) - (12 if kind == "inside" else 0)) * swell * sing
    if kind == "steam":
        chuff_hz = draw.uniform(3.0, 6.0)
        puff = (1 - (t * chuff_hz + rng.random()) % 1.0) ** draw.uniform(2.0, 4.0)
        out += db(draw.uniform(0.0, 5.0)) * puff * bed(draw, num_samples, (-12, -6, 0, 0, -3, -8, -16))
    if kind in ("horn", "steam") or draw.chance(0.15 * intensity):
        root = draw.uniform(480.0, 700.0) if kind == "steam" else draw.uniform(250.0, 380.0)
        chord = [root, root * 1.19, root * 1.34, root * 1.6][: int(rng.integers(2, 5))]
        start = rng.uniform(-0.3, 0.45) * seconds
        blast = _horn(rng, num_samples, chord, start, draw.uniform(0.9, 2.2))
        out += db(draw.uniform(0.0, 7.0)) * 1.6 * blast
    if kind != "inside" and draw.chance(0.5):  # comes or goes
        out *= np.exp(-(((t - rng.uniform(0.2, 0.8) * seconds) / (draw.uniform(0.7, 1.2) * seconds)) ** 2))
    return out + 0.01 * unit(bed(draw, num_samples, (0, -3, -8, -14, -20, -26, -34)))


# Frequency (of the prime's), time to 1/e in seconds of a bell with a 500 Hz prime, loudness: the usual partials of
# a tuned minor-third bell: hum, prime, tierce, quint, nominal, and those above.
BELL_PARTIALS = (
    (0.5, 3.2, 0.5),
    (1.0, 1.7, 0.8),
    (1.2, 1.6, 0.9),
    (1.5, 0.8, 0.35),
    (2.0, 1.1, 1.0),
    (2.52, 0.5, 0.45),
    (3.0, 0.45, 0.5),
    (4.06, 0.3, 0.4),
    (5.25, 0.2, 0.3),
    (6.6, 0.13, 0.2),
)


def church_bells(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return one tolling bell, a swinging pair, a peal in changing order or a carillon, with a touch of open air."""
    kind = draw.pick(("toll", "pair", "peal", "carillon"))
    rng, seconds = draw.rng, num_samples / SAMPLE_RATE_HZ
    steps, interval, prime = {
        "toll": ((0,), draw.uniform(1.2, 2.4), draw.log_uniform(220.0, 420.0)),
        "pair": ((0, -4), draw.uniform(0.55, 0.95), draw.log_uniform(280.0, 520.0)),
        "peal": ((12, 11, 9, 7, 5, 4), draw.uniform(0.24, 0.42), draw.log_uniform(260.0, 420.0)),
        "carillon": ((0, 4, 7, 12), draw.uniform(0.3, 0.6), draw.log_uniform(380.0, 700.0)),
    }[kind]
    lead_in_s = 1.5  # strikes before the clip still ring in it
    total = num_samples + int(lead_in_s * SAMPLE_RATE_HZ)
    times = np.arange(rng.random() * interval, seconds + lead_in_s, interval)
    times = times + rng.normal(0, 0.02 * interval, len(times))
    order = np.arange(len(times)) % len(steps) if kind != "carillon" else rng.integers(0, len(steps), len(times))
    gains, out = rng.uniform(0.7, 1.0, len(times)), np.zeros(total)
    ring, bright = draw.uniform(0.7, 1.4), draw.uniform(0.6, 1.3) * (0.6 + 0.8 * intensity)
    clapper = 0.01 * band(rng.standard_normal(600), 1500, 6000) * decay(0.0375, 0.01)
    out += signal.oaconvolve(impulses(total, times, gains), clapper)[:total]
    for bell, step in enumerate(steps):
        pitch = prime * 2 ** (step / 12)
        struck = impulses(total, times[order == bell], gains[order == bell])
        for ratio, lasting, loudness in BELL_PARTIALS:
            hertz = pitch * ratio * (1 + 0.004 * rng.standard_normal())
            if hertz > 7000:
                break
            pole = np.exp(-1 / (ring * lasting * (500 / pitch) ** 0.5 * SAMPLE_RATE_HZ))
            angle = 2 * np.pi * hertz / SAMPLE_RATE_HZ
            level = loudness * (bright if ratio > 2 else 1.0) * rng.uniform(0.6, 1.2)
            # a damped sine per strike; overlapping strikes add in the filter's state
            out += level * signal.lfilter([0.0, np.sin(angle)], [1.0, -2 * pole * np.cos(angle), pole * pole], struck)
    beating = 1 + draw.uniform(0.0, 0.15) * np.sin(2 * np.pi * draw.uniform(0.6, 3.0) * seconds_axis(total))
    square = db(draw.uniform(-34.0, -16.0)) * bed(draw, num_samples, (0, -3, -7, -12, -18, -25, -32))
    return unit((out * beating)[-num_samples:]) + square
