"""Manifests of all formats read alike, and what is wrong with a whole manifest stops at once."""

import json
import re
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from soundguide.errors import InvalidManifest
from soundguide.manifest import missing_rows, read_manifest, write_manifest
from soundguide.storage import Storage

STORAGE = Storage()


def manifest(folder: Path, text: str, name: str = "m.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_csv_jsonl_and_parquet_read_alike(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "audio": "x.wav", "seed": 3, "text": None, "num_steps": 5},
        {"id": "b", "audio": "/abs/y.wav", "seed": 2**62, "text": "snow, and more", "num_steps": None},
    ]
    csv_text = f'id,audio,seed,text,num_steps\na,x.wav,3,,5\nb,/abs/y.wav,{2**62},"snow, and more",\n'
    csv = manifest(tmp_path, csv_text)
    jsonl = manifest(tmp_path, "\n\n".join(map(json.dumps, rows)), "m.jsonl")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    tables = [read_manifest(uri, STORAGE) for uri in (csv, jsonl, str(tmp_path / "m.parquet"))]
    assert tables[0].to_pylist() == tables[1].to_pylist() == tables[2].to_pylist()
    assert tables[0].to_pylist()[0] == {
        "row": 1,
        "id": "a",
        "audio": str(tmp_path / "x.wav"),
        "image": "",
        "latent": "",
        "seed": "3",
        "num_steps": "5",
        "text": "",
    }
    assert tables[0].to_pylist()[1]["audio"] == "/abs/y.wav" and tables[0].to_pylist()[1]["seed"] == str(2**62)


def test_repeated_and_empty_ids_are_all_listed_with_their_lines(tmp_path: Path) -> None:
    uri = manifest(tmp_path, 'id,audio,seed\na,"x\ny",1\n\nb,x,1\na,x,1\n,x,1\nc,x,1\nb,x,2\n')
    with pytest.raises(InvalidManifest, match=re.escape("'a' in lines 2, 6; 'b' in lines 5, 9; '' in lines 7. Give")):
        read_manifest(uri, STORAGE)


def test_repeated_ids_of_json_lines_count_blank_lines(tmp_path: Path) -> None:
    line = '{"id": 7, "audio": "x", "seed": 1}\n'
    with pytest.raises(InvalidManifest, match="'7' in lines 1, 3"):
        read_manifest(manifest(tmp_path, f"{line}\n{line}", "m.jsonl"), STORAGE)


@pytest.mark.parametrize(
    ("header", "lacks"), [("audio,seed", "id"), ("id,seed", "audio or text"), ("id,audio", "image or seed or latent")]
)
def test_a_missing_column_is_named(tmp_path: Path, header: str, lacks: str) -> None:
    with pytest.raises(InvalidManifest, match=f"lacks the column {lacks}; it has .* Add it"):
        read_manifest(manifest(tmp_path, f"{header}\n1,2\n"), STORAGE)


def test_an_unknown_column_is_met_with_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="'lamda_reg' \\(did you mean 'lambda_reg'\\?\\)"):
        read_manifest(manifest(tmp_path, "id,audio,seed,lamda_reg\na,x,1,2\n"), STORAGE)


def test_a_repeated_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="several columns of the name 'seed'"):
        read_manifest(manifest(tmp_path, "id,audio,seed,seed\na,x,1,2\n"), STORAGE)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.csv", b"id,audio,seed\na,x\n", "Expected 3 columns"),
        ("m.csv", b"id,audio,seed\n", "no rows"),
        ("m.csv", b"", "is empty"),
        ("m.jsonl", b"\n", "is empty"),
        ("m.csv", b"id,audio,seed\n\xff\xfe,x,1\n", "UTF-8"),
        ("m.jsonl", b'{"id": 1}\n{"id": \n', "line 2"),
        ("m.jsonl", b"[1, 2]\n", "line 1"),
        ("m.jsonl", b'{"id": "\\ud800", "audio": "x", "seed": 1}\n', "cannot be read"),
        ("m.parquet", b"PAR1 not really", "cannot be read as parquet"),
        ("m.xlsx", b"PK", "ends in '.xlsx'"),
    ],
)
def test_an_unreadable_manifest_says_why(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidManifest, match=says):
        read_manifest(str(tmp_path / name), STORAGE)


def test_only_a_manifest_of_text_is_to_be_exported_as_utf_8(tmp_path: Path) -> None:
    told = {}
    for name in ("m.csv", "m.parquet"):
        (tmp_path / name).write_bytes(b"id,audio,seed\na,x\n")
        with pytest.raises(InvalidManifest) as caught:
            read_manifest(str(tmp_path / name), STORAGE)
        told[name] = str(caught.value).partition("export it again")[2]
    assert told == {"m.csv": " as UTF-8", "m.parquet": ""}


def test_a_manifest_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="does not exist"):
        read_manifest(str(tmp_path / "none.csv"), STORAGE)


def test_a_nested_parquet_column_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "audio": ["x"], "seed": [[1]]}), tmp_path / "m.parquet")
    with pytest.raises(InvalidManifest, match="'seed' of type list"):
        read_manifest(str(tmp_path / "m.parquet"), STORAGE)


def test_bad_values_are_left_to_their_rows(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "audio": "x", "seed": -1, "num_steps": "many"},
        {"id": "b", "audio": "x", "seed": 1, "num_steps": 3},
    ]
    text = "\n".join(map(json.dumps, rows))
    table = read_manifest(manifest(tmp_path, text, "m.jsonl"), STORAGE)
    assert table["num_steps"].to_pylist() == ["many", "3"] and table["seed"].to_pylist() == ["-1", "1"]


def test_the_normalised_manifest_reads_back_as_it_was(tmp_path: Path) -> None:
    table = read_manifest(manifest(tmp_path, "\ufeffid,audio,seed\r\na,x.wav,1\r\n"), STORAGE)
    write_manifest(table, str(tmp_path / "out" / "m.parquet"), STORAGE)
    assert pq.read_table(tmp_path / "out" / "m.parquet").equals(table)


def test_rows_that_changed_or_went_are_found_in_any_order(tmp_path: Path) -> None:
    earlier = read_manifest(manifest(tmp_path, "id,audio,seed\na,x,1\nb,x,2\nc,x,3\nd,x,4\n"), STORAGE)
    later = read_manifest(
        manifest(tmp_path, "id,audio,seed,text\nd,x,4,\nb,x,9,\nc,x,3,now\na,x,1,\ne,x,5,\n"), STORAGE
    )
    assert missing_rows(earlier, later) == ["b", "c"]
    assert missing_rows(earlier, earlier) == []


def test_a_hundred_thousand_rows_take_a_moment(tmp_path: Path) -> None:
    lines = "".join(f"row-{i},sound-{i % 7}.wav,photo-{i}.jpg\n" for i in range(100_000))
    uri = manifest(tmp_path, f"id,audio,image\n{lines}")
    start = time.monotonic()
    table = read_manifest(uri, STORAGE)
    assert table.num_rows == 100_000
    assert time.monotonic() - start < 10  # a tenth of this on an idle core
