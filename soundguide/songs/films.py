"""Films in bulk: the actor of a music run whose rows are films, each with a still of its own."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from soundguide.cache import ContentCache
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidEdit, InvalidSettings, SourceNotFound
from soundguide.film.make import FilmPlan, draw_film, key_origin, plan_film
from soundguide.film.reaction import Envelopes, measure_song
from soundguide.film.segments import Segment, at_one_level, film_segments
from soundguide.film.settings import FilmSettings
from soundguide.film.work import KeyOrigin, WorkFolder
from soundguide.manipulator import Manipulator
from soundguide.records import ManipulatedEdit, PreparedEdit, Row
from soundguide.slots import Load
from soundguide.songs.embed import SongFiles
from soundguide.songs.hashing import hash_file
from soundguide.storage import Storage, escape_id, join_uri
from soundguide.tables import failed_row, manipulated_row, manipulated_table
from soundguide.world import World, to_bytes

_MEASURED_BYTES = 64 * 2**20  # of envelopes: a megabyte for each hour of music


@dataclass(frozen=True, slots=True)
class FilmFiles:
    """Where films of a run appear, under the folder ``output``, and how they are made, from the songs in ``songs``."""

    output: str
    songs: SongFiles
    settings: FilmSettings
    format: str

    def name(self, id: str) -> str:
        """Return the file of a row's film, relative to the output folder."""
        return f"films/{escape_id(id)}.{self.format}"

    def work_uri(self, id: str, origin: KeyOrigin) -> str:
        """Return the folder of what of a row's film is finished; one for each origin, so that none is in the way."""
        return join_uri(self.output, "_run", "films", f"{escape_id(id)}-{origin.digest()[:12]}")


class FilmMaker:
    """Makes the films of prepared rows; their segments were heard when the run heard its songs.

    Key codes of several films are searched side by side, and one film is drawn at a time. A row's still is the frame in
    the middle of the segment that is most like the whole song; its similarities are means over the middles of all
    segments in which something is heard, so that they say how close the film is to its song.
    """

    def __init__(self, files: FilmFiles, config: ManipulatorConfig, storage: Storage) -> None:
        self.files, self.storage = files, storage
        self._manipulator = Manipulator(config, storage)
        self._drawing = asyncio.Lock()
        self._measured: ContentCache[Envelopes] = ContentCache(
            max_bytes=_MEASURED_BYTES, size_of=lambda it: it.level_db.nbytes + it.flux.nbytes + it.beats.nbytes
        )

    @property
    def load(self) -> Load:
        """How busy the optimiser is."""
        return self._manipulator.load

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Make the films of a prepared table, order kept; a row's failure is its own error."""
        return manipulated_table(await asyncio.gather(*map(self._row, batch.to_pylist())))

    async def _row(self, row: Row) -> Row:
        if row["error"]:
            return failed_row(row)
        wrapped = json.loads(row["request"])
        try:
            made = await self._film(PreparedEdit.from_row(row), wrapped["request"].get("audio", ""))
        except InvalidEdit as error:
            return failed_row(row, error)
        wrapped["song"]["film"] = self.files.name(made.id)
        told = json.dumps(wrapped, ensure_ascii=False, sort_keys=True)
        return {**manipulated_row(made, prepared=row), "request": told}

    async def _film(self, edit: PreparedEdit, song: str) -> ManipulatedEdit:
        """Write the film of one row; return its still and measures. Raises a child of `InvalidEdit`."""
        if not song:
            raise InvalidSettings(f"{edit.id}: a film needs a song, and this row is guided by a text alone")
        started, files, settings = time.monotonic(), self.files, self.files.settings
        world = self._manipulator.world
        heard = await asyncio.to_thread(files.songs.read, files.songs.name(edit.sound_sha256))
        segments = at_one_level(film_segments(heard, device=world.device))
        envelopes = None
        if settings.react > 0:
            envelopes = await self._measured.get(edit.sound_sha256, lambda: asyncio.to_thread(self._measure, song))
        origin = key_origin(self._manipulator, edit, settings, song_sha256=edit.sound_sha256)
        work = await asyncio.to_thread(WorkFolder, files.work_uri(edit.id, origin), origin, self.storage)
        plan = await plan_film(self._manipulator, edit, segments, envelopes, settings, work)
        async with self._drawing:
            await asyncio.to_thread(self._draw, edit, plan, song, origin)
            made = await asyncio.to_thread(_look, edit, plan, segments, world)
        await asyncio.to_thread(work.remove)
        return replace(made, seconds=time.monotonic() - started)

    def _measure(self, song: str) -> Envelopes:
        with self.storage.open(song) as file:
            return measure_song(file)

    def _draw(self, edit: PreparedEdit, plan: FilmPlan, song: str, origin: KeyOrigin) -> None:
        """Draw a film on this machine's own disk, and put it in its place when it is whole."""
        with tempfile.TemporaryDirectory(prefix="sg-film-") as folder, self.storage.open(song) as file:
            if hash_file(file) != edit.sound_sha256:
                raise SourceNotFound(f"{song} is not the song that was heard any more; put that one back in its place")
            path = Path(folder) / f"film.{self.files.format}"
            draw_film(self._manipulator.world, plan, file, path, origin)
            self.storage.write_file(join_uri(self.files.output, self.files.name(edit.id)), path)


def _look(edit: PreparedEdit, plan: FilmPlan, segments: list[Segment], world: World) -> ManipulatedEdit:
    """Return the still of a film and how close its frames are to what is heard in its song."""
    assert edit.embedding is not None, "songs are heard before they are filmed"
    motion, whole = plan.motion, torch.tensor(edit.embedding, device=world.device)
    source, source_embedding = world.look(torch.tensor(motion.source, device=world.device))
    before, after, best = [], [], (-2.0, to_bytes(source), motion.source)
    for segment in segments:
        if segment.heard is None:
            continue
        frame = min(int(segment.middle * motion.settings.fps), plan.num_frames - 1)
        code = motion.codes(frame, frame + 1)[0]
        image, embedding = world.look(torch.tensor(code, device=world.device))
        before.append(float(source_embedding @ segment.heard.embedding))
        after.append(float(embedding @ segment.heard.embedding))
        typical = float(whole @ segment.heard.embedding)
        if typical > best[0]:
            best = (typical, to_bytes(image), code)
    _, still, code = best
    return ManipulatedEdit(
        id=edit.id,
        image=still,
        source=to_bytes(source),
        ws=code,
        similarity_before=float(np.mean(before)),
        similarity_after=float(np.mean(after)),
        latent_distance=float(np.linalg.norm(code - motion.source)),
        gates=(),
        steps=edit.settings.num_steps,
        seconds=0.0,
        threads=torch.get_num_threads() if world.device.type == "cpu" else 0,
        inversion_error=plan.inversion_error,
        alignment_note=edit.alignment_note,
        level_db=edit.level_db,
        labels=world.listener.top(whole),
    )
