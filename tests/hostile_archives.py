"""Files that lie about what is in them: archives, networks of wrong shapes, and what is cut short."""

from __future__ import annotations

import io
import struct
import zipfile

import torch
from foreign_files import saved
from hostile_pickles import COMMAND, call, mapping, program, storage, tensor, text

PLAIN = program(mapping({"g_ema": tensor(storage(b"K\x04").replace(b"NtQ", b"tQ"), 0, [4], [1])}))
"""The pickle of an archive with one tensor of four numbers."""
NUMBERS = struct.pack("<4f", 1, 2, 3, 4)


def archive(entries: list[tuple[str, bytes]], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for path, data in entries:
            made.writestr(zipfile.ZipInfo(path), data, compress_type=compression)
    return file.getvalue()


def plain(*others: tuple[str, bytes], numbers: bytes = NUMBERS, pickled: bytes = PLAIN) -> bytes:
    return archive([("a/data.pkl", pickled), ("a/data/0", numbers), *others])


def renamed(data: bytes, old: str, new: str) -> bytes:
    assert len(old) == len(new)
    return data.replace(old.encode(), new.encode())


def hostile_archives() -> dict[str, tuple[bytes, str]]:
    twice = renamed(plain(("a/data/1", NUMBERS)), "a/data/1", "a/data/0")
    encrypted = bytearray(plain())
    encrypted[encrypted.rindex(b"PK\x01\x02") + 8] |= 1
    huge = bytearray(plain())
    directory = huge.rindex(b"PK\x01\x02")
    huge[directory + 20 : directory + 28] = struct.pack("<2L", 2**31, 2**31)
    many = archive([(f"a/{number:06}", b"") for number in range(80_000)])
    bomb = archive([("a/data.pkl", PLAIN), ("a/data/0", bytes(50 * 2**20))], compression=zipfile.ZIP_DEFLATED)
    return {
        "zip with a call": (plain(pickled=program(call("posix.system", text(COMMAND)))), r"posix\.system"),
        "zip that leaves its folder": (plain(("a/../../pwned", b"x")), "file named 'a/../../pwned'"),
        "zip from the root": (plain(("/tmp/pwned", b"x")), "file named '/tmp/pwned'"),
        "zip with backslashes": (plain(("a/..\\pwned", b"x")), "file named"),
        "zip with two folders": (plain(("b/data.pkl", PLAIN)), "twice|2 folders"),
        "zip with one name twice": (twice, "'data/0' twice"),
        "zip bomb": (bomb, "compressed"),
        "zip encrypted": (bytes(encrypted), "encrypted"),
        "zip of two gigabytes": (bytes(huge), "bytes in its files|cannot be read"),
        "zip of many files": (many, "directory of more than"),
        "zip of nothing": (b"PK\x03\x04" + bytes(200), "cannot be read"),
        "zip of other things": (archive([("a/readme.txt", b"hello")]), "nothing under 'data.pkl'"),
        "zip of big-endian numbers": (plain(("a/byteorder", b"big")), "byte order b'big'"),
        "zip with too few numbers": (plain(numbers=NUMBERS[:8]), "8 bytes for a storage of 16"),
        "zip with too many numbers": (plain(numbers=NUMBERS * 2), "32 bytes for a storage of 16"),
        "zip without its numbers": (archive([("a/data.pkl", PLAIN)]), "0 bytes for a storage of 16"),
        "zip with a wrong checksum": (plain().replace(NUMBERS, NUMBERS[::-1]), "cannot be read"),
        "zip with a blob": (
            plain(pickled=program(call("torch.storage._load_from_bytes", text("x")))),
            "would call 'torch.storage._load_from_bytes'",
        ),
        "not what was asked for": (plain(), r"got the names \['g_ema'\]"),
        "safetensors that lie": (struct.pack("<Q", 2**60) + b"{" + bytes(40), "no safetensors"),
        "safetensors of many tensors": (struct.pack("<Q", 90 * 2**20) + b"{" + bytes(40), "94371840 bytes"),
        "one number": (program(b"K\x05"), "got int"),
        "nothing": (b"", "empty"),
        "words": (b"These are not the weights that you are looking for.", "begins with b'These ar'"),
        "web page": (b"\n<html><body>404</body></html>", "web page"),
        "half a file": (saved({"g_ema": torch.ones(3)})[:-200], "cannot be read"),
        "half an old file": (saved({"g_ema": torch.ones(3)}, zipped=False)[:-6], "ends too early"),
        "half a pickle": (program(mapping({"G_ema": text("x")}))[:-5], "ends too early"),
    }
