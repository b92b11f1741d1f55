"""How the rows of a run ended so far, counted from the result files that are there for good."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from soundguide.config import Frozen
from soundguide.run_files import FoundFile, list_files, read_steadily
from soundguide.run_folder import RunFolder

_MAX_EXAMPLE = 500  # characters of a message that are kept as an example

_COLUMNS = ("status", "error_kind", "id", "error")
_ROWS_AT_ONCE = 4096  # in each thread
_NUM_THREADS = 8  # an object store answers slowly, but many at once
_PART = re.compile(r"-\d+\.parquet$")


class ErrorKind(Frozen):
    """Rows that failed alike, and one of them."""

    kind: str
    count: int
    example_id: str
    example: Annotated[str, Field(description=f"Its error, {_MAX_EXAMPLE} characters at most.")]


@dataclass(slots=True)
class Tally:
    """Rows of one file or of many: by ``statuses``, those that are not ok by ``kinds`` with an (id, error) of each."""

    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """All rows, whatever became of them."""
        return self.statuses.total()

    @property
    def errors(self) -> tuple[ErrorKind, ...]:
        """The kinds, the most common first."""
        found = []
        for kind, count in self.kinds.most_common():
            id, error = self.examples[kind]
            found.append(ErrorKind(kind=kind, count=count, example_id=id, example=error))
        return tuple(found)

    def add(self, other: Tally) -> None:
        """Count another tally's rows too; the first example of a kind stays."""
        self.statuses += other.statuses
        self.kinds += other.kinds
        self.examples = other.examples | self.examples

    def add_rows(self, rows: pa.Table) -> None:
        """Count rows too (``id``, ``status``, ``error``, ``error_kind``)."""
        # without threads, for only then is there a first
        groups = rows.group_by(["status", "error_kind"], use_threads=False).aggregate(
            [([], "count_all"), ("id", "first"), ("error", "first")]
        )
        for group in groups.to_pylist():
            status, count = str(group["status"]), int(group["count_all"])
            self.statuses[status] += count
            if status != "ok":
                kind = group["error_kind"] or status
                self.kinds[kind] += count
                self.examples.setdefault(kind, (str(group["id_first"]), _shown(str(group["error_first"]))))


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that were finished together, and when, in seconds since 1970."""

    finished: float
    num_rows: int


class ResultCounter:
    """Counts the results in a run's folder, again and again: a file that was read is read again only if it changed.

    Memory grows with the files, not with the rows.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._read: dict[FoundFile, Tally] = {}

    def count(self, config_hash: str, *, complete: bool) -> tuple[Tally, list[Block]]:
        """Return the rows that are finished, and the blocks they came in.

        Those are the rows that `RunFolder.count_done` counts: what a block wrote before its checkpoint was committed
        is not among them. In a ``complete`` run all results count, whether its checkpoint is still there or not.

        Raises:
            OutputConflict: a file is damaged.
            SourceNotFound: the folder may not be read.
        """
        # Before the results: a block that is committed has written them all.
        committed = None if complete else self._committed(config_hash)
        found = list_files(self._folder.results_uri, self._folder.storage)
        files = sorted((file for file in found if _counts(file, committed)), key=lambda file: file.path)
        self._read_all(files)
        whole = Tally()
        for tally in self._read.values():
            whole.add(tally)
        return whole, [Block(file.modified, tally.num_rows) for file, tally in self._read.items()]

    def _read_all(self, files: list[FoundFile]) -> None:
        """Read the files that are new, and forget those that are gone."""
        new = [file for file in files if file not in self._read]
        filesystem, _ = self._folder.storage.arrow_filesystem(self._folder.results_uri)

        def read(file: FoundFile) -> Tally | None:
            return read_steadily(file.path, partial(_tally_file, filesystem))

        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            tallies = self._read | dict(zip(new, pool.map(read, new), strict=True))
        self._read = {file: tally for file in files if (tally := tallies[file]) is not None}

    def _committed(self, config_hash: str) -> set[str]:
        names = (file.name for file in list_files(self._folder.checkpoint_uri(config_hash), self._folder.storage))
        return {name.removesuffix(".parquet") for name in names if not name.endswith(".pending.parquet")}


def _counts(file: FoundFile, committed: set[str] | None) -> bool:
    """Say whether a file holds results; Ray names those of the block ``b`` ``b-0.parquet``, ``b-1.parquet`` ..."""
    if not file.name.endswith(".parquet") or file.name.startswith("."):
        return False
    return committed is None or _PART.sub("", file.name) in committed


def _shown(error: str) -> str:
    return error if len(error) <= _MAX_EXAMPLE else f"{error[: _MAX_EXAMPLE - 1]}…"


def _tally_file(filesystem: Any, path: str) -> Tally:
    """Count the rows of a file."""
    tally = Tally()
    with filesystem.open_input_file(path) as source, pq.ParquetFile(source) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(_COLUMNS), use_threads=False):
            tally.add_rows(pa.Table.from_batches([batch]))
    return tally
