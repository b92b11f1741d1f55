"""Pickles read as data: objects become records, weights become tensors, nothing runs."""

from __future__ import annotations

from io import BytesIO

from soundguide.foreign.bounds import Bounds, Meter
from soundguide.foreign.legacy_torch import blob_functions
from soundguide.foreign.pickle_machine import PickleMachine
from soundguide.foreign.record import Global, Record

__all__ = ["Global", "Record", "read_pickle"]

_ANY_FILE = Bounds()


def read_pickle(data: bytes | memoryview, *, source: str, bounds: Bounds = _ANY_FILE) -> object:
    """Return what a pickle describes: dictionaries, lists, tuples, sets, numbers, texts, `Record`s and tensors.

    Classes come as `Global`, numpy's numbers as Python's, its arrays as records. ``source`` begins each message.
    Raises `InvalidCheckpoint` for a pickle that is damaged, is larger than ``bounds`` or calls what is not on the list.
    """
    data = bytes(data)  # no copy where it is bytes already
    meter = Meter(source, bounds, held_bytes=len(data))
    return PickleMachine(BytesIO(data), meter, functions=blob_functions(meter)).run()
