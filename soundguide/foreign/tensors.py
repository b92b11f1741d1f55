"""Storages and tensors as torch's files describe them, built without torch's unpickler and checked before they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from reprlib import repr as brief  # the plain one takes for ever where tuples hold each other many times

import torch
from torch import Tensor

from soundguide.foreign.bounds import Meter
from soundguide.foreign.record import Global

_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_MAX_DIMENSIONS = 8
_MAX_EMPTY_LENGTH = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """A row of numbers, ``[num]``, that tensors look into."""

    flat: Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes of the row, in a file too."""
        return self.flat.numel() * self.flat.element_size()

    def fill(self, data: bytes) -> None:
        """Put in what the file holds, `num_bytes` little-endian bytes."""
        if data:
            raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            # bytes other than 0 and 1 are no booleans to torch
            self.flat.copy_(raw != 0 if self.flat.dtype == torch.bool else raw.view(self.flat.dtype))


def new_storage(kind: object, num: int, meter: Meter) -> Storage:
    """Return a storage for ``num`` numbers of the ``kind`` that a pickle names, to be filled.

    Raises `InvalidCheckpoint` for another kind, or for more bytes than the file holds.
    """
    dtype = _DTYPES.get(kind.name) if isinstance(kind, Global) else None
    if dtype is None:
        named = kind.name if isinstance(kind, Global) else type(kind).__name__
        raise meter.refusal(f"has weights of type {named!r}, and only {', '.join(_DTYPES)} are read")
    if num < 0:
        raise meter.refusal(f"has a storage of {num} numbers")
    num_bytes = num * dtype.itemsize
    meter.spend("bytes of storages", num_bytes)
    meter.spend("bytes", num_bytes)
    return Storage(torch.empty(num, dtype=dtype))


def view(storage: Storage, offset: int, size: tuple[object, ...], stride: tuple[object, ...], meter: Meter) -> Tensor:
    """Return the tensor of shape ``size`` that begins at ``offset``, with steps ``stride``, all in numbers.

    Raises `InvalidCheckpoint` if it would leave the storage, or have more numbers than it: repeated numbers are a way
    to make a tiny file huge.
    """
    lengths = [length for length in size if isinstance(length, int) and length >= 0]
    steps = [step for step in stride if isinstance(step, int) and step >= 0]
    if not len(size) == len(stride) == len(lengths) == len(steps) <= _MAX_DIMENSIONS or offset < 0:
        raise meter.refusal(f"has a tensor of size {brief(size):.80} and stride {brief(stride):.80}")
    meter.spend("tensors")
    num, held = math.prod(lengths), storage.flat.numel()
    if not num:
        if max(lengths) > _MAX_EMPTY_LENGTH:
            raise meter.refusal(f"has an empty tensor of size {lengths}")
        return storage.flat.new_empty(lengths)
    last = offset + sum((length - 1) * step for length, step in zip(lengths, steps, strict=True))
    if last >= held or num > held:
        raise meter.refusal(f"has a tensor of {num} numbers up to number {last} of a storage of {held}")
    meter.spend("bytes", num * storage.flat.element_size())
    # the step of a length of one is never taken, and may be anything
    steps = [step if length > 1 else 1 for length, step in zip(lengths, steps, strict=True)]
    return storage.flat.as_strided(lengths, steps, offset)
