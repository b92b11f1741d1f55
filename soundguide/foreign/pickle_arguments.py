"""What follows the opcodes of a pickle, read within bounds."""

from __future__ import annotations

import struct
from io import BytesIO

from soundguide.foreign.bounds import Meter

MAX_NAME_CHARS = 256
_MAX_LONG_BYTES = 16  # torch's magic number has ten


class PickleArguments:
    """Reads from where ``file`` stands. All methods raise `InvalidCheckpoint` where it ends or asks for too much."""

    def __init__(self, file: BytesIO, meter: Meter) -> None:
        self._file = file
        self._meter = meter

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        if count > self._meter.held_bytes:
            raise self._meter.damaged_pickle(f"it asks for {count} bytes")
        data = self._file.read(count)
        if len(data) < count:
            raise self._meter.damaged_pickle("it ends too early")
        return data

    def number(self, layout: str) -> int:
        """Return a number of the `struct` layout."""
        number: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return number

    def long(self) -> int:
        """Return an integer of as many bytes as the first byte says."""
        size = self.number("<B")
        if size > _MAX_LONG_BYTES:
            raise self._meter.damaged_pickle(f"it has an integer of {size} bytes")
        return int.from_bytes(self.take(size), "little", signed=True)

    def text(self, layout: str, encoding: str) -> str:
        """Return a text whose length has the `struct` layout."""
        size = self.number(layout)
        self._meter.spend("bytes of text", size)
        try:
            return self.take(size).decode(encoding)
        except UnicodeDecodeError as error:
            raise self._meter.damaged_pickle(f"a text in it is not {encoding}") from error

    def bytes(self, layout: str) -> bytes:
        """Return bytes whose number has the `struct` layout."""
        size = self.number(layout)
        self._meter.spend("bytes", size)
        return self.take(size)

    def line(self) -> str:
        """Return a name that a line break ends."""
        line = self._file.readline(MAX_NAME_CHARS + 1)
        if not line.endswith(b"\n") or not line.isascii():
            raise self._meter.damaged_pickle("a name in it has no end")
        return line[:-1].decode("ascii")
