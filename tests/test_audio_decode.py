"""Decoding, resampling and validation of sound files, on real files written by libsndfile and FFmpeg."""

import io
import struct
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from soundguide.audio.decode import AudioLimits, decode_audio, encode_flac, encode_wav, iter_audio
from soundguide.errors import InvalidAudio

RATE = 16_000


def tone(rate: int, seconds: float = 1.0, hz: float = 440.0, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def with_soundfile(samples: np.ndarray, rate: int, container: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def with_av(samples: np.ndarray, rate: int, container: str, codec: str) -> bytes:
    buffer = io.BytesIO()
    layout = "stereo" if samples.ndim == 2 else "mono"
    planar = np.atleast_2d(samples.T).astype(np.float32)
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planar), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def dominant_hz(samples: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples * np.hanning(samples.size)))) * RATE / samples.size)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.square(samples).mean()))


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize(
    ("container", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", None), ("OGG", "VORBIS"), ("MP3", None)]
)
def test_soundfile_formats_keep_pitch_level_and_length(rate: int, container: str, subtype: str | None) -> None:
    samples = decode_audio(with_soundfile(tone(rate), rate, container, subtype), sample_rate=RATE)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert dominant_hz(samples) == pytest.approx(440.0, abs=2.0)
    assert rms(samples[2_000:-2_000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)
    assert samples.size == pytest.approx(RATE, abs=0.15 * RATE if container == "MP3" else 2)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("ipod", "aac", 44_100),
        ("mp4", "aac", 48_000),
        ("webm", "libopus", 48_000),
        ("ogg", "libopus", 48_000),
        ("matroska", "pcm_s16le", 8_000),
    ],
)
def test_ffmpeg_formats_keep_pitch_level_and_length(container: str, codec: str, rate: int) -> None:
    data = with_av(tone(rate), rate, container, codec) if codec != "pcm_s16le" else pcm_matroska(rate)
    samples = decode_audio(data, sample_rate=RATE)
    assert dominant_hz(samples) == pytest.approx(440.0, abs=2.0)
    assert rms(samples[2_000:-2_000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)
    assert samples.size == pytest.approx(RATE, abs=0.15 * RATE)


def pcm_matroska(rate: int) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=rate)
        stream.layout = "mono"
        pcm = (tone(rate) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def test_the_sound_of_a_video_is_read() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        video = output.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio = output.add_stream("aac", rate=RATE)
        audio.layout = "mono"
        for index in range(5):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * index, np.uint8), format="rgb24")
            picture.pts = index
            output.mux(video.encode(picture))
        sound = av.AudioFrame.from_ndarray(tone(RATE)[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts = RATE, 0
        output.mux(audio.encode(sound))
        output.mux(video.encode(None))
        output.mux(audio.encode(None))
    assert dominant_hz(decode_audio(buffer.getvalue(), sample_rate=RATE)) == pytest.approx(440.0, abs=2.0)


def test_channels_are_averaged_by_libsndfile() -> None:
    stereo = np.stack([tone(RATE), np.zeros(RATE, np.float32)], axis=1)
    samples = decode_audio(with_soundfile(stereo, RATE, "WAV", "FLOAT"), sample_rate=RATE)
    np.testing.assert_allclose(samples, tone(RATE) / 2, atol=1e-6)


def test_channels_are_averaged_by_ffmpeg() -> None:
    stereo = np.stack([tone(48_000), tone(48_000)], axis=1)
    samples = decode_audio(with_av(stereo, 48_000, "ipod", "aac"), sample_rate=RATE)
    assert rms(samples[2_000:-2_000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)  # FFmpeg's own mix is 3 dB louder


def test_resampling_equals_the_tone_sampled_at_the_new_rate() -> None:
    samples = decode_audio(with_soundfile(tone(44_100, hz=1_000.0), 44_100, "WAV", "FLOAT"), sample_rate=RATE)
    np.testing.assert_allclose(samples[200:-200], tone(RATE, hz=1_000.0)[200 : samples.size - 200], atol=1e-3)


def test_resampling_removes_what_the_new_rate_cannot_hold() -> None:
    data = with_soundfile(tone(48_000, hz=11_000.0) + tone(48_000, hz=500.0, amplitude=0.1), 48_000, "WAV", "FLOAT")
    samples = decode_audio(data, sample_rate=RATE)
    expected = tone(RATE, hz=500.0, amplitude=0.1)
    np.testing.assert_allclose(samples[200:-200], expected[200 : samples.size - 200], atol=2e-3)


@pytest.mark.parametrize("container", ["WAV", "webm"])
@pytest.mark.parametrize("block_seconds", [0.05, 0.7, 30.0])
def test_blocks_of_any_length_join_to_the_same_samples(container: str, block_seconds: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 48_000).astype(np.float32)
    data = with_soundfile(noise, 48_000, "WAV") if container == "WAV" else with_av(noise, 48_000, "webm", "libopus")
    blocks = list(iter_audio(data, sample_rate=44_100, block_seconds=block_seconds))
    np.testing.assert_array_equal(np.concatenate(blocks), decode_audio(data, sample_rate=44_100))
    assert {block.size for block in blocks[:-1]} <= {round(block_seconds * 44_100)}


def test_a_stream_has_no_seams() -> None:
    # Long enough for several reads: a pure tone leaves no trace where reads or blocks meet.
    rate, seconds = 44_100, 20.0
    samples = decode_audio(with_soundfile(tone(rate, seconds, 1_000.0), rate, "WAV", "FLOAT"), sample_rate=RATE)
    assert samples.size == pytest.approx(RATE * seconds, abs=2)
    np.testing.assert_allclose(samples[200:-200], tone(RATE, seconds, 1_000.0)[200 : samples.size - 200], atol=1e-3)


def test_a_decoder_s_finding_is_told_without_its_numbers() -> None:
    with pytest.raises(InvalidAudio, match=r"\(Invalid data found when processing input\)"):
        decode_audio(b"this is no sound", sample_rate=RATE)


def test_an_hour_is_decoded_from_a_file_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "hour.flac"
    minute = np.random.default_rng(0).integers(-900, 900, 60 * 8_000).astype(np.int16)
    with soundfile.SoundFile(path, "w", 8_000, 1, subtype="PCM_16") as sound:
        for _ in range(60):
            sound.write(minute)
    with path.open("rb") as file:
        tracemalloc.start()
        num_samples = sum(block.size for block in iter_audio(file, sample_rate=12_000))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert num_samples == pytest.approx(3_600 * 12_000, abs=2)
    assert peak < 16 * 2**20  # the whole hour is 165 MiB


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"this is a letter, not a song " * 40, "no sound file"),
        (bytes(4_096), "no sound file"),
        (with_soundfile(np.zeros(0, np.float32), RATE, "WAV"), "0 samples"),
        (with_soundfile(tone(RATE, 0.05), RATE, "WAV"), "800 samples"),
        (with_soundfile(np.zeros(RATE, np.float32), RATE, "WAV"), "silent"),
        (with_soundfile(tone(RATE, amplitude=1e-5), RATE, "WAV", "FLOAT"), "silent"),
        (with_soundfile(np.append(tone(RATE), np.float32(np.nan)), RATE, "WAV", "FLOAT"), "NaN"),
        (with_soundfile(np.append(tone(RATE), np.float32(np.inf)), RATE, "WAV", "FLOAT"), "infinite"),
        (with_soundfile(tone(RATE), 20, "WAV"), "20 Hz"),
    ],
)
def test_bad_sounds_are_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(InvalidAudio, match=words):
        decode_audio(data, sample_rate=RATE)


