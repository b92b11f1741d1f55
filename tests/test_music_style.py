"""The music job on a private Ray: songs meet pictures, each is heard once, and what is broken costs what is its own."""

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from bulk_runs import result_files, results, write_manifest
from killed_runs import kill_in_the_middle
from PIL import Image

import music_style
from soundguide.audio.decode import encode_flac, encode_wav
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import SourceNotFound
from soundguide.listen import Listener
from soundguide.manipulator import Manipulator
from soundguide.records import PreparedEdit
from soundguide.replay import replay
from soundguide.run_folder import RunFolder
from soundguide.run_status import read_status
from soundguide.songs.embed import SongFiles
from soundguide.songs.pooling import pool_segments

RATE_HZ = 16_000
SEEDS = (28, 138, 12)
SONGS = {"night": 3, "B side": 1}  # segments of each


def melody(seed: int, seconds: float) -> np.ndarray:
    """A new note every second over some noise, so that no part is like another."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    notes = 220 * 2 ** (rng.integers(0, 24, int(seconds) + 1) / 12)
    return 0.3 * np.sin(2 * np.pi * notes[time.astype(int)] * time) + 0.02 * rng.standard_normal(time.size)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a song of 25 s, one of 12 s in a folder of its own, and one that is none."""
    folder = tmp_path_factory.mktemp("songs")
    (folder / "night.wav").write_bytes(encode_wav(melody(1, 25), RATE_HZ))
    (folder / "more").mkdir()
    (folder / "more" / "B side.flac").write_bytes(encode_flac(melody(2, 12), RATE_HZ))
    (folder / "broken.mp3").write_bytes(b"no song at all")
    (folder / "cover.txt").write_text("not a song either")
    return folder


def flags(output: Path, **given: object) -> list[str]:
    """The command line of a small run: few steps, one actor."""
    small = {"edit.num_steps": 2, "edit.num_views": 1, "pool.num_actors": 1, "pool.stall_seconds": 120}
    chosen = {"output": output, **small, **given}
    return [part for name, value in chosen.items() for part in (f"--{name}", str(value))]


def tiny(models: ManipulatorConfig) -> dict[str, object]:
    return {f"manipulator.{role}": getattr(models, role) for role in ("generator", "image_text", "audio")}


def embeddings_of(output: Path) -> dict[str, int]:
    """The files of embeddings, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "_run" / "songs" / "embeddings").iterdir()}


@pytest.fixture(scope="module")
def done(local_ray: None, songs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A whole run of the packaged miniature, three songs over three seeds: its output and exit code under --strict."""
    output = tmp_path_factory.mktemp("music") / "run"
    arguments = flags(output, songs=songs, seeds=",".join(map(str, SEEDS)))
    return output, music_style.main([*arguments, "--strict"])


def test_every_song_meets_every_picture(done: tuple[Path, int]) -> None:
    rows = results(done[0])
    names = {"night": "night.wav", "more/B side": "more/B side.flac", "broken": "broken.mp3"}
    assert rows.keys() == {f"{name}--{seed}" for name in names for seed in SEEDS}
    assert done[1] == 3
    for id, row in rows.items():
        assert str(row["audio"]).endswith(names[id.split("--")[0]]) and row["seed"] == int(id.split("--")[1])
        assert (row["status"] == "ok") == ("broken" not in id)
        assert (row["segment"], row["pooling"]) == (None, "mean")
    assert [rows[f"{name}--28"]["end_seconds"] for name in ("night", "more/B side")] == [25.0, 12.0]


def test_a_broken_song_costs_its_rows_and_each_says_why(done: tuple[Path, int]) -> None:
    rows = results(done[0])
    for seed in SEEDS:
        row = rows[f"broken--{seed}"]
        assert (row["error_kind"], row["edited_image"]) == ("InvalidAudio", "")
        assert re.search(r"the song \S+/broken.mp3 cannot be heard: .*no sound file", str(row["error"]))


