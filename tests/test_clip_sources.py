"""The lists of data sets and plain manifests as clip requests, and the refusal of what cannot be meant."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from soundguide.clips.sources import read_audioset, read_plain, read_vggsound
from soundguide.clips.splits import assign_splits
from soundguide.clips.tables import REQUEST_SCHEMA
from soundguide.errors import InvalidManifest
from soundguide.storage import Storage

STORAGE = Storage()
CLASS_NAMES = 'index,mid,display_name\n0,/m/09x0r,"Speech, of people"\n1,/m/06mb1,Rain\n2,/t/dd00038,Rain on surface\n'
SEGMENTS = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
    '--PJHxphWEs, 30.000, 40.000, "/m/06mb1,/t/dd00038"\n'
    '_aB-c, 0.000, 10.000, "/m/09x0r"\n'
    'gone, 5.000, 15.000, "/m/06mb1"\n'
)


def touch(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "header", ["", "youtube_id,start_seconds,label,split\n", "# YouTube ID, start, label, split\n"]
)
def test_vggsounds_list_becomes_requests_of_its_videos(tmp_path: Path, header: str) -> None:
    text = (
        header + '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,"waterfall, burbling",train\ngone,3,rain,train\n'
    )
    media = touch(tmp_path / "v", "---g-f_I2yQ_000001.mp4", "deep/--0PQM4-hqg_000030.webm", "other.txt")
    found = read_vggsound(write(tmp_path / "v.csv", text), media, STORAGE, validation_share=0)
    rows = found.table.to_pylist()
    assert found.table.schema == REQUEST_SCHEMA
    assert [row["id"] for row in rows] == ["---g-f_I2yQ_000001", "--0PQM4-hqg_000030"]
    assert [row["labels"] for row in rows] == ["people marching", "waterfall, burbling"]
    assert [(row["source_id"], row["split"]) for row in rows] == [("---g-f_I2yQ", "test"), ("--0PQM4-hqg", "train")]
    assert rows[1]["video"] == f"{media}/deep/--0PQM4-hqg_000030.webm" and rows[1]["start_seconds"] == 0
    assert (found.num_missing, found.missing) == (1, ("gone_000003",))


@pytest.mark.parametrize(
    "name",
    [
        *("ID_000030.mp4", "ID_30.mkv", "ID_30.000.mp4", "ID_30_40.mp4", "ID_30.000_40.000.webm", "ID_30000_40000.mp4"),
        *("ID_30000.mp4", "ID.mp4", "YID.MP4", "YID_000030.mp4"),
    ],
)
def test_a_trimmed_clip_is_found_under_the_names_that_downloaders_give(tmp_path: Path, name: str) -> None:
    media = touch(tmp_path / "v", name, "IDx.mp4", "ID_000031.mp4")
    table = read_vggsound(write(tmp_path / "v.csv", "ID,30,rain,train\n"), media, STORAGE).table
    assert table["video"].to_pylist() == [f"{media}/{name}"]
    assert table["file_seconds"].to_pylist() == [10.0]


def test_a_whole_recording_is_cut_at_the_times_of_the_list(tmp_path: Path) -> None:
    media = touch(tmp_path / "v", "ID.mp4", "ID_000030.mp4")
    csv = write(tmp_path / "v.csv", "ID,30,rain,train\n")
    row = read_vggsound(csv, media, STORAGE, files="recordings").table.to_pylist()[0]
    assert row["video"] == f"{media}/ID.mp4"
    assert (row["start_seconds"], row["end_seconds"], row["file_seconds"]) == (30, 40, 0)


def test_audiosets_lists_become_requests_with_all_their_labels(tmp_path: Path) -> None:
    names = write(tmp_path / "class_labels_indices.csv", CLASS_NAMES)
    lists = [write(tmp_path / "balanced_train_segments.csv", SEGMENTS)]
    lists.append(write(tmp_path / "eval_segments.csv", '# c\nE, 0.000, 10.000, "/m/06mb1"\n'))
    media = touch(tmp_path / "m", "Y--PJHxphWEs.wav", "_aB-c_000000.mp4", "_aB-c_000000.wav", "E.flac")
    found = read_audioset(lists, names, media, STORAGE, validation_share=0)
    rows = {row["source_id"]: row for row in found.table.to_pylist()}
    assert rows.keys() == {"--PJHxphWEs", "_aB-c", "E"} and found.num_missing == 1
    assert rows["--PJHxphWEs"]["labels"] == "Rain|Rain on surface"
    assert rows["--PJHxphWEs"]["text"] == "Rain, Rain on surface"
    assert rows["--PJHxphWEs"]["audio"].endswith("Y--PJHxphWEs.wav") and not rows["--PJHxphWEs"]["video"]
    assert rows["_aB-c"]["labels"] == "Speech, of people"
    assert rows["_aB-c"]["video"].endswith(".mp4") and not rows["_aB-c"]["audio"]  # the one that has frames
    assert {id: row["split"] for id, row in rows.items()} == {"--PJHxphWEs": "train", "_aB-c": "train", "E": "test"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ID,30,rain,train\nID,30,rain,train\n", r"'ID_000030' in lines 1, 2.* Keep one line"),
        ("ID,30,rain,train\nID,x,rain,train\n", r"in line 2; expected youtube_id,start_seconds,label,split"),
        ("ID,30,rain\n", r"in line 1; expected youtube_id"),
        ("", "lists no clips"),
        ("other,30,rain,train\n", r"none of the 1 clips .* other_000030, Yother_000030.* Check the folder"),
        ("ID,30,rain,tuning\n", r"split 'tuning'; known are train"),
    ],
)
def test_a_list_that_cannot_be_meant_stops_at_once(tmp_path: Path, text: str, says: str) -> None:
    media = touch(tmp_path / "v", "ID_000030.mp4")
    with pytest.raises(InvalidManifest, match=says):
        read_vggsound(write(tmp_path / "v.csv", text), media, STORAGE)


def test_audiosets_classes_must_have_names(tmp_path: Path) -> None:
    media = touch(tmp_path / "m", "a.wav")
    segments = write(tmp_path / "s.csv", 'a, 0, 10, "/m/unknown"\n')
    with pytest.raises(InvalidManifest, match=r"'/m/unknown' in line 1, .* class_labels_indices.csv that belongs"):
        read_audioset([segments], write(tmp_path / "n.csv", CLASS_NAMES), media, STORAGE)


def test_a_plain_manifest_gives_labels_texts_and_absolute_sources(tmp_path: Path) -> None:
    text = (
        "id,video,audio,image,label,text,split,start_seconds\n"
        "a,x.mp4,,,rain| wind noise,a storm,val,1.5\n"
        "b,,s3://bucket/x.wav,p.png,rain,,,\n"
        "c,x.mp4,,,,waves at night,val,\n"
    )
    rows = read_plain(write(tmp_path / "m.csv", text), STORAGE).table.to_pylist()
    assert [row["labels"] for row in rows] == ["rain|wind noise", "rain", "waves at night"]
    assert [row["text"] for row in rows] == ["a storm", "rain", "waves at night"]
    assert (rows[0]["video"], rows[1]["audio"]) == (str(tmp_path / "x.mp4"), "s3://bucket/x.wav")
    assert rows[1]["image"] == str(tmp_path / "p.png")
    assert rows[0]["start_seconds"] == 1.5 and rows[0]["split"] == "validation"
    assert rows[0]["source_id"] == rows[2]["source_id"]  # two clips of one file are one recording


def test_json_lines_and_parquet_give_the_same_requests_as_csv(tmp_path: Path) -> None:
    values = [{"id": "a", "video": "x.mp4", "label": "rain|hail"}, {"id": "b", "video": "y.mp4", "label": "rain"}]
    csv = write(tmp_path / "m.csv", "id,video,label\na,x.mp4,rain|hail\nb,y.mp4,rain\n")
    lines = json.dumps({**values[0], "label": ["rain", "hail"]}) + "\n" + json.dumps(values[1]) + "\n"
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "m.parquet")
    expected = read_plain(csv, STORAGE).table
    assert read_plain(write(tmp_path / "m.jsonl", lines), STORAGE).table.equals(expected)
    assert read_plain(str(tmp_path / "m.parquet"), STORAGE).table.equals(expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,label\na,rain\n", "lacks the column video or audio; it has id, label. Add it"),
        ("id,video\na,x.mp4\n", "lacks the column label or text"),
        ("video,label\nx.mp4,rain\n", "lacks the column id"),
        ("id,vidoe,label\na,x.mp4,rain\n", r"unknown columns: 'vidoe' \(did you mean 'video'\?\)"),
        ("id,video,label\na,x,r\nb,x,r\na,x,r\n", r"'a' in lines 2, 4. Give every row an id"),
        ("id,video,label\n", "has no rows"),
        ("id,video,label,start_seconds\na,x,r,soon\n", "start_seconds 'soon' in the row 'a'; write seconds"),
        ("id,video,label,split\na,x,r,train\nb,x,r,test\n", "in test and train. Give each recording"),
    ],
)
def test_a_plain_manifest_that_cannot_be_meant_stops_at_once(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidManifest, match=says):
        read_plain(write(tmp_path / "m.csv", text), STORAGE)


def test_validation_gets_its_share_of_recordings_and_whole_ones() -> None:
    sources = [f"recording-{number // 3}" for number in range(6000)]
    splits = assign_splits(sources, [""] * 6000, share=0.1, where="x")
    sides: dict[str, set[str]] = {}
    for source, split in zip(sources, splits, strict=True):
        sides.setdefault(source, set()).add(split)
    assert all(len(split) == 1 for split in sides.values())
    share = sum(split == {"validation"} for split in sides.values()) / len(sides)
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / len(sides)) ** 0.5  # four standard errors


def test_a_recordings_side_does_not_depend_on_the_other_recordings() -> None:
    sources = [f"r{number}" for number in range(200)]
    whole = dict(zip(sources, assign_splits(sources, [""] * 200, share=0.3, where="x"), strict=True))
    part = sources[150:20:-3]
    assert assign_splits(part, [""] * len(part), share=0.3, where="x") == [whole[source] for source in part]


def test_given_splits_stay_and_training_gives_to_validation_only_where_there_is_none() -> None:
    sources = [f"r{number}" for number in range(300)]
    given = ["train"] * 200 + ["test"] * 100
    chosen = assign_splits(sources, given, share=0.2, where="x")
    assert chosen[200:] == ["test"] * 100 and {"train", "validation"} == set(chosen[:200])
    assert assign_splits(sources, [*given[:-1], "dev"], share=0.2, where="x") == [*given[:-1], "validation"]
    assert assign_splits(sources, given, share=0.0, where="x") == given
