"""The name of a song by its content, in constant memory."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

_CHUNK_BYTES = 4 * 2**20


def hash_file(file: BinaryIO) -> str:
    """Return the SHA-256 of a whole file, and go back to its start."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()
