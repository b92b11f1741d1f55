"""Files of ``torch.save``, old and new, and plain pickles: told apart by their first bytes, read without executing."""

from __future__ import annotations

from pathlib import Path

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.bounds import Bounds, Meter
from soundguide.foreign.inert_pickle import read_pickle
from soundguide.foreign.legacy_torch import is_legacy_torch, read_legacy_torch
from soundguide.foreign.pickle_functions import checkpoint_functions
from soundguide.foreign.torch_archive import TorchArchive

_ANY_FILE = Bounds()
_ZIP_START = b"PK\x03\x04"
_PICKLE_START = b"\x80"


def read_torch_file(path: Path, *, bounds: Bounds = _ANY_FILE) -> object:
    """Return what a file of ``torch.save`` or a pickle holds, as `inert_pickle.read_pickle` does.

    Raises `InvalidCheckpoint` for a file that is missing, damaged, larger than ``bounds``, of no such kind, or wants to
    call what is not on the list.
    """
    source = str(path)
    size = checked_size(path, bounds)
    with path.open("rb") as file:
        start = file.read(64)
        file.seek(0)
        if start.startswith(_ZIP_START):
            return TorchArchive(file, Meter(source, bounds, held_bytes=size)).read()
        if not start.startswith(_PICKLE_START):
            raise InvalidCheckpoint(f"{source}: no checkpoint, {_guess(start)}")
        data = file.read(size)
    if is_legacy_torch(data):
        meter = Meter(source, bounds, held_bytes=size)
        return read_legacy_torch(data, meter, functions=checkpoint_functions(meter))
    return read_pickle(data, source=source, bounds=bounds)


def checked_size(path: Path, bounds: Bounds) -> int:
    """Return the bytes of a file; raise `InvalidCheckpoint` where there is none, or more than ``bounds``."""
    if not path.is_file():
        raise InvalidCheckpoint(f"{path}: there is no such file. Correct the path.")
    size = path.stat().st_size
    if size > bounds.file_bytes:
        raise InvalidCheckpoint(
            f"{path}: {size} bytes, more than the {bounds.file_bytes} that any known checkpoint has. Name another file."
        )
    return size


def _guess(start: bytes) -> str:
    """Return what a file that begins so may be, and the remedy."""
    if not start:
        return "it is empty. Download it again."
    if start.lstrip()[:1] == b"<":
        return "it looks like a web page that was saved in its place. Download the file itself."
    if start.startswith(b"version https://git-lfs"):
        return "it is the pointer that Git LFS leaves in its place. Run git lfs pull."
    return f"it begins with {start[:8]!r}, like neither a torch file nor a pickle. Name a .pt, .pth or .pkl file."
