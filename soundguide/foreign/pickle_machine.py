"""A machine for pickles that executes nothing: a pickle is a program, and here it can only put data together.

Objects become inert `Record`s. What the pickle calls must be among the functions that the machine was given; nothing is
ever imported. Python's own unpickler is not used even with such a list: one opcode makes its memo allocate gigabytes,
and tuples nested in keys make it hash for ever.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable, Mapping
from io import BytesIO

from soundguide.foreign.bounds import Meter
from soundguide.foreign.pickle_arguments import MAX_NAME_CHARS, PickleArguments
from soundguide.foreign.record import Global, Record

Function = Callable[[tuple[object, ...]], object]

_LAST_PROTOCOL = 5

_OPCODES = {opcode.code: opcode.name for opcode in pickletools.opcodes}
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_EMPTY: dict[bytes, Callable[[], object]] = {b"]": list, b"}": dict, b")": tuple, b"\x8f": set}
_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
_TEXTS = {b"\x8c": ("<B", "utf-8"), b"X": ("<I", "utf-8"), b"\x8d": ("<Q", "utf-8")}
_TEXTS |= {b"U": ("<B", "latin-1"), b"T": ("<I", "latin-1")}  # what Python 2 wrote
_BYTES = {b"C": "<B", b"B": "<I", b"\x8e": "<Q"}
_GETS = {b"h": "<B", b"j": "<I"}
_PUTS = {b"q": "<B", b"r": "<I"}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}

_MODERN_MODULES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
}
_DICTS = ("collections.OrderedDict", "dnnlib.util.EasyDict")
_STANDARD_CLASSES = ("argparse.Namespace", "builtins.object", *_DICTS)
"""The standard library's classes that checkpoints hold; any other name from there is an attack or a mistake."""


