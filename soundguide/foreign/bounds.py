"""How much a foreign file may ask for, counted as it is read: a few bytes can ask for any amount of memory or time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from soundguide.errors import InvalidCheckpoint

_MAX_INT_KEY = 2**60  # larger integers can be made to have one hash

Counted = Literal["opcodes", "bytes of text", "tensors", "bytes of storages", "bytes"]

_USES_OF_A_BYTE = 4
"""A weight of an NVIDIA file is counted as literal, as storage and as tensor; two tensors may share one storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that a file may have. The largest checkpoints read here stay below a fifth of each number."""

    file_bytes: int = 8 * 2**30
    pickle_bytes: int = 64 * 2**20
    """The pickle or the directory of a torch archive, whose weights lie beside them."""
    opcodes: int = 1_000_000
    text_bytes: int = 64 * 2**20
    key_chars: int = 1024
    """The length of a dictionary's key: equal keys are compared to the end."""
    tensors: int = 50_000


class Meter:
    """What one file may still ask for.

    ``source`` begins every message. ``held_bytes``: the file's size. Its weights cannot be larger, and the memory asked
    for in all is at most a few times that.
    """

    def __init__(self, source: str, bounds: Bounds, *, held_bytes: int) -> None:
        self.source = source
        self.bounds = bounds
        self.held_bytes = held_bytes
        self._most: dict[Counted, int] = {
            "opcodes": bounds.opcodes,
            "bytes of text": bounds.text_bytes,
            "tensors": bounds.tensors,
            "bytes of storages": held_bytes,
            "bytes": _USES_OF_A_BYTE * held_bytes,
        }
        self._left = dict(self._most)

    def spend(self, what: Counted, amount: int = 1) -> None:
        """Count ``amount`` of ``what`` before it is made; raise `InvalidCheckpoint` where it is too much."""
        self._left[what] -= amount
        if self._left[what] < 0:
            raise self.refusal(f"asks for more than {self._most[what]} {what}")

    def refusal(self, problem: str) -> InvalidCheckpoint:
        """Return the error for a file that is damaged or made to do harm; ``problem`` goes on after the source."""
        return InvalidCheckpoint(
            f"{self.source}: {problem}. The file is damaged or not an honest checkpoint: download it again from its "
            "authors, and let nothing else unpickle it."
        )

    def damaged_pickle(self, problem: str) -> InvalidCheckpoint:
        """Return the error for a pickle that makes no sense."""
        return self.refusal(f"its pickle cannot be followed, {problem}")

    def checked_key(self, key: object) -> object:
        """Return ``key`` if a dictionary or set may have it: what takes no time to hash and to compare."""
        match key:
            case str() | bytes() if len(key) <= self.bounds.key_chars:
                return key
            case None | bool():
                return key
            case int() if abs(key) < _MAX_INT_KEY:
                return key
            case _:
                raise self.refusal(f"has a key of type {type(key).__name__} that is no short text and no small integer")
