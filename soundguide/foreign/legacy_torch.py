"""Files as torch wrote them before version 1.6: pickles one after another, then the bytes of all storages."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

from soundguide.foreign.bounds import Meter
from soundguide.foreign.pickle_arguments import PickleArguments
from soundguide.foreign.pickle_functions import checkpoint_functions, misused
from soundguide.foreign.pickle_machine import Function, PickleMachine
from soundguide.foreign.record import Global
from soundguide.foreign.tensors import Storage, new_storage

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_MAGIC_PICKLE = b"\x8a\x0a" + _MAGIC_NUMBER.to_bytes(10, "little") + b"."
_MAGIC_STARTS = (2, 11)  # after the protocol, and after the frame that later protocols have
_PROTOCOL_VERSION = 1001


def is_legacy_torch(data: bytes) -> bool:
    """Tell whether a file begins like one of the old format."""
    return any(data.startswith(_MAGIC_PICKLE, start) for start in _MAGIC_STARTS)


def read_legacy_torch(data: bytes, meter: Meter, *, functions: Mapping[str, Function]) -> object:
    """Return what a file of the old format holds; raise `InvalidCheckpoint` for a damaged or hostile one."""
    file = BytesIO(data)

    def plain() -> object:
        return PickleMachine(file, meter, functions={}).run()

    if plain() != _MAGIC_NUMBER or plain() != _PROTOCOL_VERSION:
        raise meter.refusal(f"is no torch file of protocol {_PROTOCOL_VERSION}")
    match plain():
        case {"little_endian": True}:
            pass
        case _:
            raise meter.refusal("does not say that its numbers are little-endian, the only ones that are read")
    storages: dict[str, Storage] = {}

    def load_persistent(identity: object) -> object:
        match identity:
            case ("module", Global() as cls, *_):  # a class with its source code, which nobody needs
                return cls
            case ("storage", kind, str(key), str(), int(num), None):
                storage = storages[key] if key in storages else new_storage(kind, num, meter)
                return storages.setdefault(key, storage)
        raise meter.damaged_pickle("it names a storage in an unknown way")

    tree = PickleMachine(file, meter, functions=functions, load_persistent=load_persistent).run()
    keys = plain()
    if not isinstance(keys, list) or len(keys) != len(storages) or {*map(meter.checked_key, keys)} != {*storages}:
        raise meter.refusal("does not hold the storages that it names")
    read = PickleArguments(file, meter)
    for key in keys:
        storage = storages[key]
        if read.number("<q") != storage.flat.numel():
            raise meter.refusal(f"holds another number of weights in storage {key!r:.80} than it says")
        storage.fill(read.take(storage.num_bytes))
    return tree


def blob_functions(meter: Meter) -> dict[str, Function]:
    """Return what may be called in a pickle that stands alone: its storages are small torch files, inside bytes."""
    name = "torch.storage._load_from_bytes"
    functions = checkpoint_functions(meter)

    def load_from_bytes(args: tuple[object, ...]) -> Storage:
        match args:
            case (bytes(data),):
                storage = read_legacy_torch(data, meter, functions=functions)  # no such files within such files
                if isinstance(storage, Storage):
                    return storage
        raise misused(name, args, meter)

    return {**functions, name: load_from_bytes}