def test_a_segment_is_embedded_as_the_listener_hears_it_alone(done: tuple[Path, int], songs: Path) -> None:
    rows = results(done[0])
    world = Manipulator(ManipulatorConfig(num_slots=1)).world
    listener = Listener(world.audio, world.image_text, ("rain",), device=world.device)
    files = SongFiles(str(done[0] / "_run" / "songs" / "embeddings"), world.digests["audio"], 10.0)
    found = files.read(files.name(str(rows["night--28"]["sound_sha256"])))
    whole = melody(1, 25)
    for number, (start, end) in enumerate([(0, 10), (10, 20), (20, 25)]):
        alone = listener.hear(encode_wav(whole[start * RATE_HZ : end * RATE_HZ], RATE_HZ))
        assert found.span(number) == (start, end)
        np.testing.assert_allclose(found.embeddings[number], alone.embedding.numpy(), atol=1e-4)
        assert found.level_db(number) == pytest.approx(alone.level_db, abs=1e-3)


def test_a_still_is_the_edit_by_the_pooled_embedding(done: tuple[Path, int]) -> None:
    row = results(done[0])["night--138"]
    manipulator = Manipulator(ManipulatorConfig(num_slots=1, num_threads=int(str(row["threads"]))))
    files = SongFiles(str(done[0] / "_run" / "songs" / "embeddings"), manipulator.model_digests["audio"], 10.0)
    pooled = pool_segments(files.read(files.name(str(row["sound_sha256"]))), "mean")
    settings = EditSettings.model_validate_json(str(row["settings"]))
    prepared = PreparedEdit("x", settings, seed=138, embedding=pooled.embedding, level_db=pooled.level_db)
    edit = asyncio.run(manipulator.edit(prepared))
    np.testing.assert_array_equal(np.asarray(Image.open(done[0] / str(row["edited_image"]))), edit.image)
    assert row["level_db"] == pytest.approx(pooled.level_db) and row["label_names"]


