"""The contact sheet of a music run: songs as rows, each with a player, and pictures as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from soundguide.audio.decode import AudioLimits
from soundguide.contact_sheet import FILE_NAME, PAGE_BYTES, spread
from soundguide.errors import InvalidEdit
from soundguide.records import Row
from soundguide.run_folder import MAX_SHOWN, RunFolder
from soundguide.sheet_cards import Heard, base_name, decimal, finite, heard_labels, kind_of, plain
from soundguide.sheet_media import CLIP_SECONDS, Picture, Sound, embed_picture, embed_sound
from soundguide.sheet_page import render_page
from soundguide.songs.embed import SongFiles
from soundguide.songs.overview import Overview
from soundguide.songs.pooling import Pooling, pool_segments
from soundguide.songs.rows import SongRows
from soundguide.storage import join_uri, resolve_uri

MAX_COLUMNS = 12
_SHOWN_AT_FOOT = ("songs", "songs_not_heard", "segments", "computed", "seconds")


@dataclass(frozen=True)
class Shown:
    """The rows on the sheet: ``lines`` of indices; ``pictures``: the column of each, none where a line has its own."""

    lines: tuple[tuple[int, ...], ...]
    pictures: tuple[int, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(row for line in self.lines for row in line)

    @property
    def num_rows(self) -> int:
        """How many there are."""
        return len(self.rows)


@dataclass(frozen=True)
class Cell:
    """A still, or why there is none. ``source`` and ``name`` only where the column does not say them.

    ``notes``: the manifest's, and what was found out of the picture; ``film``: its file beside the page, "" where the
    row is a still alone.
    """

    id: str
    edit: Picture | None
    source: Picture | None
    name: str
    kind: str
    error: str
    gain: str
    told: str
    notes: tuple[str, ...]
    film: str


@dataclass(frozen=True)
class Column:
    """A picture that all songs meet: ``source`` as the generator draws it, ``photo`` as it was given."""

    name: str
    source: Picture | None
    photo: Picture | None


@dataclass(frozen=True)
class Line:
    """A song, or a segment of one: what is heard of it, and its stills. ``error``: of a song that cannot be heard."""

    name: str
    uri: str
    span: str
    sound: Sound | None
    heard: tuple[Heard, ...]
    error: str
    cells: tuple[Cell, ...]


def write_music_sheet(
    folder: RunFolder, rows: SongRows, files: SongFiles, overview: Overview, summary: Mapping[str, Any]
) -> str:
    """Write ``index.html`` into a music run's folder, atomically, and return its URI.

    At most `MAX_SHOWN` stills are shown, evenly spread over songs and pictures, with the first row of every kind of
    error among them; ``summary``: what ``run.json`` says. A player has an excerpt of its song: the segment itself, or
    the one nearest to what the song's stills are guided by.
    """
    shown = choose_shown(rows, [overview.tally.examples[kind][0] for kind in overview.tally.kinds])
    music = summary["identity"]["music"]
    drawn = _Drawn.read(folder, rows, files, music["pooling"], shown)
    page = render_page(
        "music_sheet",
        also_styled_as="contact_sheet",
        title=base_name(folder.uri),
        columns=drawn.columns(),
        lines=drawn.lines(),
        partial=shown.num_rows < rows.num_rows,
        num_shown=shown.num_rows,
        counts=overview.counts,
        median_gain=_signed(overview.median_gain),
        kinds=[(error.kind, error.count) for error in overview.tally.errors],
        rate=summary["rows_per_minute"],
        config_hash=summary["config_hash"],
        version=summary["version"],
        models=summary["models"],
        films=bool(music["film"]),
        music=_told(music),
        facts={name.replace("_", " "): plain(summary[name]) for name in _SHOWN_AT_FOOT if name in summary},
    )
    uri = join_uri(folder.uri, FILE_NAME)
    folder.storage.write_bytes(uri, page.encode())
    return uri


def choose_shown(rows: SongRows, examples: Sequence[str]) -> Shown:
    """Return which rows to show, `MAX_SHOWN` at most: evenly spread, with those of the ids ``examples``."""
    wanted = [int(row) for row in rows.index(pa.array(examples, pa.string())) if row >= 0]
    if rows.pictures is not None:
        across = rows.num_pictures
        pictures = spread(across, MAX_COLUMNS, [row % across for row in wanted])
        segments = spread(rows.num_segments, MAX_SHOWN // len(pictures), [row // across for row in wanted])
        lines = (tuple(segment * across + picture for picture in pictures) for segment in segments)
        return Shown(tuple(lines), tuple(pictures))
    songs: dict[tuple[str, int], list[int]] = {}
    chosen = spread(rows.num_rows, MAX_SHOWN, wanted)
    for row, found in zip(chosen, rows.table(np.array(chosen)).select(["audio", "segment"]).to_pylist(), strict=True):
        songs.setdefault((found["audio"], found["segment"]), []).append(row)
    return Shown(tuple(map(tuple, songs.values())), ())


@dataclass(frozen=True)
class _Drawn:
    """What is shown, read: ``rows`` of `SongRows` and ``results`` of them, by index."""

    folder: RunFolder
    all_rows: SongRows
    files: SongFiles
    pooling: Pooling
    shown: Shown
    rows: Mapping[int, Row]
    results: Mapping[int, Row]
    picture_bytes: int

    @classmethod
    def read(cls, folder: RunFolder, all_rows: SongRows, files: SongFiles, pooling: Pooling, shown: Shown) -> Self:
        """Read the rows that are shown, and nothing of the others."""
        rows = all_rows.table(np.array(shown.rows, np.int64)).to_pylist()
        results = {row["id"]: row for row in folder.read_results(ids=[row["id"] for row in rows]).to_pylist()}
        num_pictures = len(rows) * (1 if shown.pictures else 2) + 2 * len(shown.pictures)
        share = PAGE_BYTES // 2 * 3 // 4 // max(num_pictures, 1)  # base64 turns 3 bytes into 4
        by_index = dict(zip(shown.rows, rows, strict=True))
        found = {index: results[row["id"]] for index, row in by_index.items()}
        return cls(folder, all_rows, files, pooling, shown, by_index, found, share)

    def columns(self) -> list[Column]:
        """Return the header's pictures."""
        return [self._column(number, index) for number, index in enumerate(self.shown.pictures)]

    def lines(self) -> list[Line]:
        """Return the songs with their stills."""
        return [self._line(line) for line in self.shown.lines]

    def _column(self, number: int, index: int) -> Column:
        assert self.all_rows.pictures is not None, "columns are pictures"
        picture = self.all_rows.pictures.slice(index, 1).to_pylist()[0]
        sources = [self.results[line[number]]["source_image"] for line in self.shown.lines]
        drawn = next(filter(None, sources), "")
        name = base_name(picture["image"]) if picture["image"] else f"seed {picture['seed']}"
        return Column(name, self._picture(drawn), self._picture(picture["image"] if drawn else "", most=12_000))

    def _line(self, line: tuple[int, ...]) -> Line:
        row, results = self.rows[line[0]], [self.results[index] for index in line]
        well = next((result for result in results if result["status"] == "ok"), results[0])
        error = row["song_error"]
        start, end = self._excerpt(row) if row["embeddings"] else (0.0, 0.0)
        sound = None
        if row["embeddings"]:
            seconds = min(end - start, CLIP_SECONDS * min(1.0, 200 / len(self.shown.lines)))
            limits = AudioLimits(max_bytes=2**62, max_seconds=float("inf"))  # it was within the job's when it was heard
            uri, storage = row["audio"], self.folder.storage
            sound = embed_sound(uri, storage=storage, max_seconds=seconds, start_seconds=start, limits=limits)
        return Line(
            name=base_name(row["audio"]) or "text alone",
            uri=row["audio"],
            span=f"{_clock(start)} to {_clock(end)}" if sound else "",
            sound=sound,
            heard=heard_labels(well["label_names"], well["label_probabilities"]),
            error=error,
            cells=tuple(self._cell(self.rows[index], self.results[index]) for index in line),
        )

    def _excerpt(self, row: Row) -> tuple[float, float]:
        """Return what of a song is played, seconds: the segment of this line, or the most typical of the whole."""
        try:
            segments = self.files.read(row["embeddings"])
            nearest = row["segment"] if row["segment"] >= 0 else pool_segments(segments, self.pooling).nearest
        except InvalidEdit:
            return 0.0, CLIP_SECONDS
        start, end = segments.span(nearest)
        return start, end if row["segment"] >= 0 else min(end, start + CLIP_SECONDS)

    def _cell(self, row: Row, result: Row) -> Cell:
        own = not self.shown.pictures
        before, after = finite(result["similarity_before"]), finite(result["similarity_after"])
        gain = None if before is None or after is None else after - before
        origin = base_name(result["image"] or result["latent"]) or f"seed {result['seed']}"
        return Cell(
            id=result["id"],
            edit=self._picture(result["edited_image"]),
            source=self._picture(result["source_image"]) if own else None,
            name=origin if own else "",
            kind=kind_of(result),
            error=result["error"],
            gain=_signed(gain),
            told=f"similarity {decimal(before, 3)} to {decimal(after, 3)}, distance "
            f"{decimal(finite(result['latent_distance']), 2)}, {result['steps']} steps",
            notes=tuple(filter(None, (row.get("note"), result["alignment_note"], result["identity_note"]))),
            film=quote(result["film"]),
        )

    def _picture(self, uri: str, most: int = PAGE_BYTES) -> Picture | None:
        if not uri:
            return None
        uri = resolve_uri(uri, base=self.folder.uri)
        return embed_picture(uri, storage=self.folder.storage, max_bytes=min(most, self.picture_bytes))


def _told(music: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of a music run as a reader would write them, those of films where there are any."""
    film = music["film"] or {}
    given = {name: value for name, value in music.items() if not name.startswith("film")}
    given |= {f"film {name}": value for name, value in film.items()}
    return {name: plain(value) for name, value in given.items()}


def _signed(gain: float | None) -> str:
    return "" if gain is None else f"{gain:+.3f}".replace("-", "\N{MINUS SIGN}")


def _clock(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
