"""The Arrow tables between prepare, manipulate and finish: explicit schemas, the same for good rows and bad ones.

A row that failed carries ``error`` (what was wrong) and ``error_kind`` (the class of it); its other columns are blank,
never null, and the later stages pass it on untouched. ``request`` is the JSON of the `EditRequest`, or of the raw row
when it never became one.
"""

import json
from collections.abc import Iterable

import pyarrow as pa

from soundguide.config import EditSettings
from soundguide.errors import Quarantined
from soundguide.records import EditResult, ManipulatedEdit, PreparedEdit, Row, Status

_CARRIED = [("id", pa.string()), ("request", pa.string()), ("error", pa.string()), ("error_kind", pa.string())]
_MEASURES = [
    ("similarity_before", pa.float64()),
    ("similarity_after", pa.float64()),
    ("latent_distance", pa.float64()),
    ("gates", pa.list_(pa.float64())),
    ("steps", pa.int64()),
    ("seconds", pa.float64()),
    ("threads", pa.int64()),
    ("inversion_error", pa.float64()),
    ("alignment_note", pa.string()),
    ("identity_similarity", pa.float64()),
    ("identity_note", pa.string()),
    ("level_db", pa.float64()),
    ("label_names", pa.list_(pa.string())),
    ("label_probabilities", pa.list_(pa.float64())),
]

MEASURES = tuple(name for name, _ in _MEASURES)
"""The columns that say how an edit went; results have them as `ManipulatedEdit.to_row` gives them."""

PREPARED_SCHEMA = pa.schema(
    [
        *_CARRIED,
        ("prepared_settings", pa.string()),
        ("prepared_sound", pa.large_binary()),  # 64-bit offsets: a block of long recordings passes 2 GiB
        ("prepared_sound_sha256", pa.string()),
        ("prepared_seed", pa.int64()),
        ("prepared_photo", pa.large_binary()),
        ("prepared_photo_height", pa.int64()),
        ("prepared_latent", pa.large_binary()),
        ("prepared_latent_layers", pa.int64()),
        ("prepared_source_sha256", pa.string()),
        ("prepared_alignment_note", pa.string()),
        ("prepared_embedding", pa.large_binary()),
        ("prepared_level_db", pa.float64()),
    ]
)
"""What `PreparedEdit.to_row` gives, with the carried columns."""

MANIPULATED_SCHEMA = pa.schema(
    [
        *_CARRIED,
        ("sound_sha256", pa.string()),
        ("source_sha256", pa.string()),
        ("edited_image", pa.large_binary()),
        ("edited_source", pa.large_binary()),
        ("edited_height", pa.int64()),
        ("edited_ws", pa.large_binary()),
        ("edited_layers", pa.int64()),
        *_MEASURES,
    ]
)
"""What `ManipulatedEdit.to_row` gives, with the carried columns and the digests of the sources."""

RESULT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("error_kind", pa.string()),
        ("audio", pa.string()),
        ("image", pa.string()),
        ("seed", pa.int64()),
        ("latent", pa.string()),
        ("settings", pa.string()),
        ("edited_image", pa.string()),
        ("source_image", pa.string()),
        ("edited_latent", pa.string()),
        *_MEASURES,
        ("sound_sha256", pa.string()),
        ("source_sha256", pa.string()),
        ("models", pa.map_(pa.string(), pa.string())),
        ("version", pa.string()),
    ]
)
"""The fields of `EditResult`, in order. ``settings`` is JSON, ``""`` if there are none; only ``seed`` can be null."""


def prepared_row(edit: PreparedEdit, *, request: str) -> Row:
    """Return the row of `PREPARED_SCHEMA` of an edit that is ready; `request` is the JSON of its request."""
    return {"request": request, "error": "", "error_kind": "", **edit.to_row()}


def manipulated_row(edit: ManipulatedEdit, *, prepared: Row) -> Row:
    """Return the row of `MANIPULATED_SCHEMA` of a finished edit; `prepared` is the row that it came from."""
    return {**_carried(prepared), **edit.to_row()}


def failed_row(prepared: Row, error: Exception | None = None) -> Row:
    """Return the row of `MANIPULATED_SCHEMA` for a row that has no edit.

    `prepared` already carries an error from an earlier stage, or `error` is what just happened to it.
    """
    carried = _carried(prepared)
    if error is not None:
        carried |= {"error": str(error), "error_kind": type(error).__name__}
    assert carried["error"], "a failed row without an error would count as done"
    return {**_blank(MANIPULATED_SCHEMA), **carried}


def refuse_prepared(batch: pa.Table, error: Exception) -> pa.Table:
    """Return prepared rows as manipulated ones that have no edit, because of ``error``."""
    return manipulated_table(failed_row(row, error) for row in batch.to_pylist())


def status_of(error_kind: str) -> Status:
    """Return the status of a row with this class of error, "" where all went well."""
    if not error_kind:
        return "ok"
    return "quarantined" if error_kind == Quarantined.__name__ else "error"


def unprepared_row(id: str, *, request: str, error: Exception) -> Row:
    """Return the row of `PREPARED_SCHEMA` for a row that could not be prepared because of `error`."""
    blank = _blank(PREPARED_SCHEMA)
    return {**blank, "id": id, "request": request, "error": str(error), "error_kind": type(error).__name__}


def result_row(result: EditResult) -> Row:
    """Return the row of `RESULT_SCHEMA` of a result."""
    settings = "" if result.settings is None else result.settings.model_dump_json()
    return {**result.model_dump(), "settings": settings, "models": sorted(result.models.items())}


def result_from_row(row: Row) -> EditResult:
    """Return what `result_row` flattened."""
    settings = EditSettings.model_validate_json(row["settings"]) if row["settings"] else None
    return EditResult.model_validate({**row, "settings": settings, "models": dict(row["models"])})


def prepared_table(rows: Iterable[Row]) -> pa.Table:
    """Return rows as a table of `PREPARED_SCHEMA`."""
    return pa.Table.from_pylist(list(rows), schema=PREPARED_SCHEMA)


def manipulated_table(rows: Iterable[Row]) -> pa.Table:
    """Return rows as a table of `MANIPULATED_SCHEMA`."""
    return pa.Table.from_pylist(list(rows), schema=MANIPULATED_SCHEMA)


def result_table(results: Iterable[EditResult]) -> pa.Table:
    """Return results as a table of `RESULT_SCHEMA`."""
    return pa.Table.from_pylist([result_row(result) for result in results], schema=RESULT_SCHEMA)


def with_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with the columns of `schema`: those that an older version did not write are blank."""
    columns = [
        rows[field.name].cast(field.type)
        if field.name in rows.column_names
        else pa.array([_blank_value(field.type)] * rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def raw_request(row: Row) -> str:
    """Return a manifest row as JSON, for the record of a row that never became a request."""
    return json.dumps(row, default=str, ensure_ascii=False, sort_keys=True)


def _carried(prepared: Row) -> Row:
    return {
        **{name: prepared[name] for name, _ in _CARRIED},
        "sound_sha256": prepared["prepared_sound_sha256"],
        "source_sha256": prepared["prepared_source_sha256"],
    }


def _blank(schema: pa.Schema) -> Row:
    """Return one row of `schema` with nothing in it: empty strings, bytes and lists, 0, NaN."""
    return {field.name: _blank_value(field.type) for field in schema}


def _blank_value(kind: pa.DataType) -> str | bytes | float | list[object]:
    if pa.types.is_string(kind):
        return ""
    if pa.types.is_large_binary(kind):
        return b""
    if pa.types.is_list(kind):
        return []
    return float("nan") if pa.types.is_floating(kind) else 0
