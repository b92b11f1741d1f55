"""A film from nothing: a song and a picture in, a file with sound out."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from soundguide import __version__
from soundguide.film.encode import FilmWriter, enlargement, require_format
from soundguide.film.keys import Key, find_keys
from soundguide.film.motion import Motion, random_walk
from soundguide.film.path import CodePath, path_through
from soundguide.film.reaction import Envelopes, drive_of, measure_song
from soundguide.film.render import Frames, render
from soundguide.film.segments import Segment, at_one_level, hear_segments
from soundguide.film.settings import FilmSettings
from soundguide.film.strip import Strip
from soundguide.film.work import KeyOrigin, WorkFolder
from soundguide.kept_memory import return_freed_memory
from soundguide.manipulator import Manipulator
from soundguide.records import PreparedEdit, Progress
from soundguide.slots import OnProgress
from soundguide.songs.hashing import hash_file
from soundguide.storage import Storage
from soundguide.storage_errors import writing
from soundguide.world import World


class Watcher(Protocol):
    """Who is told how a film comes on."""

    def start(self, phase: str, total: int) -> None:
        """Tell that a phase begins that has so many parts; 0: nobody knows yet."""
        ...

    def heard(self, until: float) -> None:
        """Tell how far the song was heard, seconds."""
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

    def heard(self, until: float) -> None:
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


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """Where each of ``num_frames`` lies, before any is drawn; ``inversion_error`` as of an edit."""

    motion: Motion
    num_frames: int
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
    before lies in the folder ``OUTPUT.film`` (`WorkFolder`), which goes then, unless it is to ``keep``. Must not be
    called from a running event loop.

    Raises `InvalidAudio`, `InvalidConfig`, `OutputConflict`, or a child of `InvalidEdit`.
    """
    suffix = require_format(output.name)
    Storage().require_folder(str(output.parent))
    song.seek(0)
    origin = key_origin(manipulator, edit, settings, song_sha256=hash_file(song))
    work = WorkFolder(f"{output}.film", origin)
    watcher.start("listening", 0)
    listener = manipulator.world.listener
    heard = hear_segments(song, listener, seconds=settings.segment_seconds, on_heard=watcher.heard)
    segments = at_one_level(heard)
    envelopes = None
    if settings.react > 0:
        watcher.start("measuring", 0)
        envelopes = measure_song(song)
        return_freed_memory()  # or what a long song leaves in pieces would add up
    plan = asyncio.run(plan_film(manipulator, edit, segments, envelopes, settings, work, watcher))
    return_freed_memory()
    unfinished = Path(work.uri) / f"unfinished{suffix}"
    strip = draw_film(manipulator.world, plan, song, unfinished, origin, watcher)
    with writing(str(output)):
        os.replace(unfinished, output)
    if not keep:
        work.remove()
    height, width = manipulator.world.picture_size
    factor = enlargement(height, width, size=settings.size)
    return Film(
        path=output,
        num_frames=plan.num_frames,
        seconds=segments[-1].end,
        height=height * factor,
        width=width * factor,
        num_segments=len(segments),
        page=strip.page(plan.motion.drive),
        inversion_error=plan.inversion_error,
    )


def key_origin(manipulator: Manipulator, edit: PreparedEdit, settings: FilmSettings, *, song_sha256: str) -> KeyOrigin:
    """Return what the key codes of a film follow from."""
    return KeyOrigin(
        song_sha256=song_sha256,
        source=edit.source_sha256 or f"seed {edit.seed}",
        segment_seconds=settings.segment_seconds,
        settings=edit.settings,
        models=manipulator.model_digests,
        version=__version__,
    )


async def plan_film(
    manipulator: Manipulator,
    edit: PreparedEdit,
    segments: Sequence[Segment],
    envelopes: Envelopes | None,
    settings: FilmSettings,
    work: WorkFolder,
    watcher: Watcher = Unwatched(),  # noqa: B008 - has no state
) -> FilmPlan:
    """Find the key codes of a film that are not in ``work``, and where they take each frame.

    ``envelopes``: of the song, None with ``settings.react`` 0. Raises a child of `InvalidEdit`.
    """
    world, error, seconds = manipulator.world, float("nan"), segments[-1].end
    num_frames = math.ceil(round(seconds * settings.fps, 6))
    news = OnProgress(1, watcher.searching, preview=False)
    source = work.read_source(num_ws=world.num_ws, w_dim=world.generator.w_dim)
    if source is None:
        if edit.photo is not None:
            watcher.start("finding the photo", edit.settings.inversion_steps)
        code, error = await manipulator.find_source(edit, news)
        source = code.cpu().numpy()
        work.write_source(source)
    path = None
    if settings.semantic > 0:
        watcher.start("key codes", len(segments))
        keys = []
        async for key in find_keys(manipulator, source, segments, edit.settings, work=work, on_progress=news):
            watcher.found(key)
            keys.append(key.code)
        path = path_through(source, keys, [segment.middle for segment in segments], seconds=seconds)
    drive = None if envelopes is None else drive_of(envelopes, num_frames=num_frames, fps=settings.fps)
    walk = None if settings.semantic == 1 else _walk(world, edit.settings.view_seed, settings, seconds)
    return FilmPlan(Motion(source, path, drive, walk, settings), num_frames, error)


def draw_film(
    world: World,
    plan: FilmPlan,
    song: BinaryIO,
    path: Path,
    origin: KeyOrigin,
    watcher: Watcher = Unwatched(),  # noqa: B008 - has no state
) -> Strip:
    """Draw a film and encode it with its song into the local file ``path``; return its strip.

    ``origin`` is written into the file. Raises `InvalidAudio` where the song is damaged, and `OutputConflict` where
    there is no room.
    """
    settings = plan.motion.settings
    strip = Strip(settings.fps)
    height, width = world.picture_size
    factor = enlargement(height, width, size=settings.size)
    comment = json.dumps({"soundguide": {**json.loads(origin.model_dump_json()), "film": settings.model_dump()}})

    def tell(first: int, frames: Frames) -> None:
        strip.add(first, frames)
        watcher.drawn(first, frames)

    watcher.start("drawing", plan.num_frames)
    with (
        writing(str(path)),
        FilmWriter(
            path, height=height, width=width, factor=factor, fps=settings.fps, song=song, comment=comment
        ) as writer,
    ):
        render(world, plan.motion, plan.num_frames, writer, tell)
    return strip


def _walk(world: World, seed: int, settings: FilmSettings, seconds: float) -> CodePath:
    scale: NDArray[np.float32] = world.step_scale.to("cpu", torch.float32).numpy()
    return random_walk(scale, num_ws=world.num_ws, seconds=seconds, pace=settings.segment_seconds, seed=seed)