def test_a_second_run_computes_nothing_and_hears_nothing(
    done: tuple[Path, int], songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, heard = result_files(done[0]), embeddings_of(done[0])
    assert len(heard) == len(SONGS)  # one file for each song that can be heard, whatever it meets
    monkeypatch.setattr(music_style, "stream_rows", lambda *_, **__: pytest.fail("something was computed again"))
    assert music_style.main(flags(done[0], songs=songs, seeds=",".join(map(str, SEEDS)))) == 0
    assert (result_files(done[0]), embeddings_of(done[0])) == (before, heard)


def test_the_run_is_described_told_and_can_be_looked_at(done: tuple[Path, int]) -> None:
    record = json.loads((done[0] / "run.json").read_text())
    counts = {name: record[name] for name in ("status", "rows", "ok", "error", "songs", "songs_not_heard", "segments")}
    wanted = {"rows": 9, "ok": 6, "error": 3, "songs": 3, "songs_not_heard": 1, "segments": 4}
    assert counts == {"status": "complete", **wanted}
    status = read_status(RunFolder(str(done[0])))
    assert (status.job, status.state, status.rows and status.rows.total) == ("music_style", "complete", 9)
    page = (done[0] / "index.html").read_text()
    assert page.count("<audio ") == len(SONGS) and page.count('class="still"') == 6
    heads = re.findall(r'<bdi class="name"[^>]*>(.*?)</bdi>', page)
    assert sorted(heads[:3]) == ["seed 12", "seed 138", "seed 28"]
    assert sorted(heads[3:]) == ["B side.flac", "broken.mp3", "night.wav"]
    assert not re.search(r"https?://", page)


def test_replay_makes_the_same_picture_and_notices_another_song(
    done: tuple[Path, int], songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = np.asarray(Image.open(done[0] / str(results(done[0])["night--12"]["edited_image"])))
    np.testing.assert_array_equal(replay(str(done[0]), "night--12").image, saved)
    song = (songs / "night.wav").read_bytes()
    (songs / "night.wav").write_bytes(encode_wav(melody(3, 25), RATE_HZ))
    try:
        with pytest.raises(SourceNotFound, match="night.wav is not the file of the run any more"):
            replay(str(done[0]), "night--12")
    finally:
        (songs / "night.wav").write_bytes(song)


def test_another_pooling_is_refused_with_the_difference(
    done: tuple[Path, int], songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(done[0], songs=songs, seeds=",".join(map(str, SEEDS)), pooling="medoid")
    assert music_style.main(arguments) == 2
    assert "music.pooling was 'mean', is 'medoid'" in capsys.readouterr().err


def test_what_was_made_of_a_song_that_left_stays(
    done: tuple[Path, int], songs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = result_files(done[0])
    monkeypatch.setattr(music_style, "stream_rows", lambda *_, **__: pytest.fail("something was computed again"))
    (songs / "night.wav").rename(songs / "night.away")
    try:
        assert music_style.main(flags(done[0], songs=songs, seeds=",".join(map(str, SEEDS)))) == 0
    finally:
        (songs / "night.away").rename(songs / "night.wav")
    assert f"1 of this run's songs left {songs}, such as {songs}/night.wav" in caplog.text
    assert result_files(done[0]) == before


def test_a_run_does_not_go_on_without_one_of_its_seeds_or_with_another_folder(
    done: tuple[Path, int], songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert music_style.main(flags(done[0], songs=songs, seeds="28,12")) == 2
    assert "this run has pictures of --seeds 138, which are not named" in capsys.readouterr().err
    (tmp_path / "other.wav").touch()
    assert music_style.main(flags(done[0], songs=tmp_path, seeds=",".join(map(str, SEEDS)))) == 2
    assert f"were read from another folder, such as {songs}" in capsys.readouterr().err


def test_pictures_that_join_are_edited_by_what_was_heard_before(
    local_ray: None, tiny_models: ManipulatorConfig, songs: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(images / "good.png")
    (images / "cut.png").write_bytes((images / "good.png").read_bytes()[:200])
    arguments = flags(tmp_path / "out", songs=songs, images=images, **tiny(tiny_models), **{"edit.inversion_steps": 2})
    assert music_style.main(arguments) == 0
    rows, heard = results(tmp_path / "out"), embeddings_of(tmp_path / "out")
    assert {id: row["error_kind"] for id, row in rows.items() if "broken" not in id} == {
        "night--good": "",
        "more/B side--good": "",
        "night--cut": "InvalidImage",
        "more/B side--cut": "InvalidImage",
    }
    Image.fromarray(pixels[::-1]).save(images / "cut.png")  # mended
    Image.fromarray(pixels[:, ::-1]).save(images / "good.jpg")  # the name is taken, although its file has left
    (images / "good.png").unlink()
    assert music_style.main([*arguments, "--retry-failed"]) == 0
    again = results(tmp_path / "out")
    assert {id for id, row in again.items() if row["status"] != "ok"} == {
        f"broken--{x}" for x in ("good", "cut", "good.jpg")
    }
    assert embeddings_of(tmp_path / "out") == heard
    kept = {id: row["seconds"] for id, row in rows.items() if row["status"] == "ok"}  # of no two edits the same
    assert kept.items() <= {id: row["seconds"] for id, row in again.items()}.items() and len(again) == 9


def test_a_still_for_each_segment(local_ray: None, tiny_models: ManipulatorConfig, tmp_path: Path) -> None:
    silent_in_the_middle = melody(5, 30)
    silent_in_the_middle[10 * RATE_HZ : 20 * RATE_HZ] = 0
    folder = tmp_path / "songs"
    folder.mkdir()
    (folder / "pause.wav").write_bytes(encode_wav(silent_in_the_middle, RATE_HZ))
    (folder / "broken.mp3").write_bytes(b"no song at all")
    arguments = flags(tmp_path / "out", songs=folder, seeds="1,2", **tiny(tiny_models))
    assert music_style.main([*arguments, "--per-segment"]) == 0
    rows = results(tmp_path / "out")
    parts = {id: (row["status"], row["segment"], row["start_seconds"]) for id, row in rows.items() if "--1--" in id}
    assert parts == {
        "broken--1--0000": ("error", 0, None),
        "pause--1--0000": ("ok", 0, 0.0),
        "pause--1--0001": ("error", 1, None),
        "pause--1--0002": ("ok", 2, 20.0),
    }
    assert len(rows) == 8
    assert "segment from 10 to 20 s is silent" in str(rows["pause--2--0001"]["error"])
    first, last = (
        np.asarray(Image.open(tmp_path / "out" / str(rows[id]["edited_image"])))
        for id in ("pause--1--0000", "pause--1--0002")
    )
    assert (first != last).any()
    saved = replay(str(tmp_path / "out"), "pause--1--0002").image
    np.testing.assert_array_equal(saved, last)


def test_pairs_of_a_manifest_hear_each_song_once(
    local_ray: None, tiny_models: ManipulatorConfig, songs: Path, tmp_path: Path
) -> None:
    rows = {
        "one": {"audio": "night.wav", "seed": "1", "note": "hello"},
        "two--3": {"audio": "night.wav", "seed": "2", "num_steps": "0"},
        "words": {"audio": "", "seed": "3", "text": "snow"},
        "none": {"audio": "missing.wav", "seed": "4"},
        "../up": {"audio": "night.wav", "seed": "5"},
    }
    manifest = write_manifest(songs / "pairs.csv", rows)
    output = tmp_path / "out"
    assert music_style.main(flags(output, pairs=manifest, **tiny(tiny_models))) == 0
    found = results(output)
    kinds = {"one": "", "two--3": "", "words": "", "none": "SourceNotFound", "../up": "InvalidEdit"}
    assert {id: row["error_kind"] for id, row in found.items()} == kinds
    assert found["two--3"]["steps"] == 0 and np.isnan(found["words"]["level_db"])
    assert len(embeddings_of(output)) == 1
    np.testing.assert_array_equal(
        replay(str(output), "words").image, np.asarray(Image.open(output / str(found["words"]["edited_image"])))
    )
    page = (output / "index.html").read_text()
    assert page.count("<audio ") == 1 and page.count(">hello</bdi>") == 1


@pytest.mark.chaos
def test_a_killed_run_goes_on_and_writes_no_id_twice(
    request: pytest.FixtureRequest, tiny_models: ManipulatorConfig, songs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    small = {"edit.num_steps": 150, "pool.rows_per_block": 2, **tiny(tiny_models)}
    arguments = flags(output, songs=songs, seeds=",".join(map(str, range(12))), **small)
    finished = kill_in_the_middle("music_style", arguments, output, log=tmp_path / "log")
    before = {name: data for name, data in result_files(output).items() if any(name.startswith(f) for f in finished)}
    heard = embeddings_of(output)
    request.getfixturevalue("local_ray")  # not before: two Rays at once are slow
    assert music_style.main(arguments) == 0
    assert len(results(output)) == 36 and embeddings_of(output) == heard
    assert before and before.items() <= result_files(output).items()
    assert 0 < json.loads((output / "run.json").read_text())["computed"] < 36


def test_results_say_what_guided_them_in_columns_of_their_own(done: tuple[Path, int]) -> None:
    names = pq.read_schema(next((done[0] / "results").iterdir())).names
    assert names[-5:] == ["segment", "start_seconds", "end_seconds", "pooling", "film"]
    row = results(done[0])["night--28"]
    told = json.loads(Image.open(done[0] / str(row["edited_image"])).text["soundguide"])
    assert told["song"] == {"segment": None, "start_seconds": 0.0, "end_seconds": 25.0, "pooling": "mean", "film": ""}
    assert told["sound_sha256"] == row["sound_sha256"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"songs": "{songs}/more/none", "seeds": "1"}, r"no songs in .*none: it is empty, or no folder.*\.wav.*\.mp3"),
        ({"songs": "{songs}", "images": "{songs}"}, r"no images in .*: of its 4 files none ends in \.png, \.jpg"),
        ({"songs": "{songs}/night.wav", "seeds": "1"}, r"no songs to read: .*night.wav is a file.*name the folder"),
        ({"songs": "{songs}", "seeds": "1", "edit.lambda_id": "0.3"}, "lambda_id is 0.3, but no identity encoder"),
        ({"songs": "{songs}", "seeds": "1,2,1"}, "seeds names 1 more than once"),
        ({"songs": "{songs}", "seeds": "1", "images": "x"}, "got songs and images and seeds"),
        ({"songs": "{songs}"}, "give songs with one of images and seeds, or pairs alone; got songs"),
        ({"songs": "{songs}", "seeds": "1", "pooling": "best"}, "pooling: .*'mean', 'trimmed', 'median' or 'medoid'"),
    ],
)
def test_what_cannot_be_begun_is_refused_with_the_reason(
    given: dict[str, str], says: str, songs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (songs / "pairs.csv").unlink(missing_ok=True)  # of another test
    arguments = flags(tmp_path / "out", **{name: value.format(songs=songs) for name, value in given.items()})
    assert music_style.main(arguments) == 2
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_an_embedding_in_place_of_a_sound_survives_its_row() -> None:
    edit = PreparedEdit("a", EditSettings(), seed=1, embedding=np.arange(4, dtype=np.float32), level_db=-20.0)
    again = PreparedEdit.from_row(edit.to_row())
    np.testing.assert_array_equal(again.embedding, edit.embedding)
    assert replace(again, embedding=None) == replace(edit, embedding=None)
