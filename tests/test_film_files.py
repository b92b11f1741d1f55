"""Films as files: decoded again, their frames, size, colours and sound; and never a half of one."""

from __future__ import annotations

import io
import resource
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from film_songs import CALM, SHORT, film, swelling
from tiny_world import RESOLUTION

from soundguide.audio.decode import decode_audio, encode_wav
from soundguide.errors import InvalidAudio, InvalidConfig, OutputConflict
from soundguide.film.encode import FilmWriter, enlargement, require_format
from soundguide.film.make import Unwatched
from soundguide.film.render import Frames, batch_size
from soundguide.manipulator import Manipulator
from soundguide.records import PreparedEdit, Progress
from soundguide.world import to_bytes

SONG_RATE = 16_000


def pictures_of(path: Path) -> tuple[np.ndarray, list[float]]:
    """Return the frames ``[N, H, W, 3]`` and their times in seconds."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
    assert all(frame.time is not None for frame in frames)
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), [float(frame.time) for frame in frames]


def sound_of(path: Path) -> tuple[np.ndarray, int]:
    return decode_audio(path.read_bytes(), sample_rate=48_000), 48_000


def click_song(seconds: float, at: float) -> bytes:
    samples = np.random.default_rng(0).uniform(-0.003, 0.003, round(seconds * SONG_RATE)).astype(np.float32)
    first = round(at * SONG_RATE)
    samples[first : first + 400] = 0.9 * np.sign(np.sin(np.arange(400)))
    return encode_wav(samples, SONG_RATE)


def write(path: Path, pictures: np.ndarray, song: bytes, *, factor: int = 4, fps: int = 24) -> None:
    height, width = pictures.shape[1:3]
    with FilmWriter(
        path, height=height, width=width, factor=factor, fps=fps, song=io.BytesIO(song), comment="made by a test"
    ) as writer:
        for part in np.array_split(pictures, 5):
            writer.write(part)


@pytest.mark.parametrize("suffix", ["mp4", "webm", "mkv"])
def test_picture_and_sound_of_a_film_come_at_their_time(suffix: str, tmp_path: Path) -> None:
    pictures = np.zeros((72, 16, 24, 3), np.uint8)
    pictures[48:] = 255  # at 2 s
    path = tmp_path / f"a.{suffix}"
    write(path, pictures, click_song(3, at=2))
    frames, times = pictures_of(path)
    assert frames.shape == (72, 64, 96, 3)
    np.testing.assert_allclose(times, np.arange(72) / 24, atol=2e-3)
    assert times[int(np.argmax(frames.mean((1, 2, 3)) > 128))] == pytest.approx(2.0, abs=2e-3)
    sound, rate = sound_of(path)
    assert len(sound) / rate == pytest.approx(3, abs=0.06)
    assert np.argmax(np.abs(sound) > 0.4) / rate == pytest.approx(2.0, abs=1 / 24)


def test_colours_survive(tmp_path: Path) -> None:
    colours = np.array([(200, 40, 30), (30, 160, 60), (40, 60, 200), (128, 128, 128)], np.uint8)
    pictures = np.repeat(colours, 6, axis=0)[:, None, None].repeat(16, 1).repeat(16, 2)
    write(tmp_path / "a.mp4", pictures, click_song(1, at=0.5))
    with av.open(str(tmp_path / "a.mp4")) as file:
        codec = file.streams.video[0].codec_context
        assert codec.colorspace == 1  # BT.709, said so that players need not guess
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert "made by a test" in file.metadata["comment"]
    middle = np.stack(frames)[2::6, 32, 32].astype(int)
    assert np.abs(middle - colours).max() <= 8


def test_a_small_picture_is_enlarged_without_steps_or_rings(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8)).resize((16, 16), 2))
    write(tmp_path / "a.mp4", np.repeat(smooth[None], 10, 0), click_song(1, at=0.5))
    enlarged = np.asarray(Image.fromarray(smooth).resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(pictures_of(tmp_path / "a.mp4")[0][5] - enlarged).mean() < 6


@pytest.mark.parametrize(
    ("height", "width", "size", "factor"),
    [(64, 64, 256, 4), (64, 64, 250, 4), (1024, 1024, 256, 1), (63, 64, 256, 6), (63, 64, 63, 2), (384, 512, 256, 1)],
)
def test_pictures_grow_by_a_whole_number_to_even_sides(height: int, width: int, size: int, factor: int) -> None:
    assert enlargement(height, width, size=size) == factor


def test_stereo_stays_stereo(tmp_path: Path) -> None:
    import soundfile

    left = 0.3 * np.sin(2 * np.pi * 440 * np.arange(SONG_RATE) / SONG_RATE)
    data = io.BytesIO()
    soundfile.write(data, np.stack([left, 0 * left], 1), SONG_RATE, format="FLAC")
    write(tmp_path / "a.mp4", np.zeros((24, 16, 16, 3), np.uint8), data.getvalue())
    with av.open(str(tmp_path / "a.mp4")) as file:
        sound = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], 1)
    assert np.abs(sound[0]).mean() > 0.1 and np.abs(sound[1]).mean() < 0.01


class Counted(io.BytesIO):
    """A song that knows how far it has been read."""

    furthest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.furthest = max(self.furthest, self.tell())
        return data


def test_the_sound_is_read_as_the_pictures_go_on(tmp_path: Path) -> None:
    song = Counted(encode_wav(np.random.default_rng(0).uniform(-0.1, 0.1, 120 * SONG_RATE), SONG_RATE))
    total = len(song.getvalue())
    with FilmWriter(tmp_path / "a.mp4", height=16, width=16, factor=1, fps=4, song=song) as writer:
        shares = []
        for _ in range(12):
            writer.write(np.zeros((40, 16, 16, 3), np.uint8))  # 10 s
            shares.append(song.furthest / total)
    assert shares[0] < 0.3 and shares[5] < 0.7
    assert song.furthest == total


def test_a_film_has_every_frame_of_its_song_and_its_sound(single: Manipulator, tmp_path: Path) -> None:
    song = swelling(3.3)
    made = film(single, tmp_path / "a.mp4", song)
    frames, _ = pictures_of(tmp_path / "a.mp4")
    assert made.num_frames == len(frames) == 27  # 26.4 of 8 a second
    assert frames.shape[1:] == (made.height, made.width, 3) == (32, 32, 3)
    original = decode_audio(song, sample_rate=48_000)
    sound, rate = sound_of(tmp_path / "a.mp4")
    # the delay at which film and song agree best
    spectrum = np.fft.rfft(sound[: 3 * rate], 8 * rate) * np.conj(np.fft.rfft(original[: 3 * rate], 8 * rate))
    delay = int(np.fft.irfft(spectrum).argmax())
    assert min(delay, 8 * rate - delay) / rate < 0.005


def test_the_first_frame_is_the_source(single: Manipulator, tmp_path: Path) -> None:
    film(single, tmp_path / "a.mkv", swelling(2.0), CALM.model_copy(update={"size": RESOLUTION}))
    source = to_bytes(single.world.look(single.world.code(7, None, 1.0))[0])
    first = pictures_of(tmp_path / "a.mkv")[0][0]
    assert np.abs(first.astype(int) - source).mean() < 12  # H.264 at 16 px, with half the colours


class Collector(Unwatched):
    """Keeps all frames."""

    def __init__(self) -> None:
        self.frames: list[Frames] = []
        self.starts: list[int] = []

    def drawn(self, first: int, frames: Frames) -> None:
        self.starts.append(first)
        self.frames.append(frames)


def test_frames_come_in_batches_and_in_order(single: Manipulator, tmp_path: Path) -> None:
    collector = Collector()
    made = film(single, tmp_path / "a.mp4", swelling(6.0), watcher=collector)
    sizes = [len(part) for part in collector.frames]
    assert max(sizes) == batch_size(single.world) and sum(sizes) == made.num_frames
    assert collector.starts == [sum(sizes[:i]) for i in range(len(sizes))]


class Broken(Unwatched):
    """Fails while frames are drawn."""

    def drawn(self, first: int, frames: Frames) -> None:
        raise RuntimeError("the lights went out")


def test_there_is_never_half_a_film(single: Manipulator, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="lights"):
        film(single, tmp_path / "a.mp4", swelling(3.0), watcher=Broken())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4.film"]
    film(single, tmp_path / "a.mp4", swelling(3.0))
    whole = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(RuntimeError, match="lights"):
        film(single, tmp_path / "a.mp4", swelling(3.0), watcher=Broken())
    assert (tmp_path / "a.mp4").read_bytes() == whole


def test_a_film_for_which_there_is_no_room_says_so_and_goes_on(single: Manipulator, tmp_path: Path) -> None:
    song, path, own = swelling(6.0), tmp_path / "a.mp4", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, own[1]))
    try:
        with pytest.raises(OutputConflict, match="a.mp4.* cannot be written: File too large"):
            film(single, path, song)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)
    assert not path.exists() and len(list((tmp_path / "a.mp4.film").glob("key-*"))) == 6
    steps: list[Progress] = []

    class Searched(Unwatched):
        def searching(self, progress: Progress) -> None:
            steps.append(progress)

    film(single, path, song, watcher=Searched())
    assert path.exists() and not steps


def test_a_song_that_is_none_is_refused_before_anything_is_written(single: Manipulator, tmp_path: Path) -> None:
    with pytest.raises(InvalidAudio):
        film(single, tmp_path / "a.mp4", b"no sound at all" * 100)
    assert not (tmp_path / "a.mp4").exists()


def test_a_format_that_cannot_be_written_is_refused() -> None:
    assert require_format("A.MP4") == ".mp4"
    with pytest.raises(InvalidConfig, match="'a.gif'"):
        require_format("a.gif")


def test_a_film_that_reacts_and_one_that_means_nothing_differ(single: Manipulator, tmp_path: Path) -> None:
    pytest.importorskip("librosa", reason="needs librosa: pip install 'soundguide[music]'")
    song, found = swelling(4.0), {}
    for name, changes in {"calm": {}, "reacts": {"react": 1.0}, "walks": {"react": 1.0, "semantic": 0.0}}.items():
        collector = Collector()
        film(single, tmp_path / f"{name}.mp4", song, CALM.model_copy(update=changes), watcher=collector)
        found[name] = np.concatenate(collector.frames).astype(int)
    assert len({len(frames) for frames in found.values()}) == 1
    for one, other in (("calm", "reacts"), ("reacts", "walks")):
        assert np.abs(found[one] - found[other]).max() > 3


def test_reacting_without_librosa_says_what_to_install(
    single: Manipulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "librosa", None)
    with pytest.raises(InvalidConfig, match=r"soundguide\[music\].*--react 0"):
        film(single, tmp_path / "a.mp4", swelling(2.0), CALM.model_copy(update={"react": 1.0}))


def test_the_page_shows_a_frame_of_every_second() -> None:
    from soundguide.film.strip import Strip

    strip = Strip(fps=4)
    frames = np.zeros((40, 8, 8, 3), np.uint8)
    frames[::4, :, :] = (np.arange(10) * 25)[:, None, None, None]  # every second another grey
    for first in range(0, 40, 7):
        strip.add(first, frames[first : first + 7])
    page = strip.page(np.linspace(0, 1, 40))
    shown = [int(page[50, 3 + 99 * second + 48, 0]) for second in range(10)]
    assert shown == [25 * second for second in range(10)]


def test_the_page_of_a_long_film_stays_small() -> None:
    from soundguide.film.strip import _MOST, Strip

    strip = Strip(fps=1)
    for first in range(0, 5 * _MOST, 50):
        strip.add(first, np.zeros((50, 4, 4, 3), np.uint8))
    assert _MOST // 2 <= len(strip._frames) <= _MOST
    assert strip.page(None).nbytes < 20e6


def test_the_frame_rate_is_exact(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", np.zeros((50, 16, 16, 3), np.uint8), click_song(2, at=1), fps=25)
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert file.streams.video[0].average_rate == Fraction(25)


def test_settings_of_key_codes_travel_in_the_file(single: Manipulator, tmp_path: Path) -> None:
    import json

    film(single, tmp_path / "a.mp4", swelling(2.0), edit=PreparedEdit("film", SHORT, seed=9))
    with av.open(str(tmp_path / "a.mp4")) as file:
        facts = json.loads(file.metadata["comment"])["soundguide"]
    assert facts["source"] == "seed 9" and facts["settings"]["num_steps"] == SHORT.num_steps
    assert facts["film"]["segment_seconds"] == 1 and facts["models"] == single.model_digests
