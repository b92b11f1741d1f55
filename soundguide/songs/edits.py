"""What happens to a row of a music run before and after the manipulator: the seams of `stages`, guided by a song."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from soundguide.errors import InvalidEdit
from soundguide.manifest import OVERRIDES, URI_COLUMNS
from soundguide.records import EditRequest, EditResult, PreparedEdit, Row
from soundguide.songs.embed import SongFiles
from soundguide.songs.hashing import hash_file
from soundguide.songs.heard import Segments
from soundguide.songs.pooling import Pooling, pool_segments
from soundguide.stages import EditFinisher, EditPreparer
from soundguide.storage import Storage, StorageConfig, join_uri
from soundguide.tables import RESULT_SCHEMA, prepared_row, prepared_table, result_row, unprepared_row

MUSIC_SCHEMA = pa.schema(
    [
        *RESULT_SCHEMA,
        ("segment", pa.int64()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("pooling", pa.string()),
        ("film", pa.string()),
    ]
)
"""Results of a music run: those of any, and what of the song guided it: a ``segment``, counted from 0, or, where that
is null, the whole of it by a ``pooling``. Times are in the song, null where it could not be heard. ``film``: its file
in the output folder, "" where the row is a still."""

_REQUEST = ("id", *URI_COLUMNS, "seed", *OVERRIDES)


@dataclass(frozen=True, slots=True)
class Guided:
    """An edit with what guides it, and which ``part`` of the song that is, as JSON holds it."""

    edit: PreparedEdit
    part: Row


@dataclass(frozen=True, slots=True)
class _Target:
    embedding: NDArray[np.float32]
    level_db: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class SongEditPreparer:
    """Turns rows of `SongRows` into prepared edits; small, sent to workers. The song itself is not read again.

    ``base`` checks settings and pictures, as for any edit; ``files`` are the songs' embeddings; ``pooling`` makes one
    of them where a row is a whole song.
    """

    base: EditPreparer
    files: SongFiles
    pooling: Pooling

    def guide(self, edit: PreparedEdit, *, name: str, sound_sha256: str, segment: int) -> Guided:
        """Return an edit with what guides it: a segment of the song of this file, or with -1 all of it, pooled.

        Raises `InvalidEdit` where that is silent, or the file of embeddings is gone.
        """
        files = self.files
        found = _target(files.storage.config, join_uri(files.uri, name), segment, self.pooling)
        edit = replace(edit, sound_sha256=sound_sha256, embedding=found.embedding, level_db=found.level_db)
        return Guided(edit, _part(segment, self.pooling, found.start, found.end))

    def prepare(self, row: Row) -> Row:
        """Return the row of `tables.PREPARED_SCHEMA` of a row; what is wrong with it, or its song, is its error."""
        part = self._unheard(row)
        given = _request_of(row)
        try:
            request = self.base.read_request(given)
            given = request.model_dump(mode="json")
            if row["song_error"]:
                error = InvalidEdit(f"the song {request.audio} cannot be heard: {row['song_error']}")
                failed = unprepared_row(row["id"], request=_wrapped(given, part), error=error)
                return {**failed, "error_kind": row["song_error_kind"]}
            edit = self.base.fetch(request.model_copy(update={"audio": ""}))
            if request.audio:
                sha256, segment = row["sound_sha256"], row["segment"]
                guided = self.guide(edit, name=row["embeddings"], sound_sha256=sha256, segment=segment)
                edit, part = guided.edit, guided.part
            return prepared_row(edit, request=_wrapped(given, part))
        except InvalidEdit as error:
            return unprepared_row(row["id"], request=_wrapped(given, part), error=error)

    def prepare_table(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Prepare a table of rows, yielding one at a time, as `EditPreparer.prepare_table`."""
        for row in batch.to_pylist():
            yield prepared_table([self.prepare(row)])

    def refuse(self, batch: pa.Table, error: InvalidEdit) -> pa.Table:
        """Return rows that were not prepared, because of ``error``."""
        return prepared_table(
            unprepared_row(row["id"], request=_wrapped(_request_of(row), self._unheard(row)), error=error)
            for row in batch.to_pylist()
        )

    def prepare_again(self, result: EditResult, segment: int | None) -> PreparedEdit:
        """Return the edit of a finished row, for a replay; ``segment`` as `MUSIC_SCHEMA` has it.

        The digest of the song is that of its file now. Raises `InvalidEdit`.
        """
        assert result.settings is not None, "a row that went well has settings"
        names = ("id", "audio", "image", "seed", "latent", "settings")
        request = EditRequest(**{name: getattr(result, name) for name in names})
        edit = self.base.fetch(request.model_copy(update={"audio": ""}))
        if not request.audio:
            return edit
        with self.base.storage.open(request.audio) as file:
            now = hash_file(file)
        name = self.files.name(result.sound_sha256)
        return self.guide(edit, name=name, sound_sha256=now, segment=-1 if segment is None else segment).edit

    def _unheard(self, row: Row) -> Row:
        """Return which part of a song would guide a row, of which no more is known yet; none where a text does."""
        return _part(row["segment"], self.pooling if row["audio"] else "")


@dataclass(frozen=True, slots=True)
class SongEditFinisher:
    """Writes edits as `EditFinisher` does, and says in files and results which part of the song guided them."""

    base: EditFinisher

    def finish(self, row: Row) -> Row:
        """Return the row of `MUSIC_SCHEMA` of a row of `tables.MANIPULATED_SCHEMA`."""
        wrapped = json.loads(row["request"])
        part: Row = wrapped["song"]
        result = self.base.finish({**row, "request": json.dumps(wrapped["request"])}, also={"song": part})
        return {**result_row(result), **part}

    def finish_table(self, batch: pa.Table) -> pa.Table:
        """Finish a table of manipulated rows, order kept."""
        return pa.Table.from_pylist([self.finish(row) for row in batch.to_pylist()], schema=MUSIC_SCHEMA)


@lru_cache(maxsize=4)  # rows of one song follow each other
def _segments(config: StorageConfig, uri: str) -> Segments:
    return Segments.decode(Storage(config).read_bytes(uri), uri)


@lru_cache(maxsize=64)
def _target(config: StorageConfig, uri: str, segment: int, pooling: Pooling) -> _Target:
    """Return what guides an edit, and where in the song it begins and ends, seconds."""
    segments = _segments(config, uri)
    if segment < 0:
        pooled = pool_segments(segments, pooling)
        return _Target(pooled.embedding, pooled.level_db, 0.0, float(segments.seconds.sum()))
    return _Target(segments.embeddings[segment], segments.level_db(segment), *segments.span(segment))


def _part(segment: int, pooling: Pooling | Literal[""], start: float | None = None, end: float | None = None) -> Row:
    """Return which part of a song guides an edit, as JSON holds it."""
    return {
        "segment": None if segment < 0 else segment,
        "start_seconds": start,
        "end_seconds": end,
        "pooling": pooling if segment < 0 else "",
        "film": "",
    }


def _request_of(row: Row) -> Row:
    """Return what of a row is its request: without its song's columns, and what is not given."""
    return {name: row[name] for name in _REQUEST if row.get(name) not in (None, "")}


def _wrapped(request: Row, part: Row) -> str:
    return json.dumps({"request": request, "song": part}, default=str, ensure_ascii=False, sort_keys=True)
