"""Pickles that want to execute, to take all memory, or never to end; each with what its refusal must say."""

from __future__ import annotations

import struct

COMMAND = "touch pwned"

# opcodes
MARK, POP, NONE, EMPTY_TUPLE, REDUCE, BUILD, NEWOBJ, NEWOBJ_EX = b"(", b"0", b"N", b")", b"R", b"b", b"\x81", b"\x92"
EMPTY_LIST, EMPTY_DICT, APPEND, SETITEM, TUPLE, TUPLE1, TUPLE2, TUPLE3 = (
    b"]",
    b"}",
    b"a",
    b"s",
    b"t",
    b"\x85",
    b"\x86",
    b"\x87",
)
PERSISTENT, STOP, EMPTY_SET, ADDITEMS, STACK_GLOBAL = b"Q", b".", b"\x8f", b"\x90", b"\x93"  # fmt: skip


def program(*parts: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + b"".join(parts) + STOP


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + data


def name(full: str) -> bytes:
    module, _, last = full.rpartition(".")
    return b"c" + f"{module}\n{last}\n".encode()


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def call(full: str, *args: bytes) -> bytes:
    return name(full) + MARK + b"".join(args) + TUPLE + REDUCE


def bytes_of(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def mapping(items: dict[str, bytes]) -> bytes:
    return EMPTY_DICT + b"".join(text(key) + value + SETITEM for key, value in items.items())


def blob(number: int) -> bytes:
    """Return the bytes that a storage of so many zeros is pickled as."""
    return _legacy(
        storage(integer(number)), EMPTY_LIST + text("0") + APPEND, struct.pack("<q", number) + bytes(4 * number)
    )


def persistent(state: bytes, *, class_name: str = "Generator") -> bytes:
    meta = {"type": text("class"), "version": b"K\x06", "module_src": text("import os; os.system('touch pwned')")}
    meta |= {"class_name": text(class_name), "state": state}
    return call("torch_utils.persistence._reconstruct_persistent_obj", mapping(meta))


def module(modules: bytes, **others: bytes) -> dict[str, bytes]:
    empty = {"_parameters": EMPTY_DICT, "_buffers": EMPTY_DICT, "_init_kwargs": EMPTY_DICT}
    return empty | others | {"_modules": modules}


CALLED = """
    os.system posix.system builtins.eval builtins.exec __builtin__.apply builtins.getattr builtins.__import__
    builtins.open subprocess.Popen subprocess.check_output runpy.run_path pydoc.locate operator.attrgetter
    functools.partial types.FunctionType importlib.import_module ctypes.CDLL webbrowser.open code.interact
    shutil.rmtree socket.socket pickle.loads torch.load torch.hub.load torch.jit.load
    torch.utils.cpp_extension.load_inline torch.classes.load_library torch._utils._import_dotted_name
    torch.serialization.load torch.fx.graph_module.reduce_graph_module
    torch.distributed.rpc.internal._internal_rpc_pickler numpy.load numpy.testing._private.utils.runstring pip.main
    dnnlib.util.get_obj_by_name torch_utils.persistence._src_to_module collections.namedtuple
    torch._tensor._rebuild_from_type_v2 copyreg.__newobj__ copyreg.add_extension sys.setrecursionlimit
""".split()


def executing() -> dict[str, tuple[bytes, str]]:
    """Return what would execute, in each way that a pickle has."""
    argument = text(COMMAND) + TUPLE1
    files = {f"call {full}": (program(call(full, text(COMMAND))), full.rpartition(".")[2]) for full in CALLED}
    chain = call("builtins.getattr", call("importlib.import_module", text("os")), text("system"))
    return files | {
        "INST": (program(MARK, text(COMMAND), b"ios\nsystem\n"), r"os\.system"),
        "OBJ": (program(MARK, name("os.system"), text(COMMAND), b"o"), r"os\.system"),
        "OBJ of a class": (program(MARK, name("their.Class"), text(COMMAND), b"o"), r"their\.Class"),
        "NEWOBJ": (program(name("os.system"), argument, NEWOBJ), r"os\.system"),
        "NEWOBJ_EX": (program(name("os.system"), argument, EMPTY_DICT, NEWOBJ_EX, protocol=4), r"os\.system"),
        "STACK_GLOBAL": (
            program(text("os"), text("system"), STACK_GLOBAL, argument, REDUCE, protocol=4),
            r"os\.system",
        ),
        "copyreg": (
            program(call("copyreg._reconstructor", name("subprocess.Popen"), name("builtins.object"), NONE)),
            r"subprocess\.Popen",
        ),
        "copyreg with another base": (
            program(call("copyreg._reconstructor", name("their.Class"), name("their.Base"), text(COMMAND))),
            "_reconstructor",
        ),
        "BUILD": (
            program(name("their.Class"), EMPTY_TUPLE, NEWOBJ, mapping({"__setstate__": name("os.system")}), BUILD),
            r"os\.system",
        ),
        "BUILD of a record": (
            program(name("their.Class"), EMPTY_TUPLE, NEWOBJ, mapping({"__class__": name("their.Evil")}), BUILD),
            "no checkpoint that is known.*got Record",
        ),
        "BUILD of a function": (program(name("torch.load"), EMPTY_DICT, BUILD), "gives a state"),
        "nested calls": (program(chain, argument, REDUCE), "getattr"),
        "call of what was called": (
            program(call("collections.OrderedDict"), argument, REDUCE),
            "no function but dict",
        ),
        "call of a record": (program(name("their.Class"), EMPTY_TUPLE, NEWOBJ, argument, REDUCE), "but Record"),
        "call without a tuple": (program(name("collections.OrderedDict"), EMPTY_LIST, REDUCE), "no tuple"),
        "dictionary of calls": (program(call("collections.OrderedDict", EMPTY_LIST)), "OrderedDict"),
        "extension": (program(b"\x82\x01"), "EXT1"),
        "text identity": (program(b"Psystem\n"), "PERSID"),
        "buffer": (program(b"\x97", protocol=5), "NEXT_BUFFER"),
        "protocol of the future": (program(NONE, protocol=9), "protocol 9"),
        "a call in a blob": (
            program(call("torch.storage._load_from_bytes", bytes_of(_legacy(call("posix.system", text(COMMAND)))))),
            r"posix\.system",
        ),
        "a blob in a blob": (
            program(
                call(
                    "torch.storage._load_from_bytes",
                    bytes_of(_legacy(call("torch.storage._load_from_bytes", bytes_of(blob(2))))),
                )
            ),
            "would call 'torch.storage._load_from_bytes'",
        ),
        "source code": (
            program(mapping({"G_ema": persistent(mapping(module(EMPTY_DICT)))})),
            "neither synthesis",
        ),
    }


def _legacy(tree: bytes, keys: bytes = EMPTY_LIST, storages: bytes = b"") -> bytes:
    """Return a torch file of the old format around a pickle's opcodes."""
    magic = program(b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little"))
    machine = program(mapping({"little_endian": b"\x88"}))
    return magic + program(b"M\xe9\x03") + machine + program(tree) + program(keys) + storages


def storage(number: bytes, *, kind: str = "torch.FloatStorage", key: str = "0") -> bytes:
    return MARK + text("storage") + name(kind) + text(key) + text("cpu") + number + NONE + TUPLE + PERSISTENT


def tensor(row: bytes, offset: int, size: list[int], stride: list[int]) -> bytes:
    """Return the opcodes of a tensor that looks into the storage that ``row`` leaves on the stack."""
    sizes, strides = (MARK + b"".join(map(integer, numbers)) + TUPLE for numbers in (size, stride))
    return call("torch._utils._rebuild_tensor_v2", row, integer(offset), sizes, strides, b"\x89", EMPTY_DICT)


def view(offset: int, size: list[int], stride: list[int]) -> bytes:
    """Return an old torch file with a tensor that looks so into a storage of four."""
    return _legacy(
        tensor(storage(b"K\x04"), offset, size, stride),
        keys=EMPTY_LIST + text("0") + APPEND,
        storages=struct.pack("<q4f", 4, 1, 2, 3, 4),
    )


def exhausting() -> dict[str, tuple[bytes, str]]:
    """Return what would take all memory or time."""
    laughs = EMPTY_TUPLE + b"".join(put(i) + get(i) + TUPLE2 for i in range(60))
    lists = EMPTY_LIST + b"".join(put(i) + POP + EMPTY_LIST + (get(i) + APPEND) * 2 for i in range(60))
    moduli = b"".join(integer(index * (2**61 - 1)) + NONE + SETITEM for index in range(1, 2000))
    row = call("torch.storage._load_from_bytes", bytes_of(blob(20_000))) + put(1)
    again = b"".join(tensor(get(1), 0, [20_000], [1]) + POP for _ in range(200))
    blobs = bytes_of(blob(20_000)) + put(1)
    reread = b"".join(call("torch.storage._load_from_bytes", get(1)) + POP for _ in range(200))
    deep = 300_000
    return {
        "memo of any index": (program(NONE, b"r\xff\xff\xff\xff"), "got NoneType"),
        "memo that was never filled": (program(b"j\xff\xff\xff\x7f"), "remembers nothing"),
        "laughs as a key": (program(EMPTY_DICT, laughs, NONE, SETITEM), "key of type tuple"),
        "laughs in a set": (program(EMPTY_SET, MARK, laughs, ADDITEMS, protocol=4), "key of type tuple"),
        "laughs": (program(lists), "got list"),
        "laughs as options": (
            program(mapping({"G_ema": persistent(mapping(module(EMPTY_DICT, _init_kwargs=mapping({"x": lists}))))})),
            "neither synthesis",
        ),
        "laughs as a size": (
            program(
                call(
                    "torch._utils._rebuild_tensor_v2",
                    call("torch.storage._load_from_bytes", bytes_of(blob(4))),
                    *(integer(0), laughs, integer(1) + TUPLE1, b"\x89", EMPTY_DICT),
                )
            ),
            "has a tensor of size",
        ),
        "frozen set": (program(MARK, b"\x91", protocol=4), "FROZENSET"),
        "keys of one hash": (program(EMPTY_DICT, moduli), "key of type int"),
        "keys that are numbers with a point": (
            program(EMPTY_DICT, b"G" + bytes(8), NONE, SETITEM),
            "key of type float",
        ),
        "long key": (program(EMPTY_DICT, text("k" * 2000), NONE, SETITEM), "key of type str"),
        "bytes without end": (program(b"\x8e" + struct.pack("<Q", 2**62), protocol=4), "bytes"),
        "text without end": (program(b"\x8d" + struct.pack("<Q", 2**62), protocol=4), "bytes of text"),
        "text of two gigabytes": (program(b"X\xff\xff\xff\x7f"), "bytes of text"),
        "byte array": (program(b"\x96" + struct.pack("<Q", 2**40), protocol=5), "BYTEARRAY8"),
        "long integer": (program(b"\x8b\xff\xff\xff\x7f"), "LONG4"),
        "integer of 200 bytes": (program(b"\x8a\xc8" + b"\x7f" * 200), "integer of 200"),
        "name without end": (program(b"c" + b"a" * 5000), "a name in it"),
        "long name": (program(text("a" * 200), text("b" * 200), STACK_GLOBAL, protocol=4), "401 characters"),
        "broken text": (program(b"X\x02\x00\x00\x00\xff\xfe"), "not utf-8"),
        "surrogates": (program(text("\ud800")), "not utf-8"),
        "million opcodes": (program(b"N0" * 600_000), "opcodes"),
        "million sets": (program(EMPTY_SET * 999_000, protocol=4), "got set"),
        "deep lists": (program(EMPTY_LIST * deep, APPEND * (deep - 1)), "got list"),
        "deep tuples": (program(NONE, TUPLE1 * deep), "got tuple"),
        "deep dictionaries": (program((EMPTY_DICT + b"K\x01") * deep, NONE, SETITEM * deep), "got|names"),
        "deep records": (
            program(name("a.B"), put(1), get(1) * deep, EMPTY_TUPLE, (NEWOBJ + TUPLE1) * deep, NEWOBJ),
            "got Record",
        ),
        "deep marks": (program(MARK * deep, NONE), "got NoneType"),
        "storage of an exabyte": (_legacy(storage(integer(2**58))), "bytes of storages"),
        "storage of a negative length": (_legacy(storage(integer(-5))), "-5 numbers"),
        "storage of objects": (_legacy(storage(b"K\x01", kind="torch.ObjectStorage")), "ObjectStorage"),
        "storage that is not there": (
            _legacy(storage(b"K\x04"), keys=EMPTY_LIST + text("0") + APPEND, storages=struct.pack("<q", 4)),
            "ends too early",
        ),
        "storage that is not listed": (_legacy(storage(b"K\x04")), "does not hold the storages"),
        "storage of another length": (
            _legacy(storage(b"K\x04"), EMPTY_LIST + text("0") + APPEND, struct.pack("<q", 2**60)),
            "another number of weights",
        ),
        "steps of zero": (view(0, [2**40], [0]), "a storage of 4"),
        "view beyond its storage": (view(0, [3], [2]), "a storage of 4"),
        "view that begins beyond": (view(4, [1], [1]), "a storage of 4"),
        "view from before": (view(-1, [2], [1]), "has a tensor"),
        "steps back": (view(3, [2], [-1]), "has a tensor"),
        "dimensions": (view(0, [1] * 500, [1] * 500), "has a tensor"),
        "empty and endless": (view(0, [0, 2**60], [1, 1]), "empty tensor"),
        "sizes that overflow": (view(0, [2**62, 2**62], [0, 0]), "a storage of 4"),
        "one storage in many tensors": (program(row, again), "more than [0-9]+ bytes"),
        "one blob read many times": (program(blobs, reread), "more than [0-9]+ bytes"),
        "array of objects": (
            program(call("numpy.core.multiarray.scalar", call("numpy.dtype", text("O8")), bytes_of(bytes(8)))),
            "multiarray.scalar",
        ),
        "parameter of a text": (
            program(call("torch._utils._rebuild_parameter", text("x"), b"\x88", NONE)),
            "parameter",
        ),
        "set of lists": (program(call("builtins.set", EMPTY_LIST + EMPTY_LIST + APPEND)), "key of type list"),
    }


def hostile_pickles() -> dict[str, tuple[bytes, str]]:
    return executing() | exhausting()
