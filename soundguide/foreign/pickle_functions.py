"""What the pickles of checkpoints call, each replaced by a function that only puts data together."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.bounds import Meter
from soundguide.foreign.pickle_machine import Function
from soundguide.foreign.record import Global, Record
from soundguide.foreign.tensors import Storage, view

_PERSISTENCE_VERSION = 6
_NUMPY_LAYOUTS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b"}
_NUMPY_LAYOUTS |= {"u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?"}


def checkpoint_functions(meter: Meter) -> Mapping[str, Function]:
    """Return by name what may be called in any checkpoint; each raises `InvalidCheckpoint` for other arguments."""
    functions: dict[str, Callable[[Meter, tuple[object, ...]], object]] = {
        "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_parameter": _parameter,
        "torch.Size": _size,
        "torch.device": _device,
        "collections.OrderedDict": _empty_dict,
        "builtins.bytes": _no_bytes,
        "builtins.set": _set,
        "copyreg._reconstructor": _object,
        "_codecs.encode": _encode,
        "numpy.dtype": _dtype,
        "numpy.core.multiarray.scalar": _scalar,
        "numpy.core.multiarray._reconstruct": _array,
    }
    return {name: _bound(name, function, meter) for name, function in functions.items()}


def _bound(name: str, function: Callable[[Meter, tuple[object, ...]], object], meter: Meter) -> Function:
    def call(args: tuple[object, ...]) -> object:
        try:
            return function(meter, args)
        except _Misused as error:
            raise misused(name, args, meter) from error

    return call


def misused(name: str, args: tuple[object, ...], meter: Meter) -> InvalidCheckpoint:
    """Return the error for a call of ``name`` with arguments that it is never given."""
    return meter.damaged_pickle(f"it gives {[type(arg).__name__ for arg in args]} to {name!r}")


class _Misused(Exception):
    """A function was given what it cannot be given in a checkpoint."""


def _persistent(meter: Meter, args: tuple[object, ...]) -> Record:
    """Make a record of an object of NVIDIA's; the source code that came with it is dropped unread."""
    match args:
        case ({"type": "class", "version": int(version), "class_name": str(name), "state": dict(state)},):
            if version != _PERSISTENCE_VERSION:
                raise InvalidCheckpoint(
                    f"{meter.source}: its objects have layout version {version}, and {_PERSISTENCE_VERSION} is what is "
                    "read. Save the file again with the current code of its authors."
                )
            return Record(name, (), state)
    raise _Misused


def _tensor(meter: Meter, args: tuple[object, ...]) -> Tensor:
    match args:
        case (Storage() as storage, int(offset), tuple(size), tuple(stride), *_):  # and what autograd wants
            return view(storage, offset, size, stride, meter)
    raise _Misused


def _parameter(_: Meter, args: tuple[object, ...]) -> Tensor:
    match args:
        case (Tensor() as data, bool(), _):
            return data
    raise _Misused


def _size(_: Meter, args: tuple[object, ...]) -> tuple[object, ...]:
    match args:
        case (tuple(lengths),):
            return lengths
    raise _Misused


def _device(_: Meter, args: tuple[object, ...]) -> str:
    match args:
        case (str(kind),):
            return kind
        case (str(kind), int(index)):
            return f"{kind}:{index}"
    raise _Misused


def _empty_dict(_: Meter, args: tuple[object, ...]) -> dict[object, object]:
    if args:
        raise _Misused
    return {}


def _set(meter: Meter, args: tuple[object, ...]) -> set[object]:
    """Make a set; protocols below 4 have no opcode for it."""
    match args:
        case ():
            return set()
        case (list(items),):
            return {meter.checked_key(item) for item in items}
    raise _Misused


def _object(_: Meter, args: tuple[object, ...]) -> Record:
    match args:
        case (Global(name=name), Global(name="builtins.object"), None):
            return Record(name)
    raise _Misused


def _encode(meter: Meter, args: tuple[object, ...]) -> bytes:
    """Make bytes; protocol 2 has no opcode for them."""
    match args:
        case (str(text), "latin1"):
            meter.spend("bytes", len(text))
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError as error:
                raise _Misused from error
    raise _Misused


def _no_bytes(_: Meter, args: tuple[object, ...]) -> bytes:
    if args:
        raise _Misused
    return b""


def _dtype(_: Meter, args: tuple[object, ...]) -> Record:
    return Record("numpy.dtype", args)


def _array(_: Meter, args: tuple[object, ...]) -> Record:
    """Make a record of an array, whose state will be (version, shape, dtype, order, bytes); no model needs them."""
    return Record("numpy.ndarray", args)


def _scalar(_: Meter, args: tuple[object, ...]) -> int | float | bool:
    match args:
        case (Record(name="numpy.dtype", args=(str(code), *_), state=state), bytes(data)) if code in _NUMPY_LAYOUTS:
            order = ">" if isinstance(state, tuple) and state[1:2] == (">",) else "<"
            layout = order + _NUMPY_LAYOUTS[code]
            if len(data) == struct.calcsize(layout):
                number: int | float | bool = struct.unpack(layout, data)[0]
                return number
    raise _Misused
