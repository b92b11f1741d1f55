"""What a film reacts to: loudness, onsets and beat, measured as a stream and smoothed within a stated bound."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from soundguide.audio.decode import Samples, decode_audio, encode_wav
from soundguide.film.reaction import (
    ENVELOPE_HZ,
    FLOOR_DB,
    HOP,
    N_FFT,
    RATE_HZ,
    Envelopes,
    drive_of,
    largest_step,
    loudness_of,
    measure_song,
    overlapping,
)

librosa = pytest.importorskip("librosa", reason="needs librosa: pip install 'soundguide[music]'")


def clicks(seconds: float, bpm: float) -> Samples:
    """Return noise bursts on every beat over a soft tone."""
    num = round(seconds * RATE_HZ)
    piece = 0.01 * np.sin(2 * np.pi * 220 * np.arange(num) / RATE_HZ)
    rng = np.random.default_rng(0)
    for beat in np.arange(0.5, seconds - 0.2, 60 / bpm):
        at = round(beat * RATE_HZ)
        piece[at : at + 2000] += 0.5 * rng.uniform(-1, 1, 2000) * np.exp(-np.arange(2000) / 400)
    return piece.astype(np.float32)


def envelopes(level_db: np.ndarray) -> Envelopes:
    return Envelopes(level_db.astype(np.float32), np.zeros(len(level_db), np.float32), np.zeros(0))


def steps(*levels: float, seconds: float = 3.0) -> Envelopes:
    return envelopes(np.repeat(levels, round(seconds * ENVELOPE_HZ)))


def test_a_song_measured_in_blocks_is_the_song_measured_whole() -> None:
    data = encode_wav(clicks(65.0, 100), RATE_HZ)  # three blocks of the decoder
    samples, found = decode_audio(data, sample_rate=RATE_HZ), measure_song(data)
    rms = librosa.feature.rms(y=samples, frame_length=N_FFT, hop_length=HOP)[0]
    mel = librosa.power_to_db(
        librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, n_fft=N_FFT, hop_length=HOP), amin=1e-4, top_db=None
    )
    flux = librosa.onset.onset_strength(S=mel, sr=RATE_HZ, hop_length=HOP, center=False)
    assert abs(len(found.level_db) - len(rms)) <= 1
    num = min(len(found.level_db), len(rms))
    np.testing.assert_allclose(10 ** (found.level_db[:num] / 20), np.maximum(rms[:num], 1e-5), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.flux[:num], flux[:num], atol=1e-2)


@pytest.mark.parametrize("size", [100, HOP, 5000, 10**6])
def test_frames_across_pieces_are_those_of_the_whole(size: int) -> None:
    whole = np.arange(1, 20_001, dtype=np.float32)
    padded = np.concatenate([np.zeros(N_FFT // 2), whole, np.zeros(N_FFT // 2)])
    expected = [padded[k : k + N_FFT] for k in range(0, len(padded) - N_FFT + 1, HOP)]
    blocks = (whole[start : start + size] for start in range(0, len(whole), size))
    found = [piece[k : k + N_FFT] for piece in overlapping(blocks) for k in range(0, len(piece) - N_FFT + 1, HOP)]
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))


def test_one_block_is_alive_at_a_time_however_long_the_song() -> None:
    alive: list[weakref.ref[Samples]] = []
    most = 0

    def blocks() -> Iterator[Samples]:
        nonlocal most
        for _ in range(40):
            block = np.zeros(10_000, np.float32)
            alive.append(weakref.ref(block))
            gc.collect(0)
            most = max(most, sum(ref() is not None for ref in alive))
            yield block
            del block

    for piece in overlapping(blocks()):
        del piece
    assert most <= 2


@pytest.mark.parametrize("bpm", [90, 120])
def test_the_beat_lies_on_the_clicks(bpm: float) -> None:
    beats = measure_song(encode_wav(clicks(20.0, bpm), RATE_HZ)).beats
    true = np.arange(0.5, 19.8, 60 / bpm)
    off = np.abs(beats[:, None] - true).min(1)
    assert len(beats) > 0.7 * len(true)
    assert np.median(off) < 0.05


def test_beats_of_a_long_song_are_each_found_once() -> None:
    beats = measure_song(encode_wav(clicks(130.0, 120), RATE_HZ)).beats  # three parts of the tracker
    assert (np.diff(beats) > 0.3).all() and (np.diff(beats) < 0.8).all()


def test_loud_is_more_than_soft_and_both_are_within_bounds() -> None:
    loudness = loudness_of(steps(-40, -10, -40, -10).level_db)
    soft, loud = (loudness[round(t * ENVELOPE_HZ)] for t in (1.5, 4.5))
    assert 0 <= soft < 0.1 and 0.9 < loud <= 1
    assert loudness.min() >= 0 and loudness.max() <= 1


def test_soft_and_loud_are_what_they_are_for_the_passage_around() -> None:
    quiet, full = steps(*[-45, -30] * 12), steps(*[-25, -10] * 12)
    both = loudness_of(np.concatenate([quiet.level_db, full.level_db]))
    in_quiet, in_full = (both[round(t * ENVELOPE_HZ)] for t in (19.5 + 3, 72 + 49.5 + 3))
    assert in_quiet == pytest.approx(in_full, abs=0.1)


def test_music_of_one_level_is_not_torn_apart() -> None:
    level = -20 + np.random.default_rng(0).normal(0, 0.3, 2000)
    assert np.ptp(loudness_of(level)) < 0.2


def test_silence_drives_nothing() -> None:
    drive = drive_of(steps(FLOOR_DB - 20), num_frames=60, fps=24)
    np.testing.assert_array_equal(drive, 0)


@pytest.mark.parametrize("fps", [8, 24, 60])
def test_no_frame_jumps_over_the_bound_however_wild_the_song(fps: int) -> None:
    rng = np.random.default_rng(0)
    wild = Envelopes(
        rng.choice([-90, 0], 900).astype(np.float32),
        rng.choice([0, 30], 900).astype(np.float32),
        np.arange(0, 20, 0.3),
    )
    drive = drive_of(wild, num_frames=round(900 / ENVELOPE_HZ * fps), fps=fps)
    assert drive.min() >= 0 and drive.max() <= 1
    assert np.abs(np.diff(drive)).max() <= largest_step(fps)
    assert drive[0] <= largest_step(fps)


def test_the_drive_follows_a_crescendo_at_its_time() -> None:
    song = steps(-40, -40, -10, -10, -40)
    drive = drive_of(song, num_frames=15 * 24, fps=24)
    rise = int(np.argmax(drive > 0.5 * drive.max())) / 24
    assert rise == pytest.approx(6.0, abs=0.35)


def test_more_frames_than_the_song_lasts_hold_its_end() -> None:
    drive = drive_of(steps(-20), num_frames=5 * 24, fps=24)
    assert len(drive) == 120 and np.isfinite(drive).all()


@pytest.mark.chaos
def test_processes_that_measure_side_by_side_where_nothing_is_compiled_leave_a_cache_that_serves(
    tmp_path: Path,
) -> None:
    (tmp_path / "song.wav").write_bytes(encode_wav(clicks(8.0, 120), RATE_HZ))
    program = (
        "import sys; from soundguide.film.reaction import measure_song; print(measure_song(open(sys.argv[1], 'rb')))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "song.wav")]
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment["SOUNDGUIDE_CACHE"] = str(tmp_path / "cache")
    told = []
    for together in (2, 1):  # and one after them, which finds the cache
        started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(together)]
        told += [process.communicate(timeout=240)[0] for process in started]
        assert [process.returncode for process in started] == [0] * together
    assert told[0] == told[1] == told[2] and b"beats" in told[0]
    assert list((tmp_path / "cache" / "numba").rglob("*.nbi"))
