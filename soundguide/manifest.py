"""Manifests: tables of edit requests in CSV, JSON Lines or Parquet, checked as a whole before any work starts."""

import csv
import difflib
import io
import json
import posixpath
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from soundguide.config import EditSettings
from soundguide.errors import InvalidManifest, SourceNotFound
from soundguide.storage import Storage, resolve_uri

URI_COLUMNS = ("audio", "image", "latent")
OVERRIDES = tuple(EditSettings.model_fields)
_COLUMNS = ("id", *URI_COLUMNS, "seed", "note", *OVERRIDES)
_WANTED = (("id",), ("audio", "text"), ("image", "seed", "latent"))
_MAX_LISTED = 200  # repeated ids shown; the message must stay readable when a million rows share one


def read_manifest(uri: str, storage: Storage) -> pa.Table:
    """Read a manifest and check what concerns it as a whole.

    Columns: ``id``, ``audio`` (or ``text``), at least one of ``image``, ``seed`` and ``latent``, and any field of
    `EditSettings` as an override of that row; ``note`` is for the contact sheet. Empty cells are not given. Returns
    ``row`` (int64, counts from 1) and strings, ``""`` where nothing is given; relative URIs are resolved against the
    manifest's folder. Values are checked per row by `stages.EditPreparer`, not here.

    Raises:
        InvalidManifest: it cannot be read, has no rows, lacks a column, has an unknown one, or repeats or omits an id.
    """
    table = read_table(
        uri,
        storage,
        row_is="edit",
        known=_COLUMNS,
        wanted=_WANTED,
        described=f"{', '.join(_COLUMNS[:6])} and the settings {', '.join(OVERRIDES)}",
    )
    return _normalise(table, base=posixpath.dirname(uri) or ".")


def read_table(
    uri: str, storage: Storage, *, row_is: str, known: Sequence[str], wanted: Sequence[Sequence[str]], described: str
) -> pa.Table:
    """Read a table of texts, null where nothing is given, whose columns are ``known`` and whose ids are unique.

    ``row_is``: what one row describes. ``wanted``: of each group of names at least one must be a column.
    ``described``: the known columns as a message tells them. Raises `InvalidManifest` as `read_manifest` does.
    """
    table = read_cells(uri, storage)
    _check_columns(table.column_names, uri, known=known, wanted=wanted, described=described)
    if table.num_rows == 0:
        raise InvalidManifest(f"the manifest {uri} has no rows; write one row per {row_is} below the column names")
    _check_ids(table["id"], uri, lambda: _line_numbers(storage.read_bytes(uri), _suffix(uri)))
    return table


def read_cells(uri: str, storage: Storage) -> pa.Table:
    """Read any CSV, JSON Lines or Parquet as texts, null where nothing is given. Raises `InvalidManifest`."""
    try:
        data = storage.read_bytes(uri)
    except SourceNotFound as exc:
        raise InvalidManifest(f"the manifest cannot be read: {exc}") from exc
    suffix = _suffix(uri)
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".parquet": _read_parquet}
    if suffix not in readers:
        raise InvalidManifest(f"the manifest {uri} ends in {suffix!r}; write it as .csv, .jsonl or .parquet")
    if not data.strip():
        raise InvalidManifest(f"the manifest {uri} is empty ({len(data)} bytes); write it, or name another file")
    try:
        return readers[suffix](data)
    except InvalidManifest as exc:
        raise InvalidManifest(f"the manifest {uri} {exc}") from exc
    except (pa.ArrowException, UnicodeError, OSError, csv.Error) as exc:
        raise InvalidManifest(
            f"the manifest {uri} cannot be read as {suffix[1:]} ({exc}); correct it, or export it again"
            + ("" if suffix == ".parquet" else " as UTF-8")
        ) from exc


def _suffix(uri: str) -> str:
    return posixpath.splitext(uri.lower())[1]


