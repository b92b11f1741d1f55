"""The files of a run, looked at while it works: when they were written, and reading them although they change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from soundguide.errors import OutputConflict, SourceNotFound
from soundguide.storage import Storage

_NUM_TRIES = 3
_WAIT_SECONDS = 0.2

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file as a listing shows it: ``path`` as Arrow's filesystem takes it, ``modified`` in seconds since 1970.

    A file of a run is never changed, only replaced: two that are equal here have the same content.
    """

    path: str
    num_bytes: int
    modified: float

    @property
    def name(self) -> str:
        """The name in its folder."""
        return self.path.rpartition("/")[2]


def list_files(folder: str, storage: Storage) -> list[FoundFile]:
    """Return the files directly in the folder with this URI, in no order; none if it is missing.

    Raises `SourceNotFound` where it may not be read.
    """
    filesystem, path = storage.arrow_filesystem(folder)
    with _translated(folder):
        if filesystem.type_name == "local":
            return list(_scan(path))
        # Arrow's view of an object store has no times
        found = filesystem.handler.fs.find(path, maxdepth=1, detail=True)
        return [_object(name, info) for name, info in found.items() if info["type"] == "file"]


def when_written(uri: str, storage: Storage) -> float | None:
    """Return when the file `uri` was written, seconds since 1970; None if it is missing. Raises as `list_files`."""
    filesystem, path = storage.arrow_filesystem(uri)
    with _translated(uri):
        try:
            if filesystem.type_name == "local":
                return os.stat(path).st_mtime
            return _object(path, filesystem.handler.fs.info(path)).modified
        except (FileNotFoundError, NotADirectoryError):
            return None


def read_steadily(path: str, read: Callable[[str], Read]) -> Read | None:
    """Return what ``read`` makes of the file; None if there is none.

    An object that is replaced between two reads gives parts of both, so what fails is tried again. Raises
    `OutputConflict` where it stays damaged, `SourceNotFound` where it may not be read.
    """
    for attempt in range(1, _NUM_TRIES + 1):
        try:
            with _translated(path):
                return read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (pa.ArrowException, OSError) as exc:
            if attempt == _NUM_TRIES:
                raise OutputConflict(
                    f"{path} is damaged, or no file of a run ({exc}). Put it back as the run wrote it, or give another "
                    "output folder"
                ) from exc
            time.sleep(_WAIT_SECONDS)
    raise AssertionError("the last try returns or raises")


def _scan(path: str) -> Iterator[FoundFile]:
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue  # replaced or removed since it was listed
                if entry.is_file():
                    yield FoundFile(entry.path, status.st_size, status.st_mtime)
    except (FileNotFoundError, NotADirectoryError):
        return


def _object(path: str, info: dict[str, Any]) -> FoundFile:
    return FoundFile(path, int(info["size"] or 0), info["LastModified"].timestamp())


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as exc:
        raise SourceNotFound(f"{uri} may not be accessed ({exc}); check its permissions or the credentials") from exc
