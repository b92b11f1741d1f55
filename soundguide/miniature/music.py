"""Five styles of generated music, each with its own tempo, scale, timbre and rhythm.

A piece is a list of notes on a grid of beats; each note is read from a one-cycle wavetable. Every function returns a
waveform ``[T]`` of free level that starts anywhere in the bar; `intensity` 0..1 adds layers and brightness.
"""

import numpy as np
from scipy import signal

from soundguide.miniature.dsp import (
    SAMPLE_RATE_HZ,
    Draw,
    Floats,
    band,
    bed,
    db,
    decay,
    drift,
    lowpass,
    resonant_noise,
    scatter,
    seconds_axis,
    shaped_noise,
    unit,
)
from soundguide.miniature.score import MAJOR, MINOR, Score, hold, pitch_hz, play, pluck, wavetable


def funny_music(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return a comic polka: tuba or bassoon below, plucks off the beat, xylophone, slide whistle, boings."""
    rng, key = draw.rng, float(draw.rng.integers(55, 65))
    score = Score(draw, num_samples, draw.uniform(110.0, 140.0))
    swing, short = draw.uniform(0.5, 0.64), draw.uniform(0.14, 0.24)
    reed, string = [1.0, 0.5, 0.8, 0.5, 0.4, 0.2, 0.15], [1.0, 0.5, 0.25, 0.12, 0.06]
    chords = [[0, 0, 4, 0], [0, 3, 4, 0], [0, 5, 1, 4]][int(rng.integers(3))]
    block = band(rng.standard_normal(700) * decay(0.04375, 0.008), 1100.0, 1500.0) * 2
    lead_db, bass_db = draw.uniform(-4.0, 2.0), draw.uniform(-8.0, -1.0)
    walk = int(rng.integers(0, 8))
    for bar in score.bars(2):
        root = chords[(bar // 2) % 4]
        score.add(2 * bar, hold(pitch_hz(key - 24, MAJOR, root), short, reed, 0.012), bass_db)
        score.add(2 * bar + 1, hold(pitch_hz(key - 24, MAJOR, root - 3), short, reed, 0.012), bass_db - 1)
        for beat in (0.5, 1.5):
            for third in (0, 2, 4):
                score.add(2 * bar + beat, pluck(pitch_hz(key, MAJOR, root + third), 0.25, string, 0.06), -8.0)
            score.add(2 * bar + beat, block, -10.0)
        for eighth in range(4):
            if draw.chance(0.85):
                walk = int(np.clip(walk + rng.integers(-2, 3), -1, 11))
                hertz = pitch_hz(key + 12, MAJOR, walk if eighth % 2 else 2 * (walk // 2) + root % 2)
                xylophone = pluck(hertz, 0.3, [1.0, 0.05, 0.6, 0.1, 0.05, 0.2], 0.07)
                score.add(2 * bar + eighth // 2 + (swing if eighth % 2 else 0.0), xylophone, lead_db)
        if draw.chance(0.25 + 0.2 * intensity):
            x = np.linspace(0, 1, int(draw.uniform(0.4, 0.8) * SAMPLE_RATE_HZ))
            way = x if draw.chance(0.5) else 1 - x
            slide = play(wavetable(3000.0, [1.0, 0.1]), 600 * np.exp2(1.5 * way) * (1 + 0.02 * np.sin(60 * x)))
            score.add(2 * bar + 1, slide * np.sin(np.pi * x) ** 0.5, -5.0)
        elif draw.chance(0.15):
            t = seconds_axis(8000)
            boing = play(wavetable(400.0, [1, 0.6, 0.4, 0.3]), 140 * (1 + 0.3 * np.sin(2 * np.pi * 11 * t * (1 + t))))
            score.add(2 * bar + 1.5, boing * np.exp(-6 * t), -2.0)
    return score.out


def latin_music(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return salsa, bossa nova or rumba: clave, congas, shaker, off-beat bass, montuno piano, guitar or brass."""
    kind = draw.pick(("salsa", "bossa", "rumba"))
    rng, key = draw.rng, float(draw.rng.integers(55, 65))
    score = Score(draw, num_samples, draw.uniform(92.0, 112.0) if kind == "rumba" else draw.uniform(160.0, 200.0))
    scale = MAJOR if kind == "bossa" and draw.chance(0.5) else MINOR
    chords = [[0, 3, 4, 3], [0, 6, 5, 4], [1, 4, 0, 0]][int(rng.integers(3))]
    clave = pluck(draw.uniform(2200.0, 2700.0), 0.08, [1.0], 0.03)
    low = pluck(draw.uniform(170.0, 230.0), 0.3, [1.0, 0.5, 0.2], 0.09)
    slap = band(rng.standard_normal(1600) * decay(0.1, 0.018), 500.0, 2600.0) * 2.5
    shaker = band(rng.standard_normal(900) * decay(0.05625, 0.015, 0.012), 4000.0, 7500.0) * 2
    two_three = (0.0, 1.5, 3.0, 5.0, 6.0) if draw.chance(0.5) else (1.0, 2.0, 4.0, 5.5, 7.0)
    bossa_clave = (0.0, 1.5, 3.0, 5.0, 6.5)
    score.repeat(bossa_clave if kind == "bossa" else two_three, 8, clave, draw.uniform(-9.0, -3.0))
    score.repeat((3.0, 3.5), 4, low, draw.uniform(-2.0, 3.0))
    score.repeat((1.0, 2.5), 4, slap, draw.uniform(-7.0, -1.0))
    score.repeat(tuple(np.arange(8) / 2), 4, shaker, draw.uniform(-18.0, -9.0))
    nylon, piano = [1.0, 0.6, 0.45, 0.3, 0.2, 0.12, 0.08], [1.0, 0.7, 0.4, 0.35, 0.2, 0.15, 0.1]
    brass = [1.0, 0.9, 0.85, 0.7, 0.6, 0.45, 0.35, 0.25, 0.2]
    bass_db = draw.uniform(-5.0, 2.0)
    montuno = ((0, 0), (1, 4), (1.5, 2), (2.5, 4), (3, 2), (3.5, 4))
    for bar in score.bars(4):
        root = chords[bar % 4]
        for beat, degree in ((0.0, 0), (1.5, 4), (3.0, 0)):  # tumbao: the bass comes before the beat
            score.add(
                4 * bar + beat, pluck(pitch_hz(key - 24, scale, root + degree), 0.5, [1, 0.4, 0.15], 0.22), bass_db
            )
        if kind == "salsa":
            for beat, degree in montuno:
                for octave in (0, len(scale)):
                    score.add(4 * bar + beat, pluck(pitch_hz(key, scale, root + degree + octave), 0.3, piano, 0.12), -3)
        else:
            for beat in (0.0, 1.0, 1.5, 2.5, 3.5) if kind == "bossa" else (0.0, 0.75, 1.5, 2.0, 2.5, 3.0, 3.25, 3.5):
                for rank, degree in enumerate((0, 2, 4, 7) if kind == "rumba" else (0, 2, 4, 6)):
                    note = pluck(pitch_hz(key - 5, scale, root + degree), 0.5, nylon, 0.2)
                    score.add(4 * bar + beat + 0.02 * rank, note, -4.0)
        if kind == "salsa" and draw.chance(0.3 + 0.5 * intensity):
            for beat in (0.5, 1.0, 2.5)[: int(rng.integers(1, 4))]:
                for degree in (4, 7, 9):
                    score.add(4 * bar + beat, hold(pitch_hz(key, scale, root + degree), 0.2, brass, 0.02), -6.0)
    return score.out


def techno_music(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return four-on-the-floor techno: kick, hats, clap, a saw bass that opens and closes, arpeggio or stabs."""
    kind = draw.pick(("acid", "trance", "minimal"))
    rng, key = draw.rng, float(draw.rng.integers(38, 48))
    score = Score(draw, num_samples, draw.uniform(124.0, 140.0))
    t = seconds_axis(5600)
    sweep = draw.uniform(44.0, 56.0) + draw.uniform(120.0, 260.0) * np.exp(-t / 0.025)
    kick = np.sin(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE_HZ) * np.exp(-t / draw.uniform(0.09, 0.16))
    kick += 0.3 * lowpass(rng.standard_normal(5600), 5000) * np.exp(-t / 0.003)
    hat = band(rng.standard_normal(800) * decay(0.05, 0.012), 5500.0, 7800.0)
    open_hat = band(rng.standard_normal(3200) * decay(0.2, 0.06), 4500.0, 7800.0)
    clap = band(rng.standard_normal(3200) * (decay(0.2, 0.05) + np.roll(decay(0.2, 0.01), 250)), 900.0, 4500.0)
    pattern = rng.choice([0, 0, 0, 2, 4, 6, 7], 16)
    active = rng.random(16) < draw.uniform(0.6, 0.95)
    opening = drift(rng, 64, SAMPLE_RATE_HZ * 0.04)  # one turn in 12 sixteenths or so
    sharp = draw.uniform(0.6, 1.0)
    for sixteenth in range(int(score.first_beat * 4) - 2, int(score.last_beat * 4) + 1):
        step = sixteenth % 16
        if not active[step]:
            continue
        hertz = pitch_hz(key, MINOR, int(pattern[step]))
        cutoff = 350 * 2 ** (1.2 * opening[sixteenth % 64] + (1.5 if kind == "acid" else 0.5) + intensity)
        order = np.arange(1, 60)
        resonance = 1 + (3 if kind == "acid" else 1) * np.exp(-(((order * hertz - cutoff) / (0.3 * cutoff)) ** 2))
        partials = sharp * resonance / order / (1 + (order * hertz / cutoff) ** 3)
        score.add(sixteenth / 4, pluck(hertz, 0.16, [float(p) for p in partials], 0.12), -4.0)
        if kind == "trance":
            arp = pitch_hz(key + 24, MINOR, (0, 2, 4, 7)[sixteenth % 4] + (5, 0)[sixteenth // 32 % 2])
            score.add(sixteenth / 4, pluck(arp, 0.3, [float(1 / k) for k in range(1, 12)], 0.15), -10.0)
    if kind != "trance":
        for third in (0, 2, 4):
            stab = pluck(pitch_hz(key + 24, MINOR, third), 0.35, [float(1 / k) for k in range(1, 14)], 0.1)
            score.repeat((0.75, 2.5) if kind == "minimal" else (1.5,), 4, stab, -12.0)
    # the kick presses everything else down for a moment
    beat = (seconds_axis(num_samples) / score.beat_s + score.first_beat) % 1.0
    score.out *= 1 - 0.7 * np.exp(-beat / 0.25)
    score.repeat((0.0,), 1, kick, draw.uniform(-1.0, 4.0))
    score.repeat((0.5,), 1, open_hat, draw.uniform(-8.0, -2.0))
    score.repeat((0.0, 0.25, 0.5, 0.75), 1, hat, draw.uniform(-12.0, -5.0))
    score.repeat((1.0,), 2, clap, draw.uniform(-10.0, -3.0))
    return score.out


def dark_ambient_music(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return drones, inharmonic pads, breathing noise and far metal in a vast room: no beat, no tune."""
    kind = draw.pick(("drone", "pads", "cavern"))
    rng, t = draw.rng, seconds_axis(num_samples)
    root, out = draw.log_uniform(36.0, 75.0), np.zeros(num_samples)
    for ratio in (1.0, 1.007, 1.5 if draw.chance(0.5) else 1.414, 2.003):
        partials = [float(1 / k**1.4) for k in range(1, 14)]
        swell = np.exp(0.6 * drift(rng, num_samples, draw.uniform(0.06, 0.2)))
        hertz = root * ratio * (1 + 0.003 * drift(rng, num_samples, 0.2))
        out += swell / ratio * play(wavetable(root * ratio, partials), hertz)
    out = unit(lowpass(out, draw.log_uniform(180.0, 700.0) * (0.7 + 0.8 * intensity)))
    if kind != "cavern" or draw.chance(0.4):
        for _ in range(3 + round(3 * intensity)):
            partial = root * draw.uniform(3.0, 13.0)
            swell = np.clip(drift(rng, num_samples, 0.15), 0, None)
            level = draw.uniform(-14.0, -6.0) if kind == "pads" else draw.uniform(-20.0, -11.0)
            out += db(level) * swell * np.sin(2 * np.pi * partial * t + 2 * np.sin(2 * np.pi * 0.13 * t))
    breath = resonant_noise(rng, 350 * np.exp2(draw.uniform(0.2, 0.6) * drift(rng, num_samples, 0.15)), 120.0)
    out += db(draw.uniform(-26.0, -14.0)) * np.exp(0.5 * drift(rng, num_samples, 0.2)) * breath
    out += db(draw.uniform(-30.0, -15.0)) * bed(draw, num_samples, (0, -4, -10, -20, -32, -44, -55))
    strikes = rng.uniform(-1.0, num_samples / SAMPLE_RATE_HZ, int(rng.integers(0, 3)) + 2 * (kind == "cavern"))
    metal = np.zeros(int(2.5 * SAMPLE_RATE_HZ))
    for ratio in (1.0, 2.76, 4.1, 5.4, 7.2):
        metal += np.sin(2 * np.pi * draw.uniform(150.0, 320.0) * ratio * seconds_axis(len(metal))) / ratio
    metal *= decay(2.5, 0.6, 0.02)
    hall = decay(2.5, 0.7, 0.05) * shaped_noise(rng, len(metal), (-6, -2, 0, -4, -12, -24, -40))
    hit = signal.oaconvolve(metal, hall)[: len(metal)]
    hit[-8000:] *= np.linspace(1, 0, 8000)
    far = scatter(num_samples, strikes, np.tile(hit, (len(strikes), 1)))
    return out + db(draw.uniform(-14.0, -5.0)) * unit(far)


def orchestral_music(draw: Draw, num_samples: int, intensity: float) -> Floats:
    """Return strings, horns and brass chords, flute and timpani in a hall, on a four-chord progression."""
    kind = draw.pick(("adagio", "heroic", "tremolo"))
    rng, key = draw.rng, float(draw.rng.integers(52, 62))
    score = Score(draw, num_samples, draw.uniform(60.0, 90.0))
    scale = MAJOR if draw.chance(0.6 if kind != "tremolo" else 0.2) else MINOR
    chords = [[0, 4, 5, 3], [0, 3, 4, 0], [5, 3, 0, 4], [0, 5, 3, 4]][int(rng.integers(4))]
    soft = draw.uniform(0.9, 1.3)
    order = np.arange(1, 26)
    bowed = [float(p) for p in (1 + 0.5 * np.cos(order * 1.7)) / order**soft]
    horn = [float(p) for p in np.exp(-0.5 * ((order - 1) / (2.2 + 2 * intensity)) ** 2)]
    t = seconds_axis(16000)
    drum = np.sin(2 * np.pi * pitch_hz(key - 24, scale, 0) * t * (1 + 0.03 * np.exp(-t / 0.05))) * np.exp(-t / 0.3)
    drum += 0.5 * lowpass(rng.standard_normal(16000), 300) * np.exp(-t / 0.05)
    melody, chord_beats = int(rng.integers(4, 9)), 4 if kind == "adagio" else 2
    vibrato, drums_db = draw.uniform(0.003, 0.007), draw.uniform(-3.0, 3.0)
    for bar in score.bars(chord_beats, lead_in=0):
        root, length = chords[bar % 4], chord_beats * score.beat_s * 1.08
        voices = [(key - 24, root), (key - 12, root), (key - 12, root + 4), (key, root + 2), (key, root + 7)]
        for base, degree in voices:
            for _ in range(2):  # players: never quite together, never quite in tune
                hertz = pitch_hz(base, scale, degree) * (1 + 0.003 * rng.standard_normal())
                note = hold(hertz, length, bowed, draw.uniform(0.1, 0.3), vibrato)
                if kind == "tremolo":
                    note *= 1 + 0.6 * np.sin(2 * np.pi * draw.uniform(9.0, 13.0) * seconds_axis(len(note)))
                score.add(bar * chord_beats + 0.06 * rng.random(), note, -9.0)
        if kind == "heroic" or draw.chance(0.2 + 0.4 * intensity):
            for degree in (0, 2, 4):
                for beat in (0.0, 1.5) if kind == "heroic" else (0.0,):
                    note = hold(pitch_hz(key, scale, root + degree), 0.45 * length, horn, 0.05, 0.002)
                    score.add(bar * chord_beats + beat, note, -8.0 + 3 * intensity)
        for beat in range(chord_beats):
            melody = int(np.clip(melody + rng.integers(-2, 3), 3, 12))
            flute = hold(pitch_hz(key + 12, scale, melody), score.beat_s, [1.0, 0.3, 0.15, 0.05], 0.06, 2 * vibrato)
            score.add(bar * chord_beats + beat, flute, -8.0)
        if kind == "heroic" or draw.chance(0.3 + 0.4 * intensity):
            score.add(bar * chord_beats, drum, drums_db)
            score.add(bar * chord_beats + chord_beats - 0.5, drum, drums_db - 5.0)
    hall = decay(1.6, draw.uniform(0.2, 0.4), 0.01) * shaped_noise(rng, 25600, (-6, -2, 0, -1, -5, -12, -24))
    wet = signal.oaconvolve(score.out, hall)[:num_samples]
    return unit(score.out) + db(draw.uniform(-9.0, -3.0)) * unit(wet)
