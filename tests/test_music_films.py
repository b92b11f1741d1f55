"""Films in the music job: one for each song and picture, on the seams of the stills."""

from __future__ import annotations

import asyncio
import io
import json
import re
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
from bulk_runs import result_files, results
from film_songs import SHORT, swelling
from PIL import Image

import music_style
from soundguide.audio.decode import AudioLimits
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidEdit
from soundguide.film.make import make_film
from soundguide.film.settings import FilmSettings
from soundguide.manipulator import Manipulator
from soundguide.model_facts import read_model_facts
from soundguide.records import PreparedEdit
from soundguide.replay import replay
from soundguide.songs.edits import SongEditPreparer
from soundguide.songs.embed import SongEmbedder, SongFiles, songs_as_given
from soundguide.songs.films import FilmFiles, FilmMaker
from soundguide.songs.folders import list_seeds, list_songs
from soundguide.songs.rows import SongRows
from soundguide.stages import EditPreparer
from soundguide.storage import Storage
from soundguide.tables import prepared_table

SEEDS = (28, 7)
LOOK = {"fps": 6, "size": 32, "react": 0.5}


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a song of 5 s and one that is none."""
    folder = tmp_path_factory.mktemp("songs")
    (folder / "swell.wav").write_bytes(swelling(5.0))
    (folder / "broken.mp3").write_bytes(b"no song at all")
    return folder


def flags(output: Path, songs: Path, models: ManipulatorConfig, **given: object) -> list[str]:
    """The command line of a small run of films: segments of 2 s, few steps, one actor."""
    chosen: dict[str, object] = {"output": output, "songs": songs, "seeds": ",".join(map(str, SEEDS))}
    chosen |= {f"manipulator.{role}": getattr(models, role) for role in ("generator", "image_text", "audio")}
    chosen |= {"edit.num_steps": 3, "edit.num_views": 1, "pool.num_actors": 1, "pool.stall_seconds": 120}
    chosen |= {"segment_seconds": 2, **{f"film.{name}": value for name, value in LOOK.items()}, **given}
    return ["--films", *[part for name, value in chosen.items() for part in (f"--{name}", str(value))]]


@pytest.fixture(scope="module")
def done(
    local_ray: None, songs: Path, tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("films") / "run"
    assert music_style.main(flags(output, songs, tiny_models)) == 0
    return output


def frames_of(film: Path) -> np.ndarray:
    with av.open(str(film)) as opened:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)])


def test_every_song_and_picture_has_a_film_with_sound(done: Path) -> None:
    rows = results(done)
    assert {id: (row["status"], row["film"]) for id, row in rows.items()} == {
        **{f"swell--{seed}": ("ok", f"films/swell--{seed}.mp4") for seed in SEEDS},
        **{f"broken--{seed}": ("error", "") for seed in SEEDS},
    }
    assert sorted(path.name for path in (done / "films").iterdir()) == sorted(f"swell--{seed}.mp4" for seed in SEEDS)
    for seed in SEEDS:
        with av.open(str(done / f"films/swell--{seed}.mp4")) as film:
            assert (film.streams.video[0].frames, film.streams.audio[0].codec_context.name) == (5 * LOOK["fps"], "aac")
            sound = np.concatenate([frame.to_ndarray().mean(0) for frame in film.decode(audio=0)])
            assert sound.std() > 0.01 and sound.size / film.streams.audio[0].rate == pytest.approx(5, abs=0.2)
    assert not list((done / "_run" / "films").rglob("*.safetensors"))  # finished ones need no key codes any more


def test_a_film_of_the_job_is_that_of_the_command(
    done: Path, songs: Path, tiny_models: ManipulatorConfig, tmp_path: Path
) -> None:
    """Heard by another path: there segment by segment, here whole songs by the run."""
    row = results(done)["swell--28"]
    manipulator = Manipulator(tiny_models.model_copy(update={"num_slots": 1, "num_threads": int(str(row["threads"]))}))
    settings = FilmSettings(**LOOK, segment_seconds=2)
    edit = PreparedEdit("x", SHORT.override({"inversion_steps": 300}), seed=28)
    with (songs / "swell.wav").open("rb") as song:
        made = make_film(manipulator, edit, song, tmp_path / "a.mp4", settings)
    ours, theirs = frames_of(made.path).astype(float), frames_of(done / "films/swell--28.mp4").astype(float)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 2
    assert np.abs(theirs[0] - theirs[-1]).mean() > 2  # and it moves


def test_the_still_of_a_film_is_one_of_its_frames(done: Path) -> None:
    row = results(done)["swell--28"]
    still = np.asarray(Image.open(done / str(row["edited_image"])).resize((32, 32), Image.Resampling.BICUBIC), float)
    frames = frames_of(done / "films/swell--28.mp4").astype(float)
    nearest = np.abs(frames - still).mean((1, 2, 3))
    assert nearest.min() < 0.5 * nearest.max() and np.isfinite(row["similarity_after"])
    told = json.loads(Image.open(done / str(row["edited_image"])).text["soundguide"])
    assert told["song"]["film"] == row["film"]


def test_a_second_run_makes_nothing_and_another_reaction_is_refused(
    done: Path, songs: Path, tiny_models: ManipulatorConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = result_files(done)
    assert music_style.main(flags(done, songs, tiny_models)) == 0
    assert result_files(done) == before
    assert music_style.main(flags(done, songs, tiny_models, **{"film.react": 1})) == 2
    assert "music.film.react was 0.5, is 1" in capsys.readouterr().err


def test_the_sheet_plays_films_from_beside_it(done: Path) -> None:
    page = (done / "index.html").read_text()
    played = re.findall(r'<video [^>]*src="([^"]+)"', page)
    assert sorted(played) == sorted(f"films/swell--{seed}.mp4" for seed in SEEDS)
    assert all((done / name).is_file() for name in played) and 'class="still"' not in page


def test_a_film_is_no_picture_to_replay(done: Path) -> None:
    with pytest.raises(InvalidEdit, match="'swell--28' is a film"):
        replay(str(done), "swell--28")


def test_films_and_segments_are_refused_together(
    songs: Path, tiny_models: ManipulatorConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert music_style.main([*flags(tmp_path / "out", songs, tiny_models), "--per-segment"]) == 2
    assert "give films or per_segment, not both" in capsys.readouterr().err


def test_what_films_are_like_is_refused_where_there_are_none(
    songs: Path, tiny_models: ManipulatorConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stills = [flag for flag in flags(tmp_path / "out", songs, tiny_models) if flag != "--films"]
    assert music_style.main(stills) == 2
    assert "add --films" in capsys.readouterr().err


class Filming:
    """Two rows of films in this process: a song over a seed, and a text without one."""

    def __init__(self, models: ManipulatorConfig, folder: Path) -> None:
        self.song = folder / "songs" / "swell.wav"
        self.song.parent.mkdir()
        self.song.write_bytes(swelling(5.0))
        facts = read_model_facts(models)
        songs = SongFiles(str(folder / "heard"), dict(facts.digests)["audio"], 2.0)
        self.output, settings = folder / "out", FilmSettings(**{**LOOK, "react": 0}, segment_seconds=2)
        self.maker = FilmMaker(FilmFiles(str(self.output), songs, settings, "webm"), models, Storage())
        groups = list_songs(str(self.song.parent), Storage())
        embedder = SongEmbedder(songs, AudioLimits(), None, models, Storage())
        heard = asyncio.run(embedder(pa.concat_tables(songs_as_given(pa.table({"id": groups["audio"]})))))
        rows = SongRows.of(groups, list_seeds((7,)), heard, per_segment=False)
        preparer = SongEditPreparer(EditPreparer(facts, SHORT), songs, "mean")
        self.row = rows.table(np.arange(1)).to_pylist()[0]
        self.prepare = preparer.prepare

    def film(self, *rows: dict[str, object]) -> list[dict[str, object]]:
        return asyncio.run(self.maker(prepared_table(map(self.prepare, rows)))).to_pylist()


def test_a_film_that_was_stopped_goes_on_from_its_key_codes(
    single: Manipulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filming = Filming(single.config, tmp_path)
    song = filming.song.read_bytes()
    row = filming.row
    filming.song.write_bytes(swelling(5.0, seed=1))  # when it comes to drawing, there is another
    (failed,) = filming.film(row)
    assert failed["error_kind"] == "SourceNotFound" and not list(filming.output.rglob("*.webm"))
    kept = list(filming.output.rglob("key-*.safetensors"))
    assert len(kept) == 3  # 2 + 2 + 1 s
    filming.song.write_bytes(song)
    monkeypatch.setattr(Manipulator, "follow", lambda *_, **__: pytest.fail("a key code was searched again"))
    (made,) = filming.film(row)
    assert made["error"] == "" and [path.name for path in filming.output.rglob("*.webm")] == ["swell--7.webm"]
    assert not list(filming.output.rglob("key-*.safetensors"))


def test_a_row_without_a_song_is_an_error_of_its_own(single: Manipulator, tmp_path: Path) -> None:
    filming = Filming(single.config, tmp_path)
    words = {**filming.row, "id": "words", "audio": "", "text": "snow", "embeddings": "", "sound_sha256": ""}
    made, failed = filming.film(filming.row, words)
    assert made["error"] == "" and failed["error_kind"] == "InvalidSettings"
    assert "a film needs a song" in str(failed["error"])
    assert io.BytesIO((filming.output / "films/swell--7.webm").read_bytes()).read(4) == b"\x1aE\xdf\xa3"