def write_manifest(table: pa.Table, uri: str, storage: Storage) -> None:
    """Write what `read_manifest` returned as Parquet, atomically."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    storage.write_bytes(uri, buffer.getvalue().to_pybytes())


def missing_rows(earlier: pa.Table, table: pa.Table) -> list[str]:
    """Return the ids of rows of `earlier` that `table` no longer has with the same content, in no matter what order."""
    names = sorted({*earlier.column_names, *table.column_names} - {"row", "note"})
    gone = pc.invert(pc.is_in(_contents(earlier, names), value_set=_contents(table, names)))
    return [str(id) for id in earlier["id"].filter(gone).to_pylist()]


def _contents(table: pa.Table, names: list[str]) -> pa.ChunkedArray:
    """Return each row as one string, equal where all columns are."""
    blank = pa.scalar("", pa.large_string())
    columns = [table[name].cast(pa.large_string()) if name in table.column_names else blank for name in names]
    return pc.binary_join_element_wise(*columns, pa.scalar("\x1f", pa.large_string()))


def _read_csv(data: bytes) -> pa.Table:
    data = data.removeprefix(b"\xef\xbb\xbf")
    names = [name.strip() for name in next(csv.reader(io.StringIO(data[: 1 << 20].decode("utf-8", "replace"))), [])]
    _check_repeated_names(names)
    return pyarrow.csv.read_csv(
        pa.BufferReader(data),
        read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=1, block_size=1 << 24),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )


def _read_jsonl(data: bytes) -> pa.Table:
    # Not Arrow's reader: one column may mix numbers and texts, and a bad value concerns its row alone.
    rows: list[dict[str, object]] = []
    names: dict[str, None] = {}
    for line_number, line in enumerate(data.decode("utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise InvalidManifest(f"has no JSON object in line {line_number} ({exc}); write one per line") from exc
        if not isinstance(row, dict):
            raise InvalidManifest(f"has no JSON object in line {line_number} (got {line:.60}); write one per line")
        names.update(dict.fromkeys(row))
        rows.append(row)
    columns = {name: pa.array([_as_text(row.get(name)) for row in rows], pa.string()) for name in names}
    return pa.table(columns)


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def _read_parquet(data: bytes) -> pa.Table:
    table = pq.read_table(pa.BufferReader(data))
    _check_repeated_names(table.column_names)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_nested(column.type):
            raise InvalidManifest(f"has the column {name!r} of type {column.type}; write text or numbers")
    return table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))


def _check_repeated_names(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidManifest(f"has several columns of the name {', '.join(map(repr, repeated))}; keep one of each")


def _check_columns(
    names: list[str], uri: str, *, known: Sequence[str], wanted: Sequence[Sequence[str]], described: str
) -> None:
    """Refuse unknown columns first: a misspelt one is why another is missing."""
    unknown = []
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name.lower(), known, n=1)
        unknown.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    if unknown:
        raise InvalidManifest(
            f"the manifest {uri} has unknown columns: {', '.join(unknown)}. Rename or remove them; known are "
            f"{described}"
        )
    for group in wanted:
        if not set(group) & set(names):
            raise InvalidManifest(
                f"the manifest {uri} lacks the column {' or '.join(group)}; it has {', '.join(names) or 'none'}. "
                "Add it to the header and to every row"
            )


def _check_ids(ids: pa.ChunkedArray, uri: str, line_numbers: Callable[[], list[int]]) -> None:
    ids = ids.fill_null("")
    counts = pc.value_counts(ids)
    bad = counts.field("values").filter(
        pc.or_(pc.greater(counts.field("counts"), 1), pc.equal(counts.field("values"), ""))
    )
    if not len(bad):
        return
    lines = line_numbers()
    found: dict[str, list[int]] = {}
    for index in pc.indices_nonzero(pc.is_in(ids, value_set=bad)).to_pylist():
        found.setdefault(ids[index].as_py(), []).append(lines[index] if index < len(lines) else index + 1)
    listed = [f"{id!r} in lines {_listed(numbers)}" for id, numbers in list(found.items())[:_MAX_LISTED]]
    more = f" and {len(found) - _MAX_LISTED} more" if len(found) > _MAX_LISTED else ""
    raise InvalidManifest(
        f"the manifest {uri} repeats or leaves out ids: {'; '.join(listed)}{more}. Give every row an id of its own"
    )


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:20]))
    return shown if len(numbers) <= 20 else f"{shown} and {len(numbers) - 20} more"


def _line_numbers(data: bytes, suffix: str) -> list[int]:
    """Return the line of the file where each row starts (Parquet: the row's number); slow, for messages only."""
    if suffix == ".parquet":
        return []
    text = data.decode("utf-8-sig", "replace")
    if suffix != ".csv":
        return [number for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    reader = csv.reader(io.StringIO(text, newline=""))
    starts, end = [], 0
    for cells in reader:
        if cells:  # Arrow skips empty lines
            starts.append(end + 1)
        end = reader.line_num
    return starts[1:]


def _normalise(table: pa.Table, *, base: str) -> pa.Table:
    names = ["id", *URI_COLUMNS, "seed", *(name for name in ("note", *OVERRIDES) if name in table.column_names)]
    blank = pa.repeat("", table.num_rows)
    columns = [table[name].fill_null("") if name in table.column_names else blank for name in names]
    columns = [resolve_uris(c, base) if name in URI_COLUMNS else c for name, c in zip(names, columns, strict=True)]
    return pa.table([pa.array(range(1, table.num_rows + 1), pa.int64()), *columns], ["row", *names])


def resolve_uris(uris: pa.ChunkedArray | pa.Array, base: str) -> pa.ChunkedArray | pa.Array:
    """Make relative URIs absolute; each distinct one is worked out once."""
    encoded = uris.dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    distinct = [uri and resolve_uri(uri, base=base) for uri in encoded.dictionary.to_pylist()]
    return pa.array(distinct, pa.string()).take(encoded.indices)
