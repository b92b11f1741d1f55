"""Readers of what there is to prepare: VGG-Sound's and AudioSet's own lists, and plain manifests, as clip requests.

All return the table `tables.REQUEST_SCHEMA`, and stop with `InvalidManifest` at what concerns a list as a whole. What
concerns one clip is checked where it is decoded.
"""

import csv
import io
import math
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from soundguide.clips.plain import read_rows
from soundguide.clips.splits import assign_splits
from soundguide.clips.tables import REQUEST_SCHEMA, SEPARATOR, split_labels
from soundguide.errors import InvalidManifest, SourceNotFound
from soundguide.storage import Storage

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".flv")
SOUND_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".m4a", ".mp3", ".aac")

Files = Literal["clips", "recordings"]
"""What the files of a data set hold: each its clip alone, or the whole recording that clips are cut from."""

_CLIP_SECONDS = 10.0  # of every clip of VGG-Sound, and of nearly all of AudioSet
_NUM_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ClipRequests:
    """The requests, and of those clips in a data set's list that have no file: how many, and the ids of some."""

    table: pa.Table
    num_missing: int = 0
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Listed:
    """One clip of a data set's list, and the line that names it."""

    line: int
    youtube_id: str
    start: float
    end: float
    labels: tuple[str, ...]
    split: str

    @property
    def id(self) -> str:
        return f"{self.youtube_id}_{math.floor(self.start):06d}"


def read_vggsound(
    uri: str, media: str, storage: Storage, *, files: Files = "clips", validation_share: float = 0.05
) -> ClipRequests:
    """Read VGG-Sound's CSV (``youtube_id,start_seconds,label,split``, with a header or without) and find its videos.

    The videos lie at any depth of the folder `media`. See `file_stems` for the names that are tried.

    Raises:
        InvalidManifest: a line has another form, a clip is listed twice, or no file is found for any clip.
    """
    listed: list[_Listed] = []
    for line, cells in _cells(uri, storage):
        if len(cells) == 4 and not listed and _number(cells[1]) is None:
            continue  # a header
        start = _number(cells[1]) if len(cells) == 4 else None
        if start is None or not cells[0] or not cells[2]:
            raise _malformed(uri, line, cells, "youtube_id,start_seconds,label,split")
        listed.append(_Listed(line, cells[0], start, start + _CLIP_SECONDS, (cells[2],), cells[3]))
    return _requests(uri, listed, media, storage, files=files, validation_share=validation_share, sounds=False)


def read_audioset(
    uris: Sequence[str],
    class_names: str,
    media: str,
    storage: Storage,
    *,
    files: Files = "clips",
    validation_share: float = 0.05,
) -> ClipRequests:
    """Read AudioSet's segment CSVs (``YTID, start, end, "mid,mid"``) and find their videos or sounds.

    `class_names` is its ``class_labels_indices.csv``. A list whose name starts with ``eval`` is the test split. The
    files lie at any depth of the folder `media`. See `file_stems` for the names that are tried.

    Raises:
        InvalidManifest: a line has another form, names an unknown class, a clip is listed twice, or no file is found
            for any clip.
    """
    names = _class_names(class_names, storage)
    listed = []
    for uri in uris:
        split = "test" if posixpath.basename(uri).lower().startswith("eval") else ""
        for line, cells in _cells(uri, storage):
            start, end = (_number(cells[1]), _number(cells[2])) if len(cells) == 4 else (None, None)
            if start is None or end is None or not cells[0] or not cells[3]:
                raise _malformed(uri, line, cells, 'YTID, start, end, "mid,mid"')
            mids = [mid.strip() for mid in cells[3].split(",") if mid.strip()]
            unknown = [mid for mid in mids if mid not in names]
            if unknown:
                raise InvalidManifest(
                    f"{uri} names the class {unknown[0]!r} in line {line}, which {class_names} does not have. Give the "
                    "class_labels_indices.csv that belongs to it"
                )
            listed.append(_Listed(line, cells[0], start, end, tuple(names[mid] for mid in mids), split))
    return _requests(
        " and ".join(uris), listed, media, storage, files=files, validation_share=validation_share, sounds=True
    )


