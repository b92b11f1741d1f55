"""The stages of a music run in a straight line without Ray: heard, prepared, edited, finished, counted and shown."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tiny_world import SAMPLE_RATE

from soundguide import __version__
from soundguide.audio.decode import AudioLimits, encode_wav
from soundguide.config import EditSettings
from soundguide.errors import Quarantined
from soundguide.manipulator import Manipulator
from soundguide.model_facts import ModelFacts, read_model_facts
from soundguide.run_folder import RunFolder, describe_run, identify
from soundguide.songs.edits import MUSIC_SCHEMA, SongEditFinisher, SongEditPreparer
from soundguide.songs.embed import SongEmbedder, songs_as_given
from soundguide.songs.folders import list_pictures, list_seeds, list_songs
from soundguide.songs.music_run import MusicSettings, SongLimits, music_folder, song_files
from soundguide.songs.overview import Overview, reconcile_rows
from soundguide.songs.pooling import Pooling
from soundguide.songs.rows import SongRows
from soundguide.songs.sheet import write_music_sheet
from soundguide.stages import EditFinisher, EditPreparer
from soundguide.storage import Storage
from soundguide.tables import prepared_table

SHORT = EditSettings(num_steps=2, num_views=1, inversion_steps=2)


def noise(seed: int, seconds: float) -> bytes:
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * SAMPLE_RATE))
    samples[SAMPLE_RATE : 2 * SAMPLE_RATE] = 0  # the second second is a pause
    return encode_wav(samples, SAMPLE_RATE)


class Line:
    """One run in this process, with segments of 1 s."""

    def __init__(
        self, single: Manipulator, output: Path, songs: Path, pictures: pa.Table, *, per_segment: bool, pooling: Pooling
    ) -> None:
        self.facts: ModelFacts = read_model_facts(single.config)
        self.folder: RunFolder = music_folder(str(output), Storage(), "all")
        self.files = song_files(self.folder, self.facts, 1.0)
        self.preparer = SongEditPreparer(EditPreparer(self.facts, SHORT), self.files, pooling)
        groups = list_songs(str(songs), Storage())
        embedder = SongEmbedder(self.files, AudioLimits(), None, single.config, Storage())
        heard = asyncio.run(embedder(pa.concat_tables(songs_as_given(groups.select(["audio"]).rename_columns(["id"])))))
        self.rows = SongRows.of(groups, pictures, heard, per_segment=per_segment)
        prepared = [self.preparer.prepare(row) for row in self.rows.table(np.arange(self.rows.num_rows)).to_pylist()]
        edited = asyncio.run(single(prepared_table(prepared)))
        finished = SongEditFinisher(EditFinisher(str(output), self.facts.digests)).finish_table(edited)
        (output / "results").mkdir()
        pq.write_table(finished, output / "results" / "0.parquet")
        self.results = {row["id"]: row for row in finished.to_pylist()}
        music = MusicSettings(meeting="all", segment_seconds=1.0, per_segment=per_segment, pooling=pooling)
        identity = identify(SHORT, SongLimits(), single.config, self.facts) | {"music": music.model_dump(mode="json")}
        config = {"manipulator": single.config.model_dump(mode="json"), "storage": {}, "limits": {}}
        self.record = describe_run(identity, config, self.facts.digests) | {"status": "complete"}
        self.folder.write_record(self.record)

    def show(self) -> tuple[Overview, str]:
        """Count the results, and return the sheet's text."""
        overview = reconcile_rows(self.folder, self.rows)
        summary = {**self.record, **overview.counts, "rows_per_minute": 60.0, "version": __version__}
        return overview, Path(write_music_sheet(self.folder, self.rows, self.files, overview, summary)).read_text()


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    (folder / "long.wav").write_bytes(noise(1, 3.2))
    (folder / "short.wav").write_bytes(noise(2, 0.6))
    (folder / "broken.mp3").write_bytes(b"no song at all")
    return folder


