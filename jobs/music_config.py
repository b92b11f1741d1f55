"""The configuration of a music run, and what meets in it."""

from dataclasses import dataclass
from typing import Annotated, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from edit_job import EditJobConfig
from soundguide.errors import OutputConflict
from soundguide.film.settings import FilmLook
from soundguide.manifest import read_manifest
from soundguide.run_folder import RunFolder
from soundguide.songs.folders import list_pictures, list_seeds, list_songs
from soundguide.songs.music_run import FilmFormat, MusicSettings, SongLimits, song_folder
from soundguide.songs.pooling import Pooling


class MusicConfig(EditJobConfig):
    songs: Annotated[str, Field(description="Folder of songs; with --images or --seeds, each meets all of them.")] = ""
    images: Annotated[str, Field(description="Folder of photos.")] = ""
    seeds: Annotated[
        tuple[int, ...], Field(description="Seeds of pictures that the generator draws, commas between.")
    ] = ()
    pairs: Annotated[str, Field(description="In place of folders: a manifest as the bulk job takes it.")] = ""
    segment_seconds: Annotated[
        float, Field(ge=1, le=600, description="Length of the segments of a song, seconds; the paper's is 10.")
    ] = 10.0
    per_segment: Annotated[bool, Field(description="A still for each segment, not one for the whole song.")] = False
    pooling: Annotated[
        Pooling, Field(description="How segments become one still's target (docs/music.md compares them).")
    ] = "mean"
    films: Annotated[bool, Field(description="Films in place of stills: each picture lives through each song.")] = False
    film: Annotated[FilmLook, Field(description="What films are like.")] = FilmLook()
    film_format: Annotated[FilmFormat, Field(description="Of the films' files.")] = "mp4"
    limits: Annotated[SongLimits, Field(description="What one row's files may cost.")] = SongLimits()

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        given = [name for name in ("songs", "images", "seeds", "pairs") if getattr(self, name)]
        if given not in (["songs", "images"], ["songs", "seeds"], ["pairs"]):
            raise ValueError(
                f"give songs with one of images and seeds, or pairs alone; got {' and '.join(given) or 'none of them'}"
            )
        if not self.films and (self.film != FilmLook() or self.film_format != "mp4"):
            raise ValueError("film and film_format say what films are like, and rows are stills; add --films")
        if self.films and self.per_segment:
            raise ValueError("a film lives through all segments of its song; give films or per_segment, not both")
        return self

    @property
    def music(self) -> MusicSettings:
        """How songs guide edits."""
        return MusicSettings(
            meeting="pairs" if self.pairs else "all",
            segment_seconds=self.segment_seconds,
            per_segment=self.per_segment,
            pooling=self.pooling,
            film=self.film if self.films else None,
            film_format=self.film_format,
        )

    def require_films(self) -> None:
        """Raise InvalidConfig where films are wanted and what makes them is not installed."""
        if self.films:
            from soundguide.film.encode import require_format
            from soundguide.film.reaction import require_librosa

            require_format(f"film.{self.film_format}")
            if self.film.react > 0:
                require_librosa()


@dataclass(frozen=True)
class Sources:
    """What meets: ``groups`` are songs, or the rows of a manifest, which name their own pictures."""

    groups: pa.Table
    pictures: pa.Table | None

    @property
    def manifest(self) -> pa.Table:
        """What is kept of them in the output folder, beside the songs."""
        return self.groups if self.pictures is None else self.pictures

    @property
    def songs(self) -> pa.Table:
        """The songs, each once, their URIs as ids, and the names that they have where they are a folder's."""
        if self.pictures is not None:
            return pa.table({"id": self.groups["audio"], "name": self.groups["id"]})
        uris = pc.unique(self.groups["audio"])
        return pa.table({"id": uris.filter(pc.not_equal(uris, ""))})


def read_sources(config: MusicConfig, folder: RunFolder) -> Sources:
    """Read what there is to edit, and by what, for a run in ``folder`` that may have begun before.

    Raises InvalidManifest or InvalidConfig where there is nothing, and OutputConflict where other folders were read.
    """
    storage = folder.storage
    if config.pairs:
        return Sources(read_manifest(config.pairs, storage), None)
    earlier = folder.read_manifest()
    if config.images:
        pictures = list_pictures(config.images, storage, _known(earlier, name="id", uri="image"))
    else:
        pictures = list_seeds(config.seeds)
    _require_seeds(earlier, pictures)
    known = _known(song_folder(folder).read_manifest(), name="name", uri="id")
    return Sources(list_songs(config.songs, storage, known), pictures)


def _known(earlier: pa.Table | None, *, name: str, uri: str) -> dict[str, str]:
    """Return the names of the files of an earlier start by their URIs, from two columns of its manifest."""
    if earlier is None or name not in earlier.column_names:
        return {}
    uris, names = earlier[uri].to_pylist(), earlier[name].to_pylist()
    return {uri: name for uri, name in zip(uris, names, strict=True) if uri}


def _require_seeds(earlier: pa.Table | None, pictures: pa.Table) -> None:
    """Raise OutputConflict where a run that began with seeds goes on without some of them."""
    if earlier is None:
        return
    seeds = earlier["id"].filter(pc.equal(earlier["image"], ""))
    lost = seeds.filter(pc.invert(pc.is_in(seeds, value_set=pictures["id"].combine_chunks()))).to_pylist()
    if lost:
        raise OutputConflict(
            f"this run has pictures of --seeds {','.join(lost)}, which are not named any more. Name them too, or give "
            "another output folder"
        )
