"""Decoding clips: the right sound, the right frame, and a reason for every file that has none."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from clip_videos import BLUE, CODECS, FPS, GREEN, RED, loudest_hz, plain, request, tone, write_video
from numpy.typing import NDArray
from PIL import Image

from soundguide.audio.decode import decode_audio, encode_wav
from soundguide.clips.decode import ClipDecoder, ClipLimits, ClipSettings, Span, cut_frame, cut_sound
from soundguide.errors import InvalidAudio, InvalidImage

RATE = 16_000
LIMITS = ClipLimits()
DECODER = ClipDecoder(RATE, 32)


def decode_with(decoder: ClipDecoder, path: Path | str, **values: object) -> dict[str, object]:
    return decoder.decode(request(video=str(path), **values))


def frame_of(row: dict[str, object]) -> NDArray[np.uint8]:
    assert row["status"] == "ok", row["error"]
    return np.asarray(Image.open(io.BytesIO(bytes(row["frame"]))))  # type: ignore[call-overload]


def is_colored(pixels: NDArray[np.uint8], color: tuple[int, int, int]) -> bool:
    # 40: what codecs and two roundings of the colour space change
    return bool(np.abs(pixels.reshape(-1, 3).mean(0) - np.array(color)).max() < 40)


@pytest.fixture(scope="module", params=CODECS)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds: 440 Hz on red, 1000 Hz on green, 2500 Hz on blue, one second each; in mp4, webm and mkv."""
    frames = np.concatenate([plain(color, FPS) for color in (RED, GREEN, BLUE)])
    sound = np.concatenate([tone(hz, 1.0) for hz in (440, 1000, 2500)])
    return write_video(tmp_path_factory.mktemp("film") / f"film{request.param}", sound=sound, frames=frames)


def test_a_clip_has_the_whole_sound_at_the_encoders_rate_and_the_middle_frame(film: Path) -> None:
    row = decode_with(DECODER, film)
    pixels = frame_of(row)
    waveform = decode_audio(bytes(row["sound"]), sample_rate=RATE)  # type: ignore[call-overload]
    assert (row["sample_rate"], bytes(row["sound"])[:4]) == (RATE, b"fLaC")  # type: ignore[call-overload]
    assert len(waveform) == pytest.approx(3 * RATE, abs=0.07 * RATE)  # codecs work in blocks
    for second, hz in enumerate((440, 1000, 2500)):
        part = waveform[round((second + 0.2) * RATE) : round((second + 0.8) * RATE)]
        assert loudest_hz(part, RATE) == pytest.approx(hz, abs=4)
        assert np.sqrt(2 * np.mean(part**2)) == pytest.approx(0.4, rel=0.1)  # the level is the file's own
    assert pixels.shape == (32, 32, 3) and is_colored(pixels, GREEN)


@pytest.mark.parametrize(
    ("start", "end", "seconds", "hz", "color"),
    [(0.1, 0.9, 0.8, 440, RED), (2.1, 2.9, 0.8, 2500, BLUE), (2.1, 0.0, 0.9, 2500, BLUE)],
)
def test_a_span_gives_its_own_sound_and_the_frame_in_its_middle(
    film: Path, start: float, end: float, seconds: float, hz: float, color: tuple[int, int, int]
) -> None:
    row = decode_with(DECODER, film, start_seconds=start, end_seconds=end)
    waveform = decode_audio(bytes(row["sound"]), sample_rate=RATE)  # type: ignore[call-overload]
    assert len(waveform) == pytest.approx(seconds * RATE, abs=0.07 * RATE)
    assert loudest_hz(waveform, RATE) == pytest.approx(hz, abs=4)
    assert is_colored(frame_of(row), color)


def test_a_long_sound_is_cut_to_the_clip_exactly(film: Path) -> None:
    decoder = ClipDecoder(RATE, 32, ClipSettings(clip_seconds=0.75))
    row = decode_with(decoder, film)
    assert len(decode_audio(bytes(row["sound"]), sample_rate=RATE)) == 12_000  # type: ignore[call-overload]
    assert is_colored(frame_of(row), RED)


