"""The rows of a music run: a product that is worked out where it is asked for, and found again by its ids."""

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from soundguide.errors import InvalidConfig, OutputConflict
from soundguide.run_folder import RunFolder
from soundguide.songs.edits import MUSIC_SCHEMA
from soundguide.songs.embed import SONG_SCHEMA, failed_song
from soundguide.songs.folders import escape_part, list_pictures, list_seeds, list_songs
from soundguide.songs.overview import reconcile_rows
from soundguide.songs.rows import SongRows
from soundguide.storage import Storage


def songs_of(counts: dict[str, int]) -> tuple[pa.Table, pa.Table]:
    """Groups named as the songs, and the songs heard in so many segments, 0 for one that could not be heard."""
    heard = [{**failed_song(f"/{name}.wav"), "num_segments": count} for name, count in counts.items()]
    heard = [row if row["num_segments"] else {**row, "error": "broken", "error_kind": "InvalidAudio"} for row in heard]
    groups = pa.table({"id": list(counts), "audio": [f"/{name}.wav" for name in counts]})
    return groups, pa.Table.from_pylist(heard[::-1], schema=SONG_SCHEMA)  # in another order than the groups


def test_rows_are_the_product_in_order_with_every_part_in_its_place() -> None:
    groups, songs = songs_of({"a": 2, "b": 0, "c": 3})
    rows = SongRows.of(groups, list_seeds([7, 5]), songs, per_segment=True)
    expected = [
        (f"{song}--{seed}--{segment:04}", segment, f"/{song}.wav", str(seed), "broken" if song == "b" else "")
        for song, count in (("a", 2), ("b", 1), ("c", 3))
        for segment in range(count)
        for seed in (7, 5)
    ]
    made = rows.table(np.arange(rows.num_rows)).to_pylist()
    assert [(r["id"], r["segment"], r["audio"], r["seed"], r["song_error"]) for r in made] == expected
    still = SongRows.of(groups, list_seeds([7, 5]), songs, per_segment=False).table(np.array([3, 0]))
    assert still["id"].to_pylist() == ["b--5", "a--7"] and still["segment"].to_pylist() == [-1, -1]


def test_a_billion_rows_cost_no_more_than_their_songs_and_pictures() -> None:
    num = 32_000
    groups, songs = songs_of({f"song {number}": 1 + number % 3 for number in range(num)})
    pictures = list_seeds(range(num))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    rows = SongRows.of(groups, pictures, songs, per_segment=False)
    last = rows.table(np.arange(rows.num_rows - 3, rows.num_rows))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.num_rows == num * num > 10**9
    assert last["id"].to_pylist() == [f"song {num - 1}--{num - back}" for back in (3, 2, 1)]
    assert peak + pa.total_allocated_bytes() - before < 32 * 2**20


@pytest.mark.parametrize("per_segment", [False, True])
def test_a_row_is_found_by_its_id_and_a_strange_id_by_none(per_segment: bool) -> None:
    groups, songs = songs_of({"a": 2, "b--0": 0, "c": 11})
    rows = SongRows.of(groups, list_seeds([3, 2**40]), songs, per_segment=per_segment)
    every = np.arange(rows.num_rows)
    ids = rows.table(every)["id"]
    assert len(set(ids.to_pylist())) == rows.num_rows
    np.testing.assert_array_equal(rows.index(ids), every)
    strange = ["", "a", "a--3--9999", "a--4", "a--3--1", "z--3--0000", "a--3--0002", "a--3---001"]
    assert (rows.index(pa.array(strange)) == -1).all()


def test_pairs_keep_their_ids_and_bring_their_own_pictures() -> None:
    _, songs = songs_of({"a": 2})
    pairs = pa.table({"id": ["x", "x--0001", "t"], "audio": ["/a.wav", "/a.wav", ""], "seed": ["1", "2", "3"]})
    assert (
        SongRows.of(pairs, None, songs, per_segment=False).table(np.arange(3))["id"].to_pylist()
        == pairs["id"].to_pylist()
    )
    rows = SongRows.of(pairs, None, songs, per_segment=True)
    ids = rows.table(np.arange(rows.num_rows))["id"]
    assert ids.to_pylist() == ["x--0000", "x--0001", "x--0001--0000", "x--0001--0001", "t--0000"]
    np.testing.assert_array_equal(rows.index(ids), np.arange(5))


def test_names_joined_by_dashes_never_meet() -> None:
    names = ["a", "a-", "-a", "a--", "--", "-", "a-b", "a--b", "a---b", "%2D", "a%2D", "~a", "a\\b", "c:/d", "x\ny"]
    joined = ["--".join(map(escape_part, both)) for both in itertools.product(names, names)]
    assert len(set(joined)) == len(names) ** 2
    assert escape_part("Ünïcode, night/side-1 (live)") == "Ünïcode, night/side-1 (live)"
    for name in names:
        assert not {"\\", ":", "\n"} & set(escape_part(name)) and not escape_part(name).startswith("~")


