"""Weak partners: another clip that shares a label, uniformly, from a table that stays on disk."""

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from soundguide.clips.tables import DECODED_SCHEMA, blank_media, clip_table
from soundguide.clips.weak_partners import WeakPartners, fetch_table, write_tables
from soundguide.errors import InvalidCheckpoint
from soundguide.storage import Storage

STORAGE = Storage()
# id -> labels, split, whether it has a frame, status
CLIPS = {
    "rain-1": (["rain"], "train", True, "ok"),
    "rain-2": (["rain"], "train", True, "ok"),
    "rain-wind": (["rain", "wind"], "train", True, "ok"),
    "both-too": (["wind", "rain"], "train", True, "ok"),
    "wind": (["wind"], "train", True, "ok"),
    "bell": (["bell"], "train", True, "ok"),
    "heard": (["rain"], "train", False, "ok"),
    "broken": (["rain"], "train", False, "error"),
    "val-rain": (["rain"], "validation", True, "ok"),
    "val-rain-2": (["rain"], "validation", True, "ok"),
}
IDS = list(CLIPS)
# Each clip's embedding is a unit vector of its own, so that a drawn row says whose it is.
OWN = np.eye(len(IDS), dtype=np.float32) * np.array([[clip[2]] for clip in CLIPS.values()], np.float32)


def shard(ids: list[str]) -> pa.Table:
    rows = []
    for id in ids:
        labels, split, has_frame, status = CLIPS[id]
        named = {"id": id, "source_id": id, "split": split, "labels": labels, "text": ", ".join(labels)}
        rows.append({**blank_media(), **named, "has_frame": has_frame, "status": status})
    own = OWN[[IDS.index(id) for id in ids]]
    return clip_table(
        pa.Table.from_pylist(rows, schema=DECODED_SCHEMA),
        image_embeddings=own,
        text_embeddings=own,
        augmented_texts=[[] for _ in ids],
        augmented_text_embeddings=np.zeros((0, len(IDS)), np.float32),
    )


def write(folder: Path, shards: list[list[str]]) -> ds.Dataset:
    folder.mkdir()
    for number, ids in enumerate(shards):
        pq.write_table(shard(ids), folder / f"{number}.parquet")
    return ds.dataset(folder)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    facts = write_tables(write(folder / "shards", [IDS[:4], IDS[4:]]), str(folder / "weak"), STORAGE)
    assert {split: (fact.num_rows, fact.num_labels, fact.num_lonely_labels) for split, fact in facts.items()} == {
        "train": (6, 3, 1),
        "validation": (2, 1, 0),
    }
    return folder / "weak"


def draw(partners: WeakPartners, ids: list[str], *, seed: int = 0, epoch: int = 0) -> list[str]:
    """Return whose embedding each clip got; '' for zeros."""
    drawn = partners.draw(ids, [CLIPS[id][0] for id in ids], own_of(ids), seed=seed, epoch=epoch)
    return [IDS[int(row.argmax())] if row.any() else "" for row in drawn.embeddings]


def own_of(ids: list[str]) -> NDArray[np.float32]:
    return OWN[[IDS.index(id) for id in ids]]


def test_a_partner_is_another_clip_of_the_split_that_shares_a_label(tables: Path) -> None:
    train, validation = WeakPartners(tables / "train"), WeakPartners(tables / "validation")
    for epoch in range(200):
        for id in ("rain-1", "rain-wind", "wind", "heard"):
            partner = draw(train, [id], epoch=epoch)[0]
            labels, split, has_frame, status = CLIPS[partner]
            assert partner != id and set(labels) & set(CLIPS[id][0])
            assert (split, has_frame, status) == ("train", True, "ok")
        assert draw(validation, ["val-rain"], epoch=epoch) == ["val-rain-2"]


@pytest.mark.parametrize(
    ("id", "partners"),
    [
        ("rain-1", ["rain-2", "rain-wind", "both-too"]),
        ("rain-wind", ["rain-1", "rain-2", "both-too", "wind"]),  # one of them shares both labels
        ("heard", ["rain-1", "rain-2", "rain-wind", "both-too"]),
    ],
)
def test_all_partners_are_equally_likely_also_where_label_sets_overlap(
    tables: Path, id: str, partners: list[str]
) -> None:
    table, num = WeakPartners(tables / "train"), 3000
    counts = Counter(draw(table, [id], epoch=epoch)[0] for epoch in range(num))
    expected = num / len(partners)
    assert counts.keys() == set(partners)
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_squared < 16.3  # the 99.9th percentile at three degrees of freedom


def test_a_label_with_one_clip_falls_back_to_its_own_frame_and_is_counted(tables: Path) -> None:
    train = WeakPartners(tables / "train")
    ids = ["bell", "rain-1", "heard"]
    labels = [["bell"], ["rain"], ["only here"]]
    drawn = train.draw(ids, labels, own_of(ids), seed=0, epoch=0)
    assert (drawn.num_fallbacks, drawn.num_without) == (1, 1)
    np.testing.assert_array_equal(drawn.embeddings[0], own_of(["bell"])[0])
    assert drawn.rows[1] >= 0 and not drawn.embeddings[2].any()