def test_a_frame_is_the_centre_square_and_never_enlarged(tmp_path: Path) -> None:
    wide = plain(RED, 3, size=(48, 96))
    wide[:, :, 24:72] = GREEN
    data = write_video(tmp_path / "wide.mkv", sound=None, frames=wide).read_bytes()
    small, own = (cut_frame(data, seconds=0.1, side=side, limits=LIMITS) for side in (20, 1000))
    assert small.shape == (20, 20, 3) and own.shape == (48, 48, 3)
    assert is_colored(own[:, 4:-4], GREEN) and is_colored(small[:, 3:-3], GREEN)


def test_a_film_held_sideways_is_turned_upright(tmp_path: Path) -> None:
    frames = plain(BLUE, 3, size=(64, 64))
    frames[:, :32] = RED  # the upper half
    data = bytearray(write_video(tmp_path / "turned.mp4", sound=None, frames=frames).read_bytes())
    # The matrix of ISO 14496-12, 8.3.2: x' = -y, y' = x, which turns clockwise where y points down.
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    start = data.index(b"tkhd") + 44
    data[start : start + len(matrix)] = matrix
    pixels = cut_frame(bytes(data), seconds=0.1, side=64, limits=LIMITS)
    assert is_colored(pixels[:, 40:], RED) and is_colored(pixels[:, :24], BLUE)


def test_a_film_shorter_than_its_sound_shows_its_last_frame(tmp_path: Path) -> None:
    frames = np.concatenate([plain(RED, 2), plain(BLUE, 1)])
    path = write_video(tmp_path / "short.mkv", sound=tone(440, 3.0), frames=frames)
    assert is_colored(frame_of(decode_with(DECODER, path)), BLUE)


def test_png_frames_keep_every_pixel_of_what_was_decoded(film: Path) -> None:
    decoder = ClipDecoder(RATE, 32, ClipSettings(frame_format="png"))
    row = decode_with(decoder, film)
    expected = cut_frame(film.read_bytes(), seconds=1.5, side=32, limits=LIMITS)
    np.testing.assert_array_equal(frame_of(row), expected)