def test_a_folder_is_listed_at_any_depth_with_the_ending_only_where_it_is_needed(tmp_path: Path) -> None:
    for name in ("b.mp3", "a/b.WAV", "a/c.flac", "a/c.ogg", "a/notes.txt", ".hidden.wav", "cover.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    songs = list_songs(str(tmp_path) + "/", Storage())
    assert dict(zip(*(songs[name].to_pylist() for name in ("id", "audio")), strict=True)) == {
        "a/b": f"{tmp_path}/a/b.WAV",
        "a/c.flac": f"{tmp_path}/a/c.flac",
        "a/c.ogg": f"{tmp_path}/a/c.ogg",
        "b": f"{tmp_path}/b.mp3",
    }
    assert list_pictures(f"file://{tmp_path}", Storage())["id"].to_pylist() == ["cover"]
    with pytest.raises(InvalidConfig, match=r"no images in .*/a: of its 4 files none ends in \.png"):
        list_pictures(str(tmp_path / "a"), Storage())


def test_a_known_file_keeps_its_name_and_stays_when_it_leaves(tmp_path: Path) -> None:
    def listed(known: dict[str, str]) -> dict[str, str]:
        found = list_songs(str(tmp_path), Storage(), known)
        return {uri.removeprefix(f"{tmp_path}/"): id for id, uri in zip(*found.to_pydict().values(), strict=True)}

    def known(names: dict[str, str]) -> dict[str, str]:
        return {f"{tmp_path}/{file}": name for file, name in names.items()}

    for name in ("a.wav", "b.mp3"):
        (tmp_path / name).touch()
    first = listed({})
    assert first == {"a.wav": "a", "b.mp3": "b"}
    for name in ("a.mp3", "a.mp3.wav", "b.mp3.wav", "c.wav"):
        (tmp_path / name).touch()
    (tmp_path / "b.mp3").unlink()
    second = listed(known(first))
    joined = {"a.mp3": "a.mp3", "a.mp3.wav": "a.mp3.wav", "b.mp3.wav": "b.mp3.wav", "c.wav": "c"}
    assert second == first | joined
    assert listed(known(second)) == second and len(set(listed({}).values())) == 5
    with pytest.raises(OutputConflict, match=r"read from another folder, such as /elsewhere/a.wav"):
        list_songs(str(tmp_path), Storage(), {"/elsewhere/a.wav": "a"})


def result(id: str, **given: object) -> dict[str, object]:
    blank = {field.name: None for field in MUSIC_SCHEMA}
    measures = {"similarity_before": 0.1, "similarity_after": 0.1}
    return {**blank, "id": id, "status": "ok", "error": "", "error_kind": "", **measures, **given}


def write_results(folder: Path, *files: list[dict[str, object]]) -> RunFolder:
    (folder / "results").mkdir()
    for number, rows in enumerate(files):
        table = pa.Table.from_pylist(rows, schema=MUSIC_SCHEMA)
        pq.write_table(table, folder / "results" / f"{number}.parquet")
    return RunFolder(str(folder), schema=MUSIC_SCHEMA)


def test_results_are_counted_file_by_file(tmp_path: Path) -> None:
    groups, songs = songs_of({"a": 1, "b": 1})
    rows = SongRows.of(groups, list_seeds([1, 2]), songs, per_segment=False)
    bad = {"status": "error", "error_kind": "InvalidAudio", "error": "why", "similarity_after": float("nan")}
    good = [result("a--1", similarity_after=0.3), result("b--2", similarity_after=0.2), result("a--2")]
    overview = reconcile_rows(write_results(tmp_path, good[:2], [result("b--1", **bad), good[2]]), rows)
    assert overview.counts == {"rows": 4, "ok": 3, "error": 1, "quarantined": 0}
    assert overview.median_gain == pytest.approx(0.1)
    assert [(kind.kind, kind.example_id) for kind in overview.tally.errors] == [("InvalidAudio", "b--1")]


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([["a--1"], []], "1 rows for the 2 of the run, of which 1 are missing:"),
        ([["a--1", "a--1"], ["a--2"]], "of which 0 are missing, and 'a--1' is there twice"),
        ([["a--1"], ["a--2", "a--1"]], "of which 0 are missing, and 'a--1' is there twice"),
        ([["a--1", "z--9"], ["a--2"]], "of which 0 are missing, and 'z--9' is there twice, or belongs to no row"),
    ],
)
def test_results_that_are_not_the_runs_are_refused(tmp_path: Path, ids: list[list[str]], says: str) -> None:
    groups, songs = songs_of({"a": 1})
    rows = SongRows.of(groups, list_seeds([1, 2]), songs, per_segment=False)
    with pytest.raises(OutputConflict, match=says):
        reconcile_rows(write_results(tmp_path, *([result(id) for id in file] for file in ids)), rows)
