"""Files as torch writes them since version 1.6: a zip archive of a pickle and one file for each storage."""

from __future__ import annotations

import struct
import zipfile
from io import BytesIO
from typing import BinaryIO

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.bounds import Meter
from soundguide.foreign.pickle_functions import checkpoint_functions
from soundguide.foreign.pickle_machine import PickleMachine
from soundguide.foreign.record import Global
from soundguide.foreign.tensors import Storage, new_storage

_PIECE = 4 * 2**20
_ENCRYPTED = 0x1
_ZIP_ERRORS = (zipfile.BadZipFile, ValueError, EOFError, OSError, OverflowError, RuntimeError, struct.error)


class _Piecewise:
    """A file that is read in pieces: zipfile reads a directory at once and makes an object of each of its entries."""

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._file = file
        self._meter = meter

    def read(self, count: int = -1) -> bytes:
        """Return up to ``count`` bytes, or what is left; refuse to read more than a directory may have."""
        data = self._file.read(min(count, _PIECE + 1) if count >= 0 else _PIECE + 1)
        if len(data) > _PIECE:
            raise self._meter.refusal(f"its archive has a directory of more than {_PIECE} bytes")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Say that places can be gone to."""
        return True


class TorchArchive:
    """A zip archive of one folder: ``data.pkl``, and a file of ``data/`` for each storage."""

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._meter = meter
        self._storages: dict[str, Storage] = {}
        try:
            self._archive = zipfile.ZipFile(_Piecewise(file, meter))
        except _ZIP_ERRORS as error:
            raise self._refusal(error) from error
        self._refuse_programs()
        self._entries = self._checked_entries()

    def read(self) -> object:
        """Return what the archive holds."""
        order = self._bytes("byteorder") if "byteorder" in self._entries else b"little"
        if order != b"little":
            raise self._meter.refusal(f"has numbers of byte order {order!r:.20}, and only little-endian ones are read")
        tree = self._bytes("data.pkl")
        functions = checkpoint_functions(self._meter)
        return PickleMachine(
            BytesIO(tree), self._meter, functions=functions, load_persistent=self._load_persistent
        ).run()

    def _load_persistent(self, identity: object) -> object:
        match identity:
            case ("storage", Global() as kind, str(key), str(), int(num)):
                if key not in self._storages:
                    self._storages[key] = self._storage(kind, key, num)
                return self._storages[key]
        raise self._meter.damaged_pickle("it names a storage in an unknown way")

    def _storage(self, kind: Global, key: str, num: int) -> Storage:
        storage = new_storage(kind, num, self._meter)
        entry = self._entries.get(f"data/{key}")
        held = entry.file_size if entry else 0
        if entry is None or held != storage.num_bytes:
            raise self._meter.refusal(f"holds {held} bytes for a storage of {storage.num_bytes}")
        storage.fill(self._content(entry))
        return storage

    def _refuse_programs(self) -> None:
        if any(name.partition("/")[2] == "constants.pkl" for name in self._archive.namelist()):
            raise InvalidCheckpoint(
                f"{self._meter.source}: a TorchScript archive, a program with weights in it, which is never run here. "
                "For OpenAI's CLIP, take the safetensors of the same model from open_clip, with -quickgelu in its name."
            )

    def _checked_entries(self) -> dict[str, zipfile.ZipInfo]:
        """Return the files by their names below the one folder; refuse what torch never writes."""
        entries: dict[str, zipfile.ZipInfo] = {}
        folders = set()
        total = 0
        for info in self._archive.infolist():
            folder, _, name = info.filename.partition("/")
            parts = info.filename.split("/")
            if not all(parts) or ".." in parts or "\\" in info.filename or not name:
                raise self._meter.refusal(f"its archive has a file named {info.filename!r:.80}")
            if name in entries:
                raise self._meter.refusal(f"its archive has the file {name!r:.80} twice")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
                raise self._meter.refusal(f"its archive has {name!r:.80} compressed or encrypted")
            entries[name] = info
            folders.add(folder)
            total += info.file_size
        if len(folders) != 1 or total > self._meter.held_bytes:
            raise self._meter.refusal(f"its archive has {len(folders)} folders with {total} bytes in its files")
        return entries

    def _bytes(self, name: str) -> bytes:
        """Return a file that is no storage."""
        entry = self._entries.get(name)
        if entry is None or entry.file_size > self._meter.bounds.pickle_bytes:
            got = f"{entry.file_size} bytes in it" if entry else "nothing"
            raise self._meter.refusal(f"is a zip archive with {got} under {name!r}, where torch keeps what it saved")
        return self._content(entry)

    def _content(self, entry: zipfile.ZipInfo) -> bytes:
        data = bytearray()
        try:
            with self._archive.open(entry) as file:
                while piece := file.read(_PIECE):
                    data += piece
        except _ZIP_ERRORS as error:
            raise self._refusal(error) from error
        return bytes(data)

    def _refusal(self, error: Exception) -> InvalidCheckpoint:
        if isinstance(error, InvalidCheckpoint):
            return error
        return self._meter.refusal(f"its archive cannot be read ({error})")
