"""Rows that are to be computed again leave results and finished ids together, whatever stops it in the middle."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from soundguide.run_folder import RunFolder
from soundguide.storage import Storage

HASH = "0123456789abcdef"
MANIFEST = pa.table({"id": ["a", "b", "c", "d"], "audio": ["x.wav"] * 4, "seed": ["1"] * 4})
IDENTITY: dict[str, object] = {"edit": {"num_steps": 3}}


class Stopped(Exception):
    pass


class StoppingStorage(Storage):
    """A storage whose process ends at the n-th write."""

    def __init__(self, num_writes: int) -> None:
        super().__init__()
        self.left = num_writes

    def write_bytes(self, uri: str, data: bytes) -> None:
        if not self.left:
            raise Stopped
        self.left -= 1
        super().write_bytes(uri, data)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A finished run of four rows in two blocks, one of which failed in each."""
    folder = RunFolder(str(tmp_path / "out"))
    assert not folder.claim(IDENTITY, MANIFEST)
    folder.write_record({"identity": IDENTITY, "status": "complete"})
    for block, statuses in {"1": {"a": "ok", "b": "error"}, "2": {"c": "quarantined", "d": "ok"}}.items():
        rows = {"id": list(statuses), "status": list(statuses.values())}
        for place, columns in ((tmp_path / "out/results", rows), (tmp_path / f"out/_run/checkpoint/{HASH}", None)):
            place.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns or {"id": list(statuses)}), place / f"{block}.parquet")
    return folder


def ids(folder: RunFolder, *parts: str) -> list[str]:
    return sorted(pq.read_table(Path(folder.uri, *parts))["id"].to_pylist())


def test_failed_and_quarantined_rows_are_forgotten_and_no_others(folder: RunFolder) -> None:
    assert folder.forget_failed(HASH) == 2
    assert ids(folder, "results") == ids(folder, "_run/checkpoint", HASH) == ["a", "d"]
    assert folder.count_done(HASH) == 2 and folder.forget_failed(HASH) == 0


@pytest.mark.parametrize("num_writes", range(5))
def test_forgetting_goes_on_where_it_was_stopped(folder: RunFolder, num_writes: int) -> None:
    with pytest.raises(Stopped):
        RunFolder(folder.uri, StoppingStorage(num_writes)).forget_failed(HASH)
    folder.claim(IDENTITY, MANIFEST)
    kept = ids(folder, "results")
    assert kept == ids(folder, "_run/checkpoint", HASH)
    assert kept == (["a", "d"] if num_writes else ["a", "b", "c", "d"])