def read_plain(uri: str, storage: Storage, *, validation_share: float = 0.05) -> ClipRequests:
    """Read a manifest of clips: CSV, JSON Lines or Parquet.

    Columns: ``id``, ``video`` or ``audio`` and with the latter optionally ``image``, ``label`` (one, or several
    separated by ``|``) or ``text``, optionally ``split``, ``source_id`` (the recording; the file where it is not given)
    and ``start_seconds`` and ``end_seconds`` of the clip in its file. A text is its own label where none is given.
    Relative URIs are resolved against the manifest's folder.

    Raises:
        InvalidManifest: as `manifest.read_manifest`; for times that are no numbers, unknown splits, and recordings that
            lie in several splits.
    """
    rows = read_rows(uri, storage)
    sources, given = ([str(cell) for cell in rows[name]] for name in ("source_id", "split"))
    splits = assign_splits(sources, given, share=validation_share, where=uri)
    return ClipRequests(_table({**rows, "split": splits}))


def file_stems(youtube_id: str, start: float, end: float, *, files: Files) -> list[str]:
    """Return the names, without ending, under which a clip's file may lie, the likeliest first.

    Recordings: ``ID`` and ``YID``. Clips also carry their times, as ``ID_000030``, ``ID_30``, ``ID_30.000``,
    ``ID_30_40``, ``ID_30.000_40.000``, ``ID_30000_40000`` and ``ID_30000`` (milliseconds);
    each with ``Y`` before it too.
    """
    times = []
    if files == "clips":
        ms = [round(1000 * value) for value in (start, end)]
        times = [f"_{math.floor(start):06d}", f"_{start:g}", f"_{start:.3f}", f"_{start:g}_{end:g}"]
        times += [f"_{start:.3f}_{end:.3f}", f"_{ms[0]}_{ms[1]}", f"_{ms[0]}"]
    return [f"{first}{youtube_id}{time}" for time in [*times, ""] for first in ("", "Y")]


def _requests(
    uri: str,
    listed: Sequence[_Listed],
    media: str,
    storage: Storage,
    *,
    files: Files,
    validation_share: float,
    sounds: bool,
) -> ClipRequests:
    """Return the requests of the listed clips that have a file."""
    if not listed:
        raise InvalidManifest(f"{uri} lists no clips; give the data set's own CSV")
    _check_repeats(uri, listed)
    found = _find_files(media, storage, VIDEO_SUFFIXES + (SOUND_SUFFIXES if sounds else ()))
    placed = [(clip, _file_of(clip, found, files)) for clip in listed]
    kept = [(clip, file) for clip, file in placed if file]
    missing = [clip.id for clip, file in placed if not file]
    if not kept:
        clip = listed[0]
        tried = ", ".join(file_stems(clip.youtube_id, clip.start, clip.end, files=files)[:_NUM_SHOWN])
        raise InvalidManifest(
            f"none of the {len(listed)} clips of {uri} has a file in {media}, where {len(found)} were found. For the "
            f"first one {tried} ... were tried, with endings such as .mp4. Check the folder, or rename its files"
        )
    whole = files == "recordings"
    sources = [clip.youtube_id for clip, _ in kept]
    is_video = [file.lower().endswith(VIDEO_SUFFIXES) for _, file in kept]
    columns: dict[str, Iterable[object]] = {
        "id": [clip.id for clip, _ in kept],
        "source_id": sources,
        "video": [file if video else "" for (_, file), video in zip(kept, is_video, strict=True)],
        "audio": ["" if video else file for (_, file), video in zip(kept, is_video, strict=True)],
        "image": [""] * len(kept),
        "labels": [SEPARATOR.join(clip.labels) for clip, _ in kept],
        "text": [", ".join(clip.labels) for clip, _ in kept],
        "split": assign_splits(sources, [clip.split for clip, _ in kept], share=validation_share, where=uri),
        "start_seconds": [clip.start if whole else 0.0 for clip, _ in kept],
        "end_seconds": [clip.end if whole else 0.0 for clip, _ in kept],
        "file_seconds": [0.0 if whole else clip.end - clip.start for clip, _ in kept],
    }
    return ClipRequests(_table(columns), len(missing), tuple(missing[:_NUM_SHOWN]))


