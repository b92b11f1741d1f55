"""Plain manifests of clips: CSV, JSON Lines or Parquet, checked as a whole."""

import json
import math
import posixpath

import pyarrow as pa

from soundguide.clips.tables import SEPARATOR
from soundguide.errors import InvalidManifest
from soundguide.manifest import read_table, resolve_uris
from soundguide.storage import Storage

MEDIA_COLUMNS = ("video", "audio", "image")
_TIMES = ("start_seconds", "end_seconds")
_COLUMNS = ("id", *MEDIA_COLUMNS, "label", "text", "split", "source_id", *_TIMES)
_WANTED = (("id",), ("video", "audio"), ("label", "text"))


def read_rows(uri: str, storage: Storage) -> dict[str, list[object]]:
    """Return the columns of `tables.REQUEST_SCHEMA`, all but ``row``, of a manifest; ``split`` is as it was given.

    Raises:
        InvalidManifest: it cannot be read, has no rows, lacks a column, has an unknown one, repeats or omits an id, or
            has a time that is no number.
    """
    table = read_table(uri, storage, row_is="clip", known=_COLUMNS, wanted=_WANTED, described=", ".join(_COLUMNS))
    return _columns(table, uri)


def _columns(table: pa.Table, uri: str) -> dict[str, list[object]]:
    blank = pa.array([""] * table.num_rows, pa.string())
    given = {name: table[name].fill_null("") if name in table.column_names else blank for name in _COLUMNS}
    base = posixpath.dirname(uri) or "."
    media = {name: resolve_uris(given[name], base).to_pylist() for name in MEDIA_COLUMNS}
    labels = [_labels(cell) for cell in given["label"].to_pylist()]
    texts = [text.strip() for text in given["text"].to_pylist()]
    sources = zip(given["source_id"].to_pylist(), media["video"], media["audio"], given["id"].to_pylist(), strict=True)
    return {
        "id": given["id"].to_pylist(),
        "source_id": [name or video or audio or id for name, video, audio, id in sources],
        **media,
        "labels": [
            SEPARATOR.join(names or [text.replace(SEPARATOR, " ")]) for names, text in zip(labels, texts, strict=True)
        ],
        "text": [text or ", ".join(names) for names, text in zip(labels, texts, strict=True)],
        "split": given["split"].to_pylist(),
        **{name: _numbers(given[name], name, given["id"], uri) for name in _TIMES},
        "file_seconds": [0.0] * table.num_rows,
    }


def _labels(cell: str) -> list[str]:
    """Return the labels of ``a|b``, or of a JSON list of texts."""
    cell = cell.strip()
    if cell.startswith("["):
        try:
            names = json.loads(cell)
        except ValueError:
            names = None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return list(dict.fromkeys(name.strip() for name in names if name.strip()))
    return list(dict.fromkeys(name.strip() for name in cell.split(SEPARATOR) if name.strip()))


def _numbers(cells: pa.ChunkedArray, name: str, ids: pa.ChunkedArray, uri: str) -> list[object]:
    numbers: list[object] = []
    for cell, id in zip(cells.to_pylist(), ids.to_pylist(), strict=True):
        try:
            value = float(cell or 0)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0:
            raise InvalidManifest(
                f"the manifest {uri} has {name} {cell!r:.40} in the row {id!r}; write seconds, such as 12.5, or nothing"
            )
        numbers.append(value)
    return numbers