class PickleMachine:
    """Runs one pickle from where ``file`` stands to its end, protocols 2 to 5.

    ``functions``: what it may call, by full name. ``load_persistent``: from what stands for a storage to the storage;
    without it there can be none.
    """

    def __init__(
        self,
        file: BytesIO,
        meter: Meter,
        *,
        functions: Mapping[str, Function],
        load_persistent: Callable[[object], object] | None = None,
    ) -> None:
        self._read = PickleArguments(file, meter)
        self._meter = meter
        self._functions = functions
        self._load_persistent = load_persistent
        self._stack: list[object] = []
        self._outer: list[list[object]] = []  # the stacks below each mark
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        """Return what the pickle describes; raise `InvalidCheckpoint` for one that is damaged or wants too much."""
        while (code := self._read.take(1)) != b".":
            self._meter.spend("opcodes")
            self._literal(code)
        return self._pop()

    def _literal(self, code: bytes) -> None:
        if code in _CONSTANTS:
            self._stack.append(_CONSTANTS[code])
        elif code in _EMPTY:
            self._stack.append(_EMPTY[code]())
        elif code in _NUMBERS:
            self._stack.append(self._read.number(_NUMBERS[code]))
        elif code in _TEXTS:
            self._stack.append(self._read.text(*_TEXTS[code]))
        elif code in _BYTES:
            self._stack.append(self._read.bytes(_BYTES[code]))
        elif code == b"\x8a":  # LONG1
            self._stack.append(self._read.long())
        elif code == b"\x80":
            if (protocol := self._read.number("<B")) > _LAST_PROTOCOL:
                raise self._meter.refusal(f"is a pickle of protocol {protocol}, and only those to 5 are known")
        elif code == b"\x95":  # FRAME: how much may be read at once
            self._read.number("<Q")
        else:
            self._memory(code)

    def _memory(self, code: bytes) -> None:
        if code in _PUTS:
            self._memo[self._read.number(_PUTS[code])] = self._top()
        elif code == b"\x94":  # MEMOIZE
            self._memo[len(self._memo)] = self._top()
        elif code in _GETS:
            index = self._read.number(_GETS[code])
            if index not in self._memo:
                raise self._meter.damaged_pickle(f"it remembers nothing under {index}")
            self._stack.append(self._memo[index])
        elif code == b"(":
            self._outer.append(self._stack)
            self._stack = []
        elif code == b"1":  # POP_MARK
            self._items()
        elif code == b"0":  # POP takes a mark where nothing lies above it
            if self._stack:
                self._stack.pop()
            else:
                self._items()
        else:
            self._container(code)

    def _container(self, code: bytes) -> None:
        if code in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[code])]
            self._stack.append(tuple(reversed(items)))
        elif code == b"t":
            items = self._items()  # first, for it changes which stack is the present one
            self._stack.append(tuple(items))
        elif code == b"a":
            self._append([self._pop()])
        elif code == b"e":
            self._append(self._items())
        elif code == b"s":
            value, key = self._pop(), self._pop()
            self._set_items([key, value])
        elif code == b"u":
            self._set_items(self._items())
        elif code == b"\x90":  # ADDITEMS
            items = self._items()
            target = self._top()
            if not isinstance(target, set):
                raise self._meter.damaged_pickle("it adds items to what is no set")
            target.update(self._meter.checked_key(item) for item in items)
        else:
            self._object(code)

    def _object(self, code: bytes) -> None:
        match code:
            case b"c":
                self._stack.append(self._global(self._read.line(), self._read.line()))
            case b"\x93":  # STACK_GLOBAL
                name, module = self._pop(), self._pop()
                if not isinstance(module, str) or not isinstance(name, str):
                    raise self._meter.damaged_pickle("a name in it is no text")
                self._stack.append(self._global(module, name))
            case b"R":
                args, function = self._pop(), self._pop()
                self._stack.append(self._call(function, args))
            case b"\x81":  # NEWOBJ
                args, cls = self._pop(), self._pop()
                self._stack.append(self._new(cls, args))
            case b"\x92":  # NEWOBJ_EX
                options, args, cls = self._pop(), self._pop(), self._pop()
                self._stack.append(self._new(cls, (*args, options) if isinstance(args, tuple) else None))
            case b"b":
                state = self._pop()
                self._build(state)
            case b"Q":  # BINPERSID
                if self._load_persistent is None:
                    raise self._meter.damaged_pickle("it names a storage outside itself, and there is none")
                self._stack.append(self._load_persistent(self._pop()))
            case b"i":  # INST
                raise self._meter.refusal(f"its pickle would call {f'{self._read.line()}.{self._read.line()}'!r:.120}")
            case b"o":  # OBJ
                called = next(iter(self._items()), None)
                raise self._meter.refusal(f"its pickle would call {_named(called)}")
            case _:
                what = _OPCODES.get(code.decode("latin-1"), repr(code))
                raise self._meter.refusal(f"its pickle uses the opcode {what}, which no checkpoint needs")

    def _global(self, module: str, name: str) -> Global:
        full = f"{_MODERN_MODULES.get(module, module)}.{name}"
        if len(full) > MAX_NAME_CHARS:
            raise self._meter.damaged_pickle(f"a name in it has {len(full)} characters")
        standard = full.partition(".")[0] in sys.stdlib_module_names
        if standard and full not in self._functions and full not in _STANDARD_CLASSES:
            raise self._meter.refusal(f"its pickle names {full!r}, which no checkpoint needs")
        return Global(full)

    def _call(self, function: object, args: object) -> object:
        if not isinstance(args, tuple):
            raise self._meter.damaged_pickle("it calls with what is no tuple")
        if not isinstance(function, Global) or function.name not in self._functions:
            raise self._meter.refusal(f"its pickle would call {_named(function)}, which is not known to be harmless")
        return self._functions[function.name](args)

    def _new(self, cls: object, args: object) -> object:
        if not isinstance(cls, Global) or not isinstance(args, tuple):
            raise self._meter.damaged_pickle("it makes an object of what is no class")
        return {} if cls.name in _DICTS else Record(cls.name, args)

    def _build(self, state: object) -> None:
        target = self._top()
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # what torch attaches to dictionaries of weights is not needed
            raise self._meter.damaged_pickle("it gives a state to what has none")

    def _append(self, items: list[object]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise self._meter.damaged_pickle("it appends to what is no list")
        target.extend(items)

    def _set_items(self, items: list[object]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            raise self._meter.damaged_pickle("it puts items into what is no dictionary")
        target.update((self._meter.checked_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def _items(self) -> list[object]:
        """Return what lies above the last mark, and take it and the mark away."""
        if not self._outer:
            raise self._meter.damaged_pickle("a mark is missing")
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _top(self) -> object:
        if not self._stack:
            raise self._meter.damaged_pickle("its stack is empty")
        return self._stack[-1]

    def _pop(self) -> object:
        if not self._stack:
            raise self._meter.damaged_pickle("its stack is empty")
        return self._stack.pop()


def _named(thing: object) -> str:
    return repr(thing.name) if isinstance(thing, Global) else f"what is no function but {type(thing).__name__}"
