"""The Arrow tables of clip preparation: requests, decoded clips and `ClipPair` rows, with explicit schemas.

A clip that failed carries ``status="error"``, ``error`` (what was wrong) and ``error_kind`` (its class). Its other
columns are blank, never null: empty strings, bytes and lists, zeros. Only rows with ``status="ok"`` are samples.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from soundguide.records import Row

SEPARATOR = "|"
"""Stands between the labels of a request; no name of a class has it."""

REQUEST_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("source_id", pa.string()),
        ("video", pa.string()),
        ("audio", pa.string()),
        ("image", pa.string()),
        ("labels", pa.string()),
        ("text", pa.string()),
        ("split", pa.string()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("file_seconds", pa.float64()),
    ]
)
"""What the readers of `clips.sources` return.

``row`` counts from 1. ``source_id`` names the recording. ``labels`` are joined by `SEPARATOR`. ``start_seconds`` and
``end_seconds`` lie in the file; an end of 0 is not given. ``file_seconds``: how long the file must be at most to be the
clip that was meant; 0 is no matter.
"""

_CARRIED = [
    ("id", pa.string()),
    ("source_id", pa.string()),
    ("split", pa.string()),
    ("labels", pa.list_(pa.string())),
    ("text", pa.string()),
]
_MEDIA = [
    ("sound", pa.large_binary()),  # 64-bit offsets: a block of clips may pass 2 GiB
    ("sample_rate", pa.int64()),
    ("frame", pa.large_binary()),
    ("has_frame", pa.bool_()),
]
_OUTCOME = [("status", pa.string()), ("error", pa.string()), ("error_kind", pa.string())]

DECODED_SCHEMA = pa.schema([*_CARRIED, *_MEDIA, *_OUTCOME])
"""What `clips.decode.ClipDecoder` returns: ``sound`` is FLAC, mono, ``frame`` PNG or JPEG, empty without a picture."""


def clip_schema(embed_dim: int) -> pa.Schema:
    """Return the schema of `ClipPair` rows, the shards of a prepared set, with embeddings of width E = `embed_dim`.

    Beside the columns of `DECODED_SCHEMA`: ``image_embedding`` and ``text_embedding`` ``[E]`` of unit norm (all zeros
    where there is no frame, or an error), ``augmented_texts`` and their ``augmented_text_embeddings`` ``[K, E]``.
    """
    embedding = pa.list_(pa.float32(), embed_dim)
    embeddings = [
        ("image_embedding", embedding),
        ("text_embedding", embedding),
        ("augmented_texts", pa.list_(pa.string())),
        ("augmented_text_embeddings", pa.list_(embedding)),
    ]
    return pa.schema([*_CARRIED, *_MEDIA, *embeddings, *_OUTCOME])


def clip_table(
    decoded: pa.Table,
    *,
    image_embeddings: NDArray[np.float32],
    text_embeddings: NDArray[np.float32],
    augmented_texts: Sequence[Sequence[str]],
    augmented_text_embeddings: NDArray[np.float32],
) -> pa.Table:
    """Return N decoded rows with their embeddings, by `clip_schema`.

    ``image_embeddings``, ``text_embeddings``: ``[N, E]``, zeros where there is none. ``augmented_text_embeddings``:
    one row ``[E]`` for each of all the augmented texts, clip after clip.
    """
    embed_dim = image_embeddings.shape[1]
    offsets = np.concatenate([[0], np.cumsum([len(texts) for texts in augmented_texts])]).astype(np.int32)
    columns = {
        **{name: decoded[name] for name in decoded.column_names},
        "image_embedding": _fixed(image_embeddings),
        "text_embedding": _fixed(text_embeddings),
        "augmented_texts": pa.array([list(texts) for texts in augmented_texts], pa.list_(pa.string())),
        "augmented_text_embeddings": pa.ListArray.from_arrays(pa.array(offsets), _fixed(augmented_text_embeddings)),
    }
    schema = clip_schema(embed_dim)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def fixed_rows(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float32]:
    """Return an embedding column as ``[N, E]``."""
    embed_dim = column.type.list_size
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    rows: NDArray[np.float32] = flat.flatten().to_numpy(zero_copy_only=False).reshape(-1, embed_dim)
    return rows


def decoded_table(rows: Iterable[Row]) -> pa.Table:
    """Return rows as a table of `DECODED_SCHEMA`."""
    return pa.Table.from_pylist(list(rows), schema=DECODED_SCHEMA)


def blank_media() -> Row:
    """Return the columns of a clip that has neither sound nor frame, and no verdict yet."""
    return {
        "sound": b"",
        "sample_rate": 0,
        "frame": b"",
        "has_frame": False,
        "status": "ok",
        "error": "",
        "error_kind": "",
    }


def split_labels(labels: str) -> list[str]:
    """Return the labels of a request, in order, each once."""
    return list(dict.fromkeys(filter(None, (label.strip() for label in labels.split(SEPARATOR)))))


def stable_hash(text: str) -> int:
    """Return 64 bits that name a text, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def _fixed(rows: NDArray[np.float32]) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(rows, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