def test_a_sound_with_a_picture_is_a_clip_and_without_one_too(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode_wav(tone(440, 1.0), 44_100))
    Image.fromarray(plain(BLUE, 1)[0]).save(tmp_path / "a.png")
    both = DECODER.decode(request(audio=str(tmp_path / "a.wav"), image=str(tmp_path / "a.png")))
    alone = DECODER.decode(request(audio=str(tmp_path / "a.wav")))
    assert both["has_frame"] and is_colored(frame_of(both), BLUE)
    assert (alone["status"], alone["has_frame"], alone["frame"]) == ("ok", False, b"")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are no clips, each in its own way."""
    folder = tmp_path_factory.mktemp("bad")
    good = write_video(folder / "good.mp4", sound=tone(440, 1.0), frames=plain(RED, 10)).read_bytes()
    (folder / "cut.mp4").write_bytes(good[: len(good) // 2])
    (folder / "text.mp4").write_bytes(b"<html>this video is not available</html>" * 50)
    (folder / "empty.mp4").write_bytes(b"")
    write_video(folder / "soundless.webm", sound=None, frames=plain(RED, 10))
    write_video(folder / "silent.mkv", sound=np.zeros(44_100, np.float32), frames=plain(RED, 10))
    write_video(folder / "pictureless.mkv", sound=tone(440, 1.0), frames=None)
    quiet_start = np.concatenate([np.zeros(88_200, np.float32), tone(440, 1.0)])
    write_video(folder / "late.mkv", sound=quiet_start, frames=plain(RED, 30))
    return folder


@pytest.mark.parametrize(
    ("values", "kind", "says"),
    [
        ({"video": "cut.mp4"}, "InvalidAudio", "download is complete"),
        ({"video": "text.mp4"}, "InvalidAudio", "no video or sound"),
        ({"video": "empty.mp4"}, "InvalidAudio", "0 bytes"),
        ({"video": "soundless.webm"}, "InvalidAudio", "no audio track"),
        ({"video": "silent.mkv"}, "InvalidAudio", "silent"),
        ({"video": "late.mkv", "end_seconds": 1.5}, "InvalidAudio", "silent from 0 s to 1.5 s"),
        ({"video": "pictureless.mkv"}, "InvalidImage", "no picture track"),
        ({"video": "good.mp4", "start_seconds": 5.0}, "InvalidAudio", "the sound ends at 1"),
        ({"video": "good.mp4", "start_seconds": 0.5, "end_seconds": 0.4}, "InvalidSettings", "before its end"),
        ({"video": "good.mp4", "audio": "good.mp4"}, "InvalidSettings", "exactly one of video and audio"),
        ({"video": "good.mp4", "text": "", "labels": ""}, "InvalidSettings", "neither label nor text"),
        ({"video": "none.mp4"}, "SourceNotFound", "does not exist"),
    ],
)
def test_a_bad_clip_is_an_error_row_with_its_reason(bad: Path, values: dict[str, object], kind: str, says: str) -> None:
    named = {name: str(bad / str(value)) if name in ("video", "audio") else value for name, value in values.items()}
    row = DECODER.decode(request(**named))
    assert (row["status"], row["error_kind"], row["sound"], row["frame"]) == ("error", kind, b"", b"")
    assert says in str(row["error"])


@pytest.mark.parametrize(
    ("limits", "kind", "says"),
    [
        (ClipLimits(max_frame_pixels=3000), "InvalidImage", "64 x 48 pixels; at most 3000"),
        (ClipLimits(max_file_seconds=0.5), "InvalidAudio", "at most 0.5 s"),
        (ClipLimits(min_clip_seconds=1.5), "InvalidAudio", "At least|at least"),
    ],
)
def test_limits_are_kept(bad: Path, limits: ClipLimits, kind: str, says: str) -> None:
    row = decode_with(ClipDecoder(RATE, 32, limits=limits), bad / "good.mp4")
    assert row["error_kind"] == kind and any(part in str(row["error"]) for part in says.split("|"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(2 << 20)
    row = decode_with(ClipDecoder(RATE, 32, limits=ClipLimits(max_file_mib=1)), tmp_path / "large.mp4")
    assert row["error_kind"] == "SourceNotFound" and "at most 1048576" in str(row["error"])


def test_a_whole_recording_in_the_place_of_a_clip_is_noticed(film: Path) -> None:
    assert decode_with(DECODER, film, file_seconds=2.0)["status"] == "ok"
    row = decode_with(DECODER, film, file_seconds=0.5)
    assert row["error_kind"] == "InvalidAudio" and "--files recordings" in str(row["error"])


def test_damage_inside_the_sound_and_the_pictures_is_an_invalid_edit(film: Path) -> None:
    data = bytearray(film.read_bytes())
    rng = np.random.default_rng(0)
    for place in rng.integers(200, len(data) - 200, 400):
        data[place] ^= 0xFF
    with pytest.raises((InvalidAudio, InvalidImage)):
        cut_sound(bytes(data), sample_rate=RATE, span=Span(0, 3), limits=LIMITS)
    with pytest.raises((InvalidAudio, InvalidImage)):
        cut_frame(bytes(data), seconds=1.5, side=32, limits=LIMITS)


def test_the_bytes_of_each_file_that_is_read_are_told(tmp_path: Path) -> None:
    heard: list[int] = []
    sound, picture = tmp_path / "tone.wav", tmp_path / "red.png"
    sound.write_bytes(encode_wav(tone(440, 1.0), 44_100))
    Image.fromarray(plain(RED, 1)[0]).save(picture)
    decoder = ClipDecoder(RATE, 32, on_read=heard.append)
    assert decoder.decode(request(audio=str(sound), image=str(picture)))["status"] == "ok"
    assert heard == [sound.stat().st_size, picture.stat().st_size]