def test_stills_follow_whole_songs_and_broken_things_cost_what_is_their_own(
    single: Manipulator, songs: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)).save(images / "good.png")
    (images / "cut.png").write_bytes((images / "good.png").read_bytes()[:200])
    pictures = list_pictures(str(images), Storage())
    line = Line(single, tmp_path / "out", songs, pictures, per_segment=False, pooling="median")
    assert {id: row["error_kind"] for id, row in line.results.items()} == {
        "broken--cut": "InvalidAudio",
        "broken--good": "InvalidAudio",
        "long--cut": "InvalidImage",
        "long--good": "",
        "short--cut": "InvalidImage",
        "short--good": "",
    }
    row = line.results["long--good"]
    assert (row["segment"], row["start_seconds"], row["end_seconds"], row["pooling"]) == (None, 0.0, 3.2, "median")
    told = json.loads(Image.open(tmp_path / "out" / row["edited_image"]).text["soundguide"])
    assert told["song"]["pooling"] == "median" and told["sound_sha256"] == row["sound_sha256"] != ""
    overview, page = line.show()
    assert overview.counts == {"rows": 6, "ok": 2, "error": 4, "quarantined": 0}
    assert page.count("<audio ") == 2 and page.count('class="still"') == 2 and page.count('class="frame failure"') == 4
    assert "good.png" in page and "cut.png" in page and "://" not in page


def test_a_segment_guides_its_own_still_and_a_silent_one_is_an_error(
    single: Manipulator, songs: Path, tmp_path: Path
) -> None:
    line = Line(single, tmp_path / "out", songs, list_seeds([3, 5]), per_segment=True, pooling="mean")
    found = {id: (row["error_kind"], row["start_seconds"]) for id, row in line.results.items() if "--3--" in id}
    assert found == {
        "broken--3--0000": ("InvalidAudio", None),
        "long--3--0000": ("", 0.0),
        "long--3--0001": ("InvalidAudio", None),
        "long--3--0002": ("", 2.0),
        "short--3--0000": ("", 0.0),
    }
    assert "segment from 1 to 2 s is silent" in line.results["long--5--0001"]["error"]
    first, last = (
        np.asarray(Image.open(tmp_path / "out" / line.results[f"long--3--000{n}"]["edited_image"])) for n in (0, 2)
    )
    assert (first != last).any()
    _, page = line.show()
    assert page.count('scope="row"') == 5 and page.count("<audio ") == 4


def test_a_row_that_killed_its_process_is_refused_in_the_same_columns(
    single: Manipulator, songs: Path, tmp_path: Path
) -> None:
    line = Line(single, tmp_path / "out", songs, list_seeds([3]), per_segment=False, pooling="mean")
    refused = line.preparer.refuse(line.rows.table(np.array([1])), Quarantined("it died"))
    finisher = SongEditFinisher(EditFinisher(str(tmp_path / "out"), line.facts.digests))
    [row] = finisher.finish_table(asyncio.run(single(refused))).to_pylist()
    assert (row["id"], row["status"], row["error"]) == ("long--3", "quarantined", "it died")
    assert row.keys() == set(MUSIC_SCHEMA.names)


def test_an_edit_by_an_embedding_is_the_edit_by_the_sound_that_has_it(single: Manipulator) -> None:
    from dataclasses import replace

    from tiny_edits import do, with_sound

    sound = noise(3, 0.4)
    by_sound = with_sound("x", sound, SHORT)
    heard = single.world.listener.hear(sound)
    embedding = heard.embedding.numpy()
    by_embedding = replace(by_sound, sound=b"", embedding=embedding, level_db=heard.level_db)
    first, second = do(single, by_sound), do(single, by_embedding)
    np.testing.assert_array_equal(first.image, second.image)
    assert (first.labels, first.level_db, first.similarity_after) == (
        second.labels,
        second.level_db,
        second.similarity_after,
    )


def test_limits_of_songs_let_hours_pass() -> None:
    hour_of_wav = 3600 * 44_100 * 2 * 2
    limits = SongLimits().audio
    assert limits.max_bytes > 8 * hour_of_wav and limits.max_seconds >= 12 * 3600