def test_a_draw_depends_on_seed_epoch_and_clip_alone(tables: Path) -> None:
    train = WeakPartners(tables / "train")
    ids = ["rain-1", "rain-wind", "wind", "bell"]
    together = [draw(train, ids, epoch=epoch) for epoch in range(20)]
    assert together == [[draw(train, [id], epoch=epoch)[0] for id in ids] for epoch in range(20)]
    assert together != [draw(train, ids, epoch=epoch, seed=1) for epoch in range(20)]
    assert len({tuple(row) for row in together}) > 1


def test_how_shards_are_cut_does_not_change_the_table(tables: Path, tmp_path: Path) -> None:
    write_tables(write(tmp_path / "s", [IDS[::-2], IDS[-2::-2]]), str(tmp_path / "weak"), STORAGE)
    one, other = WeakPartners(tables / "train"), WeakPartners(tmp_path / "weak" / "train")
    ids = ["rain-1", "rain-wind", "heard"]
    assert [draw(one, ids, epoch=n) for n in range(20)] == [draw(other, ids, epoch=n) for n in range(20)]
    assert one.labels() == other.labels() == {"bell": 1, "rain": 4, "wind": 3}


def test_a_table_that_is_written_again_replaces_the_old_one_whole(tmp_path: Path) -> None:
    shards = write(tmp_path / "s", [IDS])
    write_tables(shards, str(tmp_path / "weak"), STORAGE)
    reader = WeakPartners(tmp_path / "weak" / "train")
    before = draw(reader, ["rain-1"])
    write_tables(shards, str(tmp_path / "weak"), STORAGE)
    assert draw(reader, ["rain-1"]) == before == draw(WeakPartners(tmp_path / "weak" / "train"), ["rain-1"])
    assert len(list((tmp_path / "weak" / "train").iterdir())) == 4


def test_a_remote_table_is_copied_once_and_then_mapped(tables: Path, tmp_path: Path) -> None:
    uri = (tables / "train").as_uri()
    local = fetch_table(uri, STORAGE, cache=tmp_path)
    stamps = {path.name: path.stat().st_mtime_ns for path in local.glob("*.npy")}
    assert fetch_table(uri, STORAGE, cache=tmp_path) == local != tables / "train" and len(stamps) == 3
    assert stamps == {path.name: path.stat().st_mtime_ns for path in local.glob("*.npy")}
    assert draw(WeakPartners(local), ["rain-1"]) == draw(WeakPartners(tables / "train"), ["rain-1"])


@pytest.mark.s3
def test_a_table_on_s3_is_the_same_table(s3: Storage, tables: Path, tmp_path: Path) -> None:
    shards = write(tmp_path / "s", [IDS])
    for _ in range(2):  # the second writing removes the files of the first
        write_tables(shards, "s3://bucket/weak", s3)
    assert len(s3.list("s3://bucket/weak/train")) == 4
    local = fetch_table("s3://bucket/weak/train", s3, cache=tmp_path / "cache")
    assert draw(WeakPartners(local), ["rain-1"]) == draw(WeakPartners(tables / "train"), ["rain-1"])


def test_the_set_is_never_held_in_memory(tmp_path: Path) -> None:
    num, embed_dim = 12_000, 512  # 25 MB
    for part in range(3):
        ids = [f"{part}-{number}" for number in range(num // 3)]
        rows = {
            "id": ids,
            "split": ["train"] * len(ids),
            "status": ["ok"] * len(ids),
            "has_frame": [True] * len(ids),
            "labels": [[f"label {number % 50}"] for number in range(len(ids))],
        }
        flat = pa.array(np.ones(len(ids) * embed_dim, np.float32))
        table = pa.table(rows).append_column("image_embedding", pa.FixedSizeListArray.from_arrays(flat, embed_dim))
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=1000)
    shards = ds.dataset(tmp_path)
    own = np.zeros((64, embed_dim), np.float32)
    tracemalloc.start()
    write_tables(shards, str(tmp_path / "weak"), STORAGE)
    _, written = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    table = WeakPartners(tmp_path / "weak" / "train")
    table.draw([f"0-{n}" for n in range(64)], [[f"label {n % 50}"] for n in range(64)], own, seed=0, epoch=0)
    _, drawn = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert written < 8e6 and drawn < 2e6  # numpy's and Python's own; Arrow's pool holds a few batches beside


def test_a_folder_without_a_table_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="holds no table of weak partners .* prepare the clips again"):
        WeakPartners(tmp_path)
    with pytest.raises(InvalidCheckpoint, match="holds no table"):
        fetch_table(tmp_path.as_uri(), STORAGE, cache=tmp_path / "cache")
