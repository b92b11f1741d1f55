"""A film from nothing: a song and a picture in, a file with sound out."""

from __future__ import annotations

import asyncio
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from soundguide import __version__
from soundguide.film.encode import FilmWriter, enlargement, require_format
from soundguide.film.keys import Code, Key, find_keys
from soundguide.film.motion import Motion, random_walk
from soundguide.film.path import CodePath, path_through
from soundguide.film.reaction import Curve, drive_of, measure_song
from soundguide.film.render import Frames, render
from soundguide.film.segments import Segment, at_one_level, hear_segments
from soundguide.film.settings import FilmSettings
from soundguide.film.strip import Strip
from soundguide.film.work import KeyOrigin, WorkFolder
from soundguide.manipulator import Manipulator
from soundguide.records import PreparedEdit, Progress
from soundguide.slots import OnProgress
from soundguide.songs.hashing import hash_file


class Watcher(Protocol):
    """Who is told how a film comes on."""

    def start(self, phase: str, total: int) -> None:
        """Tell that a phase begins that has so many parts; 0: nobody knows yet."""
        ...

    def heard(self, segment: Segment) -> None:
        """Tell of a segment that was heard."""
        ...

    def searching(self, progress: Progress) -> None:
        """Tell how far a search is, of the photo's code or of a key code."""
        ...

    def found(self, key: Key) -> None:
        """Tell that a key code is there."""
        ...

    def drawn(self, first: int, frames: Frames) -> None:
        """Tell of drawn frames ``[B, H, W, 3]``, the first of which is number ``first``."""
        ...


class Unwatched:
    """Tells nobody; meets `Watcher`."""

    def start(self, phase: str, total: int) -> None:
        """Do nothing."""

    def heard(self, segment: Segment) -> None:
        """Do nothing."""

    def searching(self, progress: Progress) -> None:
        """Do nothing."""

    def found(self, key: Key) -> None:
        """Do nothing."""

    def drawn(self, first: int, frames: Frames) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Film:
    """What came of it: the file, its frames and size, and the strip's page ``[H, W, 3]``."""

    path: Path
    num_frames: int
    seconds: float
    height: int
    width: int
    num_segments: int
    page: Frames
    inversion_error: float


def make_film(
    manipulator: Manipulator,
    edit: PreparedEdit,
    song: BinaryIO,
    output: Path,
    settings: FilmSettings,
    *,
    keep: bool = False,
    watcher: Watcher = Unwatched(),  # noqa: B008 - has no state
) -> Film:
    """Make the film of a picture and a song.

    ``edit``: the picture and the settings of the key codes; its sound is not read. ``song``: a seekable sound file of
    any length, read as a stream several times. ``output``: where the film appears, whole, at the end; what is finished
    before lies in a folder beside it (`WorkFolder`), which goes then, unless it is to ``keep``. Must not be called from
    a running event loop.

    Raises `InvalidAudio`, `InvalidConfig`, `OutputConflict`, or a child of `InvalidEdit`.
    """
    suffix = require_format(output.name)
    song.seek(0)
    config = KeyOrigin(
        song_sha256=hash_file(song),
        source=edit.source_sha256 or f"seed {edit.seed}",
        segment_seconds=settings.segment_seconds,
        settings=edit.settings,
        models=manipulator.model_digests,
        version=__version__,
    )
    work = WorkFolder(output, config)
    segments = _hear(manipulator, song, settings, watcher)
    seconds = segments[-1].start + segments[-1].seconds
    num_frames = math.ceil(round(seconds * settings.fps, 6))
    drive: Curve | None = None
    if settings.react > 0:
        watcher.start("measuring", 0)
        drive = drive_of(measure_song(song), num_frames=num_frames, fps=settings.fps)
    source, error, path = asyncio.run(_find_path(manipulator, edit, segments, settings, work, watcher))
    motion = Motion(source, path, drive, _walk(manipulator, edit, settings, seconds), settings)
    strip = Strip(settings.fps)
    height, width = manipulator.world.picture_size
    factor = enlargement(height, width, size=settings.size)
    unfinished = work.temporary(suffix)
    comment = json.dumps({"soundguide": {**json.loads(config.model_dump_json()), "film": settings.model_dump()}})

    def tell(first: int, frames: Frames) -> None:
        strip.add(first, frames)
        watcher.drawn(first, frames)

    watcher.start("drawing", num_frames)
    with FilmWriter(
        unfinished, height=height, width=width, factor=factor, fps=settings.fps, song=song, comment=comment
    ) as writer:
        render(manipulator.world, motion, num_frames, writer, tell)
    os.replace(unfinished, output)
    if not keep:
        work.remove()
    return Film(
        path=output,
        num_frames=num_frames,
        seconds=seconds,
        height=height * factor,
        width=width * factor,
        num_segments=len(segments),
        page=strip.page(drive),
        inversion_error=error,
    )


def _hear(manipulator: Manipulator, song: BinaryIO, settings: FilmSettings, watcher: Watcher) -> list[Segment]:
    watcher.start("listening", 0)
    segments = []
    for segment in hear_segments(song, manipulator.world.listener, seconds=settings.segment_seconds):
        watcher.heard(segment)
        segments.append(segment)
    return at_one_level(segments)


async def _find_path(
    manipulator: Manipulator,
    edit: PreparedEdit,
    segments: list[Segment],
    settings: FilmSettings,
    work: WorkFolder,
    watcher: Watcher,
) -> tuple[Code, float, CodePath | None]:
    """Return the source's code, the error of its inversion, and the path through the key codes where they count."""
    world, error = manipulator.world, float("nan")
    news = OnProgress(1, watcher.searching, preview=False)
    source = work.read_source(num_ws=world.num_ws, w_dim=world.generator.w_dim)
    if source is None:
        if edit.photo is not None:
            watcher.start("finding the photo", edit.settings.inversion_steps)
        code, error = await manipulator.find_source(edit, news)
        source = code.cpu().numpy()
        work.write_source(source)
    if settings.semantic == 0:
        return source, error, None
    watcher.start("key codes", len(segments))
    keys = []
    async for key in find_keys(manipulator, source, segments, edit.settings, work=work, on_progress=news):
        watcher.found(key)
        keys.append(key.code)
    seconds = segments[-1].start + segments[-1].seconds
    return source, error, path_through(source, keys, [segment.middle for segment in segments], seconds=seconds)


def _walk(manipulator: Manipulator, edit: PreparedEdit, settings: FilmSettings, seconds: float) -> CodePath | None:
    if settings.semantic == 1:
        return None
    scale: NDArray[np.float32] = manipulator.world.step_scale.to("cpu", torch.float32).numpy()
    return random_walk(
        scale,
        num_ws=manipulator.world.num_ws,
        seconds=seconds,
        pace=settings.segment_seconds,
        seed=edit.settings.view_seed,
    )