def test_a_track_in_a_codec_that_nobody_knows_is_refused_with_the_remedy() -> None:
    data = with_av(tone(48_000), 48_000, "webm", "libopus").replace(b"A_OPUS", b"A_XXXX")
    with pytest.raises(InvalidAudio, match="codec is unknown"):
        decode_audio(data, sample_rate=RATE)


def test_limits_on_seconds_and_bytes_are_kept() -> None:
    data = with_soundfile(tone(RATE, 2.0), RATE, "WAV")
    with pytest.raises(InvalidAudio, match="longer than the 1 s"):
        decode_audio(data, sample_rate=RATE, limits=AudioLimits(max_seconds=1.0))
    with pytest.raises(InvalidAudio, match="at most 100 are allowed"):
        decode_audio(data, sample_rate=RATE, limits=AudioLimits(max_bytes=100))


def test_a_tenth_of_a_second_is_enough() -> None:
    assert decode_audio(encode_wav(tone(RATE, 0.1), RATE), sample_rate=RATE).size == 1_600


@pytest.mark.parametrize("container", ["wav", "flac", "m4a", "webm", "mp3"])
def test_cut_or_damaged_files_are_read_or_refused_but_never_crash(container: str) -> None:
    good = {
        "wav": with_soundfile(tone(RATE), RATE, "WAV"),
        "flac": with_soundfile(tone(RATE), RATE, "FLAC"),
        "mp3": with_soundfile(tone(RATE), RATE, "MP3"),
        "m4a": with_av(tone(RATE), RATE, "ipod", "aac"),
        "webm": with_av(tone(48_000), 48_000, "webm", "libopus"),
    }[container]
    rng = np.random.default_rng(1)
    for trial in range(30):
        damaged = np.frombuffer(good, np.uint8).copy()
        damaged[rng.integers(0, damaged.size, 20)] = rng.integers(0, 256, 20)
        data = damaged.tobytes() if trial % 2 else good[: rng.integers(1, len(good))]
        try:
            samples = decode_audio(data, sample_rate=RATE, limits=AudioLimits(max_seconds=30.0))
        except InvalidAudio:
            continue
        assert np.isfinite(samples).all() and samples.size > 0