def _table(columns: Mapping[str, Iterable[object]]) -> pa.Table:
    arrays = {name: list(values) for name, values in columns.items()}
    arrays["row"] = list(range(1, len(arrays["id"]) + 1))
    return pa.table([pa.array(arrays[name.name], name.type) for name in REQUEST_SCHEMA], schema=REQUEST_SCHEMA)


def _file_of(clip: _Listed, found: Mapping[str, str], files: Files) -> str:
    stems = file_stems(clip.youtube_id, clip.start, clip.end, files=files)
    return next((found[stem] for stem in stems if stem in found), "")


def _find_files(media: str, storage: Storage, suffixes: Sequence[str]) -> dict[str, str]:
    """Return the files of a folder by name without ending; of two that differ in that, the earlier in `suffixes`."""
    try:
        uris = storage.list(media)
    except SourceNotFound as exc:
        raise InvalidManifest(f"the folder of media cannot be read: {exc}") from exc
    rank: dict[str, int] = {}
    found: dict[str, str] = {}
    for uri in uris:
        stem, suffix = posixpath.splitext(posixpath.basename(uri))
        if suffix.lower() in suffixes and suffixes.index(suffix.lower()) < rank.get(stem, len(suffixes)):
            rank[stem] = suffixes.index(suffix.lower())
            found[stem] = uri
    return found


def _class_names(uri: str, storage: Storage) -> dict[str, str]:
    """Return the name of each class of ``index,mid,display_name``."""
    names: dict[str, str] = {}
    for line, cells in _cells(uri, storage):
        if len(cells) != 3 or not cells[1] or not cells[2]:
            raise _malformed(uri, line, cells, "index,mid,display_name")
        names[cells[1]] = cells[2]
    reserved = [name for name in names.values() if split_labels(name) != [name]]
    if reserved:
        raise InvalidManifest(f"{uri} has a class {reserved[0]!r}; names must not hold {SEPARATOR!r}. Rename it")
    return names


def _cells(uri: str, storage: Storage) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line of a CSV, without comments and empty lines."""
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except SourceNotFound as exc:
        raise InvalidManifest(f"the list cannot be read: {exc}") from exc
    except UnicodeError as exc:
        raise InvalidManifest(f"{uri} is no UTF-8 text ({exc}); export it again") from exc
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        for cells in reader:
            if cells and not cells[0].startswith("#"):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as exc:
        raise InvalidManifest(f"{uri} is no CSV in line {reader.line_num} ({exc}); download it again") from exc


def _check_repeats(uri: str, listed: Sequence[_Listed]) -> None:
    lines: dict[str, list[int]] = {}
    for clip in listed:
        lines.setdefault(clip.id, []).append(clip.line)
    repeated = [f"{id!r} in lines {', '.join(map(str, at))}" for id, at in lines.items() if len(at) > 1]
    if repeated:
        more = f" and {len(repeated) - _NUM_SHOWN} more" if len(repeated) > _NUM_SHOWN else ""
        raise InvalidManifest(
            f"{uri} lists clips twice: {'; '.join(repeated[:_NUM_SHOWN])}{more}. Keep one line of each"
        )


def _malformed(uri: str, line: int, cells: Sequence[str], form: str) -> InvalidManifest:
    return InvalidManifest(
        f"{uri} has {','.join(cells)!r:.120} in line {line}; expected {form}. Correct the line, or give another list"
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
