"""The rows of a music run, worked out one range at a time: songs times pictures are never all there at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from soundguide.songs.folders import JOINT

Indices = NDArray[np.int64]

SONG_COLUMNS = ("sound_sha256", "embeddings", "song_error", "song_error_kind")
"""What each row says of its song, as its row of `embed.SONG_SCHEMA` does."""

_LARGEST_DIGITS = 4  # of a segment's number in an id: a day of music has 8,640


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows ``[N]`` lie: index of the ``group``, number of the ``segment`` in it, index of the ``picture``."""

    group: Indices
    segment: Indices
    picture: Indices


@dataclass(frozen=True)
class SongRows:
    """Every group with each of its segments, and each of these with every picture, in this order.

    ``groups``: songs, or the pairs of a manifest, with ``id``, ``audio`` and `SONG_COLUMNS`; ``pictures``: what each
    of them meets (``id``, ``image``, ``seed``), None where a group names its own. ``counts`` ``[G]``: segments of each
    group, at least 1: a song that could not be heard has one, whose rows say why. ``per_segment``: whether a row is a
    segment; otherwise all counts are 1 and a row is a whole song.
    """

    groups: pa.Table
    pictures: pa.Table | None
    counts: Indices
    per_segment: bool

    @classmethod
    def of(cls, groups: pa.Table, pictures: pa.Table | None, songs: pa.Table, *, per_segment: bool) -> Self:
        """Return the rows of groups (``id``, ``audio``, ...) whose songs were heard as ``songs`` (`SONG_SCHEMA`) say.

        A group without a sound, which is guided by a text alone, has blank `SONG_COLUMNS`.
        """
        place = pc.index_in(groups["audio"], value_set=songs["id"].combine_chunks())
        found = songs.take(place)
        columns = {
            "sound_sha256": found["sound_sha256"],
            "embeddings": found["embeddings"],
            "song_error": found["error"],
            "song_error_kind": found["error_kind"],
        }
        for name, column in columns.items():
            groups = groups.append_column(name, column.fill_null(""))
        num = found["num_segments"].fill_null(0).to_numpy()
        counts = np.maximum(num, 1) if per_segment else np.ones(groups.num_rows, np.int64)
        return cls(groups.combine_chunks(), pictures, counts.astype(np.int64), per_segment)

    @property
    def num_pictures(self) -> int:
        """How many pictures each segment meets."""
        return 1 if self.pictures is None else self.pictures.num_rows

    @property
    def num_segments(self) -> int:
        """Segments of all groups; where a row is a whole song, the groups."""
        return int(self._first_segment[-1])

    @property
    def num_rows(self) -> int:
        """All rows."""
        return self.num_segments * self.num_pictures

    @cached_property
    def _first_segment(self) -> Indices:
        """How many segments lie before each group, ``[G + 1]``."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def place(self, rows: Indices) -> Place:
        """Return where rows ``[N]`` lie."""
        segments, picture = np.divmod(rows, self.num_pictures)
        group = np.searchsorted(self._first_segment, segments, side="right").astype(np.int64) - 1
        return Place(group, segments - self._first_segment[group], picture)

    def table(self, rows: Indices) -> pa.Table:
        """Return rows ``[N]``: ``id``, ``segment`` (-1: the whole song), and the columns of group and picture."""
        place = self.place(rows)
        columns = dict(zip(self.groups.column_names, self.groups.take(place.group).columns, strict=True))
        ids = [columns["id"].cast(pa.string())]
        if self.pictures is not None:
            pictures = self.pictures.take(place.picture)
            columns |= dict(zip(pictures.column_names, pictures.columns, strict=True))
            ids.append(pictures["id"])
        if self.per_segment:
            ids.append(pa.array([f"{number:0{_LARGEST_DIGITS}}" for number in place.segment.tolist()], pa.string()))
        segment = place.segment if self.per_segment else np.full(len(rows), -1)
        columns["id"] = pc.binary_join_element_wise(*ids, JOINT) if len(ids) > 1 else ids[0]
        return pa.table({"id": columns.pop("id"), "segment": pa.array(segment, pa.int64()), **columns})

    def index(self, ids: pa.Array | pa.ChunkedArray) -> Indices:
        """Return the row of each id ``[N]``, -1 where there is none."""
        found = [self._find(id) for id in ids.to_pylist()]
        return np.array(found, np.int64).reshape(-1)

    def _find(self, id: str) -> int:
        rest, segment, picture = id, 0, 0
        if self.per_segment:
            rest, _, number = rest.rpartition(JOINT)
            segment = int(number) if number.isdecimal() and number == f"{int(number):0{_LARGEST_DIGITS}}" else -1
        if self.pictures is not None:
            rest, _, name = rest.rpartition(JOINT)
            picture = self._picture_of.get(name, -1)
        group = self._group_of.get(rest, -1)
        if min(group, picture, segment) < 0 or segment >= self.counts[group]:
            return -1
        return int((self._first_segment[group] + segment) * self.num_pictures + picture)

    @cached_property
    def _group_of(self) -> dict[str, int]:
        return {id: index for index, id in enumerate(self.groups["id"].to_pylist())}

    @cached_property
    def _picture_of(self) -> dict[str, int]:
        return {} if self.pictures is None else {id: index for index, id in enumerate(self.pictures["id"].to_pylist())}
