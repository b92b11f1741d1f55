"""The output folder of a music run: that of any run, with the songs as they were heard inside of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from soundguide.config import Frozen
from soundguide.errors import InvalidEdit
from soundguide.film.settings import FilmLook
from soundguide.model_facts import ModelFacts
from soundguide.records import PreparedEdit, Row
from soundguide.run_folder import Facts, RunFolder
from soundguide.songs.edits import MUSIC_SCHEMA, SongEditPreparer
from soundguide.songs.embed import SONG_SCHEMA, SongFiles
from soundguide.songs.pooling import Pooling
from soundguide.stages import EditPreparer, SourceLimits
from soundguide.storage import Storage, join_uri
from soundguide.tables import RESULT_SCHEMA, result_from_row

FilmFormat = Literal["mp4", "mov", "mkv", "webm"]
Meeting = Literal["all", "pairs"]
"""Whether every song meets every picture, or a manifest says which meet."""


class SongLimits(SourceLimits):
    """What one row's sources may cost; songs may be longer than sounds."""

    max_sound_mib: Annotated[int, Field(ge=1, description="Size of a song's file, MiB.")] = 8192
    max_sound_seconds: Annotated[float, Field(gt=0, description="Length of a song, seconds.")] = 24 * 3600.0


class MusicSettings(Frozen):
    """How songs guide edits: part of what decides what a row becomes."""

    meeting: Meeting
    segment_seconds: float
    per_segment: bool
    pooling: Pooling
    film: Annotated[FilmLook | None, Field(description="What films are like; none: rows are stills.")] = None
    film_format: FilmFormat = "mp4"


def music_folder(uri: str, storage: Storage, meeting: Meeting) -> RunFolder:
    """Return the folder of a music run; its manifest is that of the pictures, or of the pairs."""
    return RunFolder(uri, storage, MUSIC_SCHEMA, f"{'pictures' if meeting == 'all' else 'pairs'}.parquet")


def song_folder(folder: RunFolder) -> RunFolder:
    """Return the folder inside a music run's that keeps its songs; it is a run of its own, a row for each song."""
    return RunFolder(join_uri(folder.uri, "_run", "songs"), folder.storage, SONG_SCHEMA)


def song_files(folder: RunFolder, facts: ModelFacts, segment_seconds: float) -> SongFiles:
    """Return where the embeddings of a music run's songs lie."""
    uri = join_uri(song_folder(folder).uri, "embeddings")
    return SongFiles(uri, dict(facts.digests)["audio"], segment_seconds, folder.storage)


def identify_songs(settings: MusicSettings, limits: SongLimits, facts: ModelFacts, version: str) -> Facts:
    """Return all that decides what is heard of a song."""
    return {
        "song": {"segment_seconds": settings.segment_seconds},
        "limits": limits.model_dump(mode="json", include={"max_sound_mib", "max_sound_seconds", "min_sound_seconds"}),
        "models": {"audio": dict(facts.digests)["audio"]},
        "version": version,
    }


def is_music(record: Facts) -> bool:
    """Say whether the record of a run is of a music run."""
    return "music" in record["identity"]


def prepare_again(folder: RunFolder, record: Facts, row: Row, preparer: EditPreparer) -> PreparedEdit:
    """Return the edit of a row of a music run (`MUSIC_SCHEMA`), for a replay. Raises `InvalidEdit`.

    Its ``preparer`` reaches the row's sources as the run did.
    """
    if row["film"]:
        raise InvalidEdit(
            f"the row {row['id']!r} is a film, and a replay makes pictures. The same command of the run goes on with "
            "what is missing; soundguide film makes one film anew"
        )
    settings = MusicSettings.model_validate(record["identity"]["music"])
    files = song_files(folder, preparer.facts, settings.segment_seconds)
    result = result_from_row({name: row[name] for name in RESULT_SCHEMA.names})
    return SongEditPreparer(preparer, files, settings.pooling).prepare_again(result, row["segment"])


def as_music(folder: RunFolder) -> RunFolder:
    """Return a folder whose results are those of a music run."""
    return replace(folder, schema=MUSIC_SCHEMA)
