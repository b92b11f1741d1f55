"""Plain manifests of clips: CSV, JSON Lines or Parquet, checked as a whole."""

import csv
import difflib
import json
import math
import posixpath

import pyarrow as pa

from soundguide.clips.tables import SEPARATOR
from soundguide.errors import InvalidManifest, SourceNotFound
from soundguide.manifest import check_ids, line_numbers, read_csv, read_jsonl, read_parquet, resolve_uris
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
    try:
        data = storage.read_bytes(uri)
    except SourceNotFound as exc:
        raise InvalidManifest(f"the manifest cannot be read: {exc}") from exc
    suffix = posixpath.splitext(uri.lower())[1]
    readers = {".csv": read_csv, ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".parquet": read_parquet}
    if suffix not in readers:
        raise InvalidManifest(f"the manifest {uri} ends in {suffix!r}; write it as .csv, .jsonl or .parquet")
    try:
        table = readers[suffix](data)
    except InvalidManifest as exc:
        raise InvalidManifest(f"the manifest {uri} {exc}") from exc
    except (pa.ArrowException, UnicodeError, OSError, csv.Error) as exc:
        raise InvalidManifest(
            f"the manifest {uri} cannot be read as {suffix[1:]} ({exc}); correct it, or export it again as UTF-8"
        ) from exc
    _check_columns(table.column_names, uri)
    if table.num_rows == 0:
        raise InvalidManifest(f"the manifest {uri} has no rows; write one row per clip below the column names")
    check_ids(table["id"], uri, lambda: line_numbers(data, suffix))
    return _columns(table, uri)


def _check_columns(names: list[str], uri: str) -> None:
    unknown = []
    for name in sorted(set(names) - set(_COLUMNS)):
        near = difflib.get_close_matches(name.lower(), _COLUMNS, n=1)
        unknown.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    if unknown:  # first: a misspelt column is why another is missing
        raise InvalidManifest(
            f"the manifest {uri} has unknown columns: {', '.join(unknown)}. Rename or remove them; known are "
            f"{', '.join(_COLUMNS)}"
        )
    for wanted in _WANTED:
        if not set(wanted) & set(names):
            raise InvalidManifest(
                f"the manifest {uri} lacks the column {' or '.join(wanted)}; it has {', '.join(names) or 'none'}. "
                "Add it to the header and to every row"
            )


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
