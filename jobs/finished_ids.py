"""The ids that are done, for Ray Data to skip; travels to workers by value, for other machines lack this folder."""

import sys
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import ray
from pyarrow.fs import FileSelector, FileSystem, FileType
from ray.data.checkpoint.checkpoint_filter import CheckpointManager


class FinishedIds(CheckpointManager):
    """Reads the ids with a few threads.

    Ray's own manager takes a thread for each of their files, of which a million rows have thousands: they get in each
    other's way until none moves.
    """

    def load_checkpoint(self, data_file_dir: str | None = None, data_file_filesystem: FileSystem | None = None) -> Any:
        """Return a reference to the sorted ids and their bytes, or (None, 0); clean up what was cut off before."""
        self._clean_pending_checkpoints(data_file_dir, data_file_filesystem)
        ids, num_bytes = _read_ids.remote(self.filesystem, self.checkpoint_path_unwrapped, self.id_column)
        size = ray.get(num_bytes)
        return (ids, size) if size else (None, 0)


@ray.remote(num_cpus=0, num_returns=2)
def _read_ids(filesystem: FileSystem, folder: str, column: str) -> tuple[Any, int]:
    found = filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
    paths = [file.path for file in found if file.type == FileType.File]
    if not paths:
        return None, 0
    ids = np.sort(ds.dataset(paths, format="parquet", filesystem=filesystem).to_table([column])[column].to_numpy())
    return ids, ids.nbytes + sum(map(sys.getsizeof, ids))
