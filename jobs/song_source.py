"""The rows of a music run as Ray Data reads them: each task works out a range of them, and nobody holds them all.

Travels to workers by value, for other machines lack this folder.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray import cloudpickle
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from soundguide.songs.rows import SongRows

_ROWS_PER_TASK = 65_536  # whatever Ray would like: rows cost microseconds to make and seconds to edit
_ROWS_PER_BLOCK = 4_096
_BYTES_PER_ROW = 500  # about: names and URIs


class SongSource(Datasource):
    """Makes the rows of a run; songs and pictures lie in the object store once."""

    def __init__(self, rows: SongRows) -> None:
        """Put songs and pictures into the object store."""
        super().__init__()
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        self._num_rows, self._rows = rows.num_rows, ray.put(rows)

    def estimate_inmemory_data_size(self) -> int:
        """Return the bytes of all rows, about."""
        return self._num_rows * _BYTES_PER_ROW

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return tasks that each make a range of rows."""
        return [
            _task(self._rows, start, min(start + _ROWS_PER_TASK, self._num_rows), per_task_row_limit)
            for start in range(0, self._num_rows, _ROWS_PER_TASK)
        ]


def _task(rows: "ray.ObjectRef[SongRows]", start: int, stop: int, limit: int | None) -> ReadTask:
    def read() -> Iterator[pa.Table]:
        made = ray.get(rows)
        for first in range(start, stop, _ROWS_PER_BLOCK):
            yield made.table(np.arange(first, min(first + _ROWS_PER_BLOCK, stop)))

    metadata = BlockMetadata(
        num_rows=stop - start, size_bytes=(stop - start) * _BYTES_PER_ROW, input_files=None, exec_stats=None
    )
    return ReadTask(read, metadata, per_task_row_limit=limit)
