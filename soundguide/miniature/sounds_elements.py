"""Rain, thunder, wind, fire and water: noise with a colour, a modulation and grains.

Each function draws one of several sub-kinds and returns a waveform ``[T]`` of free level; `intensity` 0..1 sets the
content (denser drops, nearer thunder), `soundguide.miniature.sounds.synthesise` sets the level. The band levels were
read off real recordings of each kind.
"""

import numpy as np
from scipy import signal

from soundguide.miniature.dsp import (
    SAMPLE_RATE_HZ,
    Draw,
    Floats,
    band,
    bed,
    bubbles,
    bursts,
    db,
    decay,
    drift,
    impulses,
    lowpass,
    poisson_times,
    resonant_noise,
    seconds_axis,
    shaped_noise,
    unit,
)


def raining(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return rain in the open, or on a tent, an umbrella, a window, a roof or puddles: a hiss and drops."""
    kind = draw.pick(("open", "open", "tent", "umbrella", "window", "roof", "puddles"))
    hiss, low, high, ring, drops_db = {
        "open": ((-13.0, -9.0, -7.0, -3.0, 0.0, 0.0, -2.0), 1200.0, 7000.0, 0.002, -12.0),
        "tent": ((-3.0, -9.0, -4.0, 0.0, -4.0, -10.0, -15.0), 350.0, 3500.0, 0.004, 6.0),
        "umbrella": ((-28.0, -15.0, -6.0, -1.0, 0.0, -5.0, -13.0), 500.0, 4000.0, 0.003, 7.0),
        "window": ((-8.0, -1.0, 0.0, -1.0, -6.0, -14.0, -20.0), 250.0, 2500.0, 0.004, -9.0),
        "roof": ((-13.0, -6.0, 0.0, -2.0, -9.0, -19.0, -26.0), 180.0, 1300.0, 0.011, 6.0),
        "puddles": ((-18.0, -12.0, -8.0, -3.0, -1.0, 0.0, -4.0), 1500.0, 6500.0, 0.002, -3.0),
    }[kind]
    pitch = draw.log_uniform(0.75, 1.35)
    rate = draw.log_uniform(25.0, 70.0) * (0.3 + 2.2 * intensity) * (0.5 if kind == "roof" else 1.0)
    drops = bursts(
        draw,
        num_samples,
        rate_hz=rate,
        low_hz=low * pitch,
        high_hz=min(high * pitch, 7500.0),
        decay_s=ring * draw.log_uniform(0.7, 1.5),
        spread=draw.uniform(0.6, 1.0),
    )
    if kind in ("tent", "umbrella", "roof"):  # branches and gutters let the drops fall in flurries
        drops *= np.exp(draw.uniform(0.1, 0.8) * drift(draw.rng, num_samples, draw.uniform(1.0, 4.0)))
    out = bed(draw, num_samples, hiss) + db(drops_db + draw.uniform(-4.0, 4.0) - 6 * intensity) * drops
    if kind == "puddles":
        times = poisson_times(draw.rng, 0.4 * rate, num_samples / SAMPLE_RATE_HZ)
        plops = bubbles(draw.rng, num_samples, times, draw.rng.uniform(900, 3200, len(times)), 0.2)
        out += db(draw.uniform(-8.0, 0.0)) * unit(plops)
    gusts = 1 + draw.uniform(0.03, 0.18) * drift(draw.rng, num_samples, draw.uniform(0.1, 0.5))
    return out * np.maximum(gusts, 0.2)


def thunderstorm(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return rumbles, each a chain of rolls whose highs die first, behind cracks when near, over rain or still air."""
    seconds = num_samples / SAMPLE_RATE_HZ
    t = np.arange(0.0, seconds + 0.02, 0.005)  # envelopes are slow: drawn at 200 Hz, interpolated at the end
    num_strokes = 1 + int(draw.rng.poisson(seconds * 0.12 * (0.5 + intensity)))
    starts = draw.rng.uniform(-0.8, max(0.55 * seconds, 0.1), num_strokes)
    rolls = np.zeros((3, len(t)))
    cracks = np.zeros(num_samples)
    for start in starts:
        length, loudness = draw.uniform(1.5, 4.0), draw.rng.uniform(0.6, 1.0)
        for _ in range(int(draw.rng.integers(3, 8))):
            since = t - start - draw.rng.exponential(0.35 * length)
            rise = 1 / (1 + np.exp(-np.clip(since / draw.uniform(0.03, 0.12), -40, 40)))
            roll = loudness * draw.rng.uniform(0.3, 1.0) * rise
            for row, share in enumerate((1.0, 0.6, 0.25)):  # the lowest octaves ring longest
                rolls[row] += roll * np.exp(-np.clip(since, 0, None) / (0.5 * length * share))
        if draw.chance(0.15 + 0.85 * intensity):
            ticks = start + np.cumsum(draw.rng.exponential(0.035, int(draw.rng.integers(4, 14))))
            gains = loudness * np.exp(-(ticks - start) / 0.25) * draw.rng.lognormal(0, 0.6, len(ticks))
            tear = decay(0.25, draw.uniform(0.03, 0.09)) * draw.rng.standard_normal(4000)
            cracks += signal.oaconvolve(impulses(num_samples, ticks, gains), tear)[:num_samples]
    envelopes = [np.interp(seconds_axis(num_samples), t, row) for row in rolls]
    low = shaped_noise(draw.rng, num_samples, (0, -3, -12, -26, -40, -52, -62))
    middle = shaped_noise(draw.rng, num_samples, (-6, 0, 0, -5, -15, -26, -38))
    upper = shaped_noise(draw.rng, num_samples, (-25, -14, -5, 0, -6, -14, -24))
    flutter = np.maximum(1 + 0.35 * drift(draw.rng, num_samples, draw.uniform(5.0, 12.0)), 0.1)
    near = db(draw.uniform(-26.0, -10.0) + 10 * intensity)
    rumble = (
        envelopes[0] * low + db(draw.uniform(-2.0, 7.0)) * envelopes[1] * middle * flutter + near * envelopes[2] * upper
    )
    out = rumble + near * 0.9 * lowpass(cracks, draw.uniform(2500.0, 6500.0))
    if draw.chance(0.7):
        out += db(draw.uniform(-26.0, -12.0)) * unit(raining(draw, num_samples, intensity))
    return out + db(-38) * bed(draw, num_samples, (0, -2, -5, -9, -14, -20, -26))


def wind_noise(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return wind at the microphone, in trees, howling around a house or over an open field."""
    kind = draw.pick(("buffeting", "trees", "howling", "open"))
    rng = draw.rng
    colours = {
        "buffeting": (-2.0, 0.0, -4.0, -13.0, -24.0, -35.0, -48.0),
        "trees": (0.0, -10.0, -13.0, -13.0, -10.0, -13.0, -18.0),
        "howling": (-2.0, -3.0, -6.0, -12.0, -22.0, -32.0, -42.0),
        "open": (0.0, -2.0, -6.0, -12.0, -18.0, -26.0, -36.0),
    }
    slow = drift(rng, num_samples, draw.log_uniform(0.12, 0.5)) + 0.4 * drift(rng, num_samples, 1.3)
    gust = np.exp(
        (0.35 + 0.35 * intensity) * (draw.uniform(0.05, 0.9) if kind == "trees" else draw.uniform(0.5, 1.3)) * slow
    )
    out = gust * bed(draw, num_samples, colours[kind])
    if kind == "trees":
        rustle = np.maximum(1 + draw.uniform(0.1, 0.5) * drift(rng, num_samples, draw.uniform(6.0, 14.0)), 0.05)
        out += (
            gust**1.5 * rustle * db(draw.uniform(-12.0, 0.0)) * bed(draw, num_samples, (-40, -32, -20, -8, -2, 0, -4))
        )
    if kind in ("howling", "buffeting", "open"):
        for _ in range(int(rng.integers(2, 4)) if kind == "howling" else 1):
            centre = draw.log_uniform(300.0, 900.0) * np.exp2(0.25 * (slow + 0.3 * drift(rng, num_samples, 0.8)))
            howl = resonant_noise(rng, np.clip(centre, 80, 3000), draw.uniform(25.0, 90.0))
            level = draw.uniform(-6.0, 3.0) if kind == "howling" else draw.uniform(-22.0, -10.0)
            out += db(level + 5 * intensity) * gust**1.3 * howl
    if kind == "buffeting" or draw.chance(0.4):  # air that strikes the microphone itself
        puffs = np.maximum(drift(rng, num_samples, draw.uniform(3.0, 11.0)), 0) ** 2
        out += puffs * gust * draw.uniform(0.4, 1.4) * shaped_noise(rng, num_samples, (0, -8, -22, -36, -50, -60, -70))
    return out


def fire_crackling(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return a camp fire, a hearth or a big blaze: a fluttering low roar, a faint hiss, snaps and pops."""
    kind = draw.pick(("camp", "hearth", "blaze"))
    roar_db, rate = {"camp": (-7.0, 9.0), "hearth": (-15.0, 6.0), "blaze": (0.0, 16.0)}[kind]
    flutter = np.exp(0.35 * drift(draw.rng, num_samples, draw.uniform(4.0, 9.0)))
    dark = draw.uniform(0.0, 5.0)  # dB: how fast the roar loses its highs
    roar = flutter * bed(draw, num_samples, (0, -1, -3, -10 - dark, -14 - 2 * dark, -16 - 3 * dark, -16 - 3 * dark))
    hiss = bed(draw, num_samples, (-30, -24, -14, -6, -2, 0, -1))
    rate *= draw.log_uniform(0.7, 1.5) * (0.5 + 1.3 * intensity)
    activity = np.exp(0.7 * drift(draw.rng, num_samples, draw.uniform(0.5, 1.5)))  # snaps come in flurries
    fine = bursts(draw, num_samples, rate_hz=2.5 * rate, low_hz=1200, high_hz=6500, decay_s=0.0012, spread=1.0)
    snaps_hz = draw.log_uniform(700.0, 1600.0)
    snaps = bursts(draw, num_samples, rate_hz=rate, low_hz=snaps_hz, high_hz=4.0 * snaps_hz, decay_s=0.0035, spread=1.2)
    pops = bursts(draw, num_samples, rate_hz=0.12 * rate, low_hz=250, high_hz=2200, decay_s=0.008, spread=0.9)
    out = db(roar_db + draw.uniform(-4.0, 4.0) + 3 * intensity) * roar + db(draw.uniform(-26.0, -16.0)) * hiss
    return out + activity * (0.7 * fine + 0.8 * snaps) + db(draw.uniform(-10.0, -2.0)) * pops


def sea_waves(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return breakers, a pebble beach or lapping water: swells that darken, break bright and run out hissing."""
    kind = draw.pick(("breakers", "breakers", "pebbles", "lapping"))
    seconds, t = num_samples / SAMPLE_RATE_HZ, seconds_axis(num_samples)
    period = draw.uniform(2.0, 3.2) if kind == "lapping" else draw.uniform(4.0, 10.0)
    body, bright = np.full(num_samples, 0.12), np.full(num_samples, 0.02)
    peak = -draw.rng.uniform(0.0, 0.9) * period
    while peak < seconds + period:
        height, rise, fall = draw.rng.uniform(0.6, 1.0), draw.uniform(0.12, 0.28), draw.uniform(0.16, 0.32)
        since = t - peak
        swell = np.where(since < 0, np.exp(since / (rise * period)), np.exp(-since / (fall * period)))
        late = since - 0.04 * period
        breaking = np.where(late < 0, np.exp(late / (0.35 * rise * period)), np.exp(-late / (1.1 * fall * period)))
        body += height * swell
        bright += height * breaking
        peak += period * draw.rng.uniform(0.75, 1.3)
    low = bed(draw, num_samples, (-3, -1, 0, -3, -9, -17, -26))
    high = bed(draw, num_samples, (-24, -16, -8, -2, 0, -3, -8))
    foam = np.maximum(1 + draw.uniform(0.05, 0.35) * drift(draw.rng, num_samples, draw.uniform(3.0, 9.0)), 0.1)
    out = body**1.3 * low + db(draw.uniform(-8.0, 0.0) + 2 * intensity) * foam * bright**1.3 * high
    if kind == "pebbles":
        stones = bursts(draw, num_samples, rate_hz=400, low_hz=1200, high_hz=5500, decay_s=0.003, spread=0.9)
        out += draw.uniform(0.3, 0.7) * bright**1.5 * stones
    if kind == "lapping":
        times = poisson_times(draw.rng, 14.0, seconds, at_least=1)
        plops = bubbles(draw.rng, num_samples, times, draw.rng.uniform(250, 900, len(times)), 0.3)
        out += draw.uniform(0.2, 0.5) * bright * unit(plops)
    return out


def river_flowing(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return a brook, a broad river or a waterfall: steady noise that thousands of small bubbles make gurgle."""
    kind = draw.pick(("brook", "brook", "river", "waterfall"))
    colour, rate, bubbles_db, pitch = {
        "brook": ((-36.0, -15.0, -7.0, 0.0, 0.0, -6.0, -14.0), 80.0, -4.0, 1000.0),
        "river": ((-16.0, -8.0, -3.0, 0.0, -2.0, -8.0, -16.0), 60.0, -5.0, 650.0),
        "waterfall": ((-14.0, -5.0, -2.0, 0.0, -1.0, -8.0, -17.0), 40.0, -14.0, 700.0),
    }[kind]
    times = poisson_times(draw.rng, rate * draw.log_uniform(0.7, 1.4) * (0.6 + 0.8 * intensity), num_samples / 16000)
    centre = pitch * draw.log_uniform(0.7, 1.4)
    pitches = np.clip(centre * np.exp(0.5 * draw.rng.standard_normal(len(times))), 220, 3800)
    gurgle = unit(bubbles(draw.rng, num_samples, times, pitches, draw.uniform(0.05, 0.25), length_s=0.05))
    gurgle = band(gurgle, 0.5 * centre, 6000)
    if kind != "waterfall":  # water that falls back on water: short and high
        splash = bursts(draw, num_samples, rate_hz=rate, low_hz=1600, high_hz=6000, decay_s=0.004, spread=1.0)
        gurgle += db(draw.uniform(-14.0, -2.0)) * splash
    wash = np.maximum(1 + draw.uniform(0.01, 0.12) * drift(draw.rng, num_samples, 4.0), 0.2) * bed(
        draw, num_samples, colour
    )
    churn = np.exp(draw.uniform(0.05, 0.2) * drift(draw.rng, num_samples, draw.uniform(1.0, 3.0)))
    return (
        wash * db(6 * (intensity - 0.5) + draw.uniform(-3.0, 3.0))
        + db(bubbles_db + draw.uniform(-5.0, 4.0)) * churn * gurgle
    )


def underwater_bubbling(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return an aquarium pump, a diver's breath or the deep: a dull rumble and bubbles whose pitch climbs."""
    kind = draw.pick(("aquarium", "diver", "deep"))
    seconds, rng = num_samples / SAMPLE_RATE_HZ, draw.rng
    low, high, rise = draw.log_uniform(220.0, 380.0), draw.log_uniform(700.0, 1300.0), draw.uniform(0.5, 1.1)
    if kind == "aquarium":  # an even stream of blips, a little unsteady
        rise *= draw.log_uniform(1.0, 6.0)
        rate = draw.uniform(7.0, 14.0) * (0.7 + 0.5 * intensity)
        times = np.cumsum(rng.gamma(6.0, 1 / (6.0 * rate), int(1.3 * rate * seconds) + 4))
    else:  # clouds of bubbles: at each breath, or now and then
        rate = draw.uniform(0.35, 0.7) if kind == "diver" else draw.uniform(0.8, 1.8)
        starts = poisson_times(rng, rate, seconds, at_least=1)
        size = int((26 if kind == "diver" else 8) * (0.5 + intensity)) + 2
        times = (starts[:, None] + rng.gamma(2.0, 0.3 if kind == "diver" else 0.1, (len(starts), size))).ravel()
        times = np.concatenate([times, poisson_times(rng, 3.0, seconds)])
    times = times[times < seconds]
    pitches = np.exp(rng.uniform(np.log(low), np.log(high), len(times)))
    stream = unit(bubbles(rng, num_samples, times, pitches, rise))
    stream += 0.35 * band(np.roll(stream, int(0.011 * SAMPLE_RATE_HZ)), 200, 900)  # the wall of the tank answers
    pulse = np.exp(draw.uniform(0.25, 0.6) * drift(rng, num_samples, draw.uniform(1.0, 3.0)))
    rumble = pulse * bed(draw, num_samples, (0, -3, -7, -20, -36, -56, -66))
    rumble_db = {"aquarium": -32.0, "diver": -5.0, "deep": 0.0}[kind]
    dull_hz = draw.log_uniform(2500.0, 6000.0) if kind == "aquarium" else draw.log_uniform(1400.0, 3000.0)
    if kind == "aquarium":
        skin = bursts(draw, num_samples, rate_hz=3 * rate, low_hz=1500, high_hz=6500, decay_s=0.003, spread=1.0)
        stream += db(draw.uniform(-26.0, -12.0)) * skin
    out = lowpass(stream, dull_hz) + db(rumble_db + draw.uniform(-8.0, 6.0)) * rumble
    return out