def test_of_an_mp3_that_was_cut_nothing_is_heard_but_what_is_there() -> None:
    rng = np.random.default_rng(0)
    whole = tone(RATE, 24.0) + 0.05 * rng.standard_normal(24 * RATE).astype(np.float32)
    data = with_soundfile(whole, RATE, "MP3")  # its header goes on to say 24 s
    cut = data[: len(data) * 6 // 10]
    with av.open(io.BytesIO(cut)) as container:
        there = sum(frame.samples for frame in container.decode(audio=0))
    heard = decode_audio(cut, sample_rate=RATE)
    assert abs(heard.size - there) <= 2 * 1152  # the last frame may count as broken
    np.testing.assert_allclose(heard[:-2304], decode_audio(data, sample_rate=RATE)[: heard.size - 2304], atol=1e-4)


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile secret.ts\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n",
    ],
)
def test_a_playlist_cannot_reach_files_or_sockets(
    playlist: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.ts").write_bytes(with_av(tone(RATE), RATE, "mpegts", "aac"))
    assert decode_audio(Path("secret.ts").read_bytes(), sample_rate=RATE).size > 0
    with pytest.raises(InvalidAudio, match="no sound file"):
        decode_audio(playlist.encode(), sample_rate=RATE)


def test_encoders_round_trip_to_16_bits() -> None:
    samples = np.concatenate([tone(RATE, amplitude=0.9), np.array([1.0, -1.0, 1.5], np.float32)])
    for data in (encode_wav(samples, RATE), encode_flac(samples, RATE)):
        np.testing.assert_allclose(decode_audio(data, sample_rate=RATE), samples.clip(-1, 1), atol=1.01 / 32_768)
    assert encode_wav(samples, RATE)[:4] == b"RIFF" and encode_flac(samples, RATE)[:4] == b"fLaC"
    assert struct.unpack_from("<H", encode_wav(samples, RATE), 34) == (16,)


def test_encoders_refuse_what_is_no_row_of_finite_samples() -> None:
    for samples in (np.zeros((2, 100), np.float32), np.zeros(0, np.float32), np.full(10, np.nan, np.float32)):
        with pytest.raises(InvalidAudio, match="finite samples"):
            encode_wav(samples, RATE)
