"""The ids that Ray Data skips: all that were committed, read without a thread for each of their files."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pyarrow.fs import LocalFileSystem
from ray.data.checkpoint import CheckpointConfig

from finished_ids import FinishedIds, _read_ids

NUM_FILES = 400


def manager(folder: Path) -> FinishedIds:
    config = CheckpointConfig(
        id_column="id",
        checkpoint_path=str(folder),
        override_filesystem=LocalFileSystem(),
        checkpoint_manager_cls=FinishedIds,
    )
    return FinishedIds(checkpoint_config=config, data_context=ray.data.DataContext.get_current())


def write_block(folder: Path, name: str, ids: list[str]) -> None:
    pq.write_table(pa.table({"id": ids}), folder / f"{name}.parquet")


def test_the_ids_of_all_files_are_loaded_in_order_and_what_was_cut_off_is_removed(
    local_ray: None, tmp_path: Path
) -> None:
    ids, results = tmp_path / "ids", tmp_path / "results"
    ids.mkdir()
    results.mkdir()
    write_block(ids, "late", ["ü", "row 10", "row 9"])
    write_block(ids, "early", ["a", "Z"])
    write_block(ids, "cut.pending", ["lost"])
    write_block(results, "cut-0", ["lost"])
    write_block(results, "late-0", ["row 10"])
    found, size = manager(ids).load_checkpoint(str(results), LocalFileSystem())
    assert ray.get(found).tolist() == ["Z", "a", "row 10", "row 9", "ü"]
    assert size > sum(len(id) for id in ray.get(found))
    assert [path.name for path in results.iterdir()] == ["late-0.parquet"]
    assert sorted(path.name for path in ids.iterdir()) == ["early.parquet", "late.parquet"]


def test_where_nothing_was_done_nothing_is_loaded(local_ray: None, tmp_path: Path) -> None:
    assert manager(tmp_path / "none").load_checkpoint(str(tmp_path), LocalFileSystem()) == (None, 0)


def test_many_files_do_not_take_many_threads(local_ray: None, tmp_path: Path) -> None:
    for number in range(NUM_FILES):
        write_block(tmp_path, str(number), [f"row {number}"])
    before, most = psutil.Process().num_threads(), 0
    function = _read_ids._function  # in this process, where threads can be counted
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, psutil.Process().num_threads())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    found, _ = function(LocalFileSystem(), str(tmp_path), "id")
    done.set()
    watcher.join()
    assert len(found) == NUM_FILES
    assert most - before < 50
