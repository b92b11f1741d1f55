r"""Edit pictures by songs with Ray Data: every song meets every picture, or the pairs of a manifest.

a folder of songs over a folder of pictures, overnight:
  python jobs/music_style.py --songs albums --images photos --output out/music

over pictures that the generator draws, without any file:
  python jobs/music_style.py --songs albums --seeds 28,138,12 --output out/music

a picture for each 10 s of each song:
  python jobs/music_style.py --songs albums --images photos --per_segment --output out/segments

a film for each song and picture:
  python jobs/music_style.py --songs albums --images photos --films --output out/films

chosen pairs, in the manifest's form of the bulk job (CSV, JSON Lines or Parquet: id, audio, and image, seed or latent):
  python jobs/music_style.py --pairs pairs.csv --output out/pairs

Songs are of any length and format, in folders of any depth, local or s3://bucket/songs. Each is cut into segments and
heard once, however many pictures it meets. A still follows the whole song, its segments pooled (--pooling). A broken
song costs its rows, a broken picture its column. The output folder has images/, results/*.parquet, run.json and
index.html with a player for each song. A run that was stopped goes on where it stopped when the same line is given
again, and songs and pictures that joined the folders since are added. The same line works after
`ray job submit --working-dir . --`.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from data_pipeline import Stages, connect, stream_rows
from edit_job import CALLS_PER_ACTOR, MAX_ROWS_PER_BLOCK
from error_summary import add_counts, counted
from job_config import run_job
from job_logs import log_as, tell_start, told_end
from job_metrics import ByteCount
from music_config import MusicConfig, Sources, read_sources
from soundguide import __version__
from soundguide.cli.console import add_errors
from soundguide.model_facts import ModelFacts, read_model_facts
from soundguide.run_folder import Facts, RunFolder, describe_run, identify
from soundguide.songs.edits import SongEditFinisher, SongEditPreparer
from soundguide.songs.embed import SONG_SCHEMA, SongEmbedder, SongFiles, refuse_songs, songs_as_given
from soundguide.songs.music_run import identify_songs, music_folder, song_files, song_folder
from soundguide.songs.overview import Overview, reconcile_rows
from soundguide.songs.rows import SongRows
from soundguide.songs.sheet import write_music_sheet
from soundguide.stages import EditFinisher, EditPreparer
from soundguide.storage import Storage, join_uri
from soundguide.tables import refuse_prepared

_SONGS_PER_ACTOR = 2  # one is decoded while the other is in the encoder
_PROGRAM, _HEARING = "music_style", "music_songs"
_USAGE = "python jobs/music_style.py (--songs DIR (--images DIR | --seeds N,N) | --pairs M) --output O [--any.field V]"


def run(config: MusicConfig, console: Console) -> int:
    """Run the job; return the exit code. Raises InvalidProgram, before any model loads where that can be known."""
    log_as(config.log_format)
    storage = Storage(config.storage)
    config = config.placed()
    folder = music_folder(config.output, storage, config.music.meeting)
    sources = read_sources(config, folder)
    config.require_films()
    facts = read_model_facts(config.manipulator, storage)
    config.require_identity(facts)
    with told_end(config.output) as told, folder.held():
        summary, overview = Job(config, sources, facts, folder, console).run()
        told |= summary
    show(console, summary, overview, join_uri(config.output, "index.html"))
    return 3 if config.strict and summary["ok"] < summary["rows"] else 0


@dataclass(frozen=True)
class Job:
    """One start of a run: what is not heard yet is heard, and then what is not edited yet is edited."""

    config: MusicConfig
    sources: Sources
    facts: ModelFacts
    folder: RunFolder
    console: Console

    def run(self) -> tuple[Facts, Overview]:
        """Do what is not done yet; return the counts."""
        config, folder, songs_in = self.config, self.folder, song_folder(self.folder)
        identity = identify(config.edit, config.limits, config.manipulator, self.facts)
        identity |= {"music": config.music.model_dump(mode="json")}
        record, song_record = self._describe(identity), self._describe(self._identify_songs())
        complete = folder.claim(identity, self.sources.manifest)
        heard = songs_in.claim(song_record["identity"], self.sources.songs)
        if config.retry_failed:
            heard = not songs_in.forget_failed(song_record["config_hash"]) and heard
            complete = not folder.forget_failed(record["config_hash"]) and complete
        complete = complete and heard
        started, num_before = time.monotonic(), folder.count_done(record["config_hash"])
        rows = self._rows() if heard else None
        tell_start(config.output, rows=None if rows is None else rows.num_rows, done=num_before)
        if not complete or rows is None:
            folder.write_record({**record, "status": "running"})
            with connect(config.address, actor_cpus=config.pool.cpus, log_format=config.log_format) as place:
                if place:
                    self.console.print(place, style="dim")
                if not heard:
                    self._hear(song_record)
                rows = self._rows()
                folder.write_record({**record, "status": "running", "rows": rows.num_rows})
                self._edit(rows, record["config_hash"], num_rows=rows.num_rows - num_before)
        overview = reconcile_rows(folder, rows)
        summary = self._summarise(overview, num_before=num_before, seconds=time.monotonic() - started)
        if not complete:
            folder.write_record({**record, "status": "complete", **summary})
            write_music_sheet(folder, rows, self._files, overview, {**record, **summary})
        return summary, overview

    def _hear(self, record: Facts) -> None:
        """Embed the songs that no earlier run has heard, and write down that all are."""
        songs_in, songs = song_folder(self.folder), self.sources.songs
        songs_in.write_record({**record, "status": "running"})
        left = songs.num_rows - songs_in.count_done(record["config_hash"])
        if not songs.num_rows:  # all are guided by texts
            songs_in.write_record({**record, "status": "complete", "rows": 0})
            return
        if not self.config.shows_bars:
            self.console.print(f"hearing {counted(left, 'song')}, in segments of {self.config.segment_seconds:g} s")
        read = ByteCount("soundguide_bytes_read", _HEARING)
        stream_rows(
            songs_in,
            Stages(
                songs_as_given,
                refuse_songs,
                partial(SongEmbedder, self._files, self.config.limits.audio, read),
                self.config.manipulator,
                _HEARING,
                refuse_songs,
            ),
            # a song may take minutes, and must not wait for others to be kept
            pool=self.config.pool.model_copy(update={"rows_per_block": 1}),
            calls_per_actor=_SONGS_PER_ACTOR,
            max_rows_per_block=1,
            num_rows=left,
            config_hash=record["config_hash"],
            progress=self.config.shows_bars,
        )
        self._read_songs()  # or they would count as heard although results are missing
        songs_in.write_record({**record, "status": "complete", "rows": songs.num_rows})

    def _edit(self, rows: SongRows, config_hash: str, *, num_rows: int) -> None:
        """Edit the rows that no earlier run has edited, ``num_rows``."""
        from song_source import SongSource  # imports Ray
        from soundguide.film.settings import FilmSettings
        from soundguide.manipulator import Manipulator  # loads torch
        from soundguide.songs.films import FilmFiles, FilmMaker

        config, storage, digests = self.config, self.folder.storage, self.facts.digests
        read, written = (ByteCount(f"soundguide_bytes_{name}", _PROGRAM) for name in ("read", "written"))
        base = EditPreparer(self.facts, config.edit, storage, config.limits, read)
        preparer = SongEditPreparer(base, self._files, config.pooling)
        actor: Callable[..., Manipulator | FilmMaker] = Manipulator
        pool, max_rows, kind = config.pool, MAX_ROWS_PER_BLOCK, "images"
        if config.films:
            settings = FilmSettings(**config.film.model_dump(), segment_seconds=config.segment_seconds)
            actor = partial(FilmMaker, FilmFiles(config.output, self._files, settings, config.film_format))
            pool = pool.model_copy(update={"rows_per_block": pool.rows_per_block or 1})  # a film may take minutes
            max_rows, kind = 1, "films"
        if not config.shows_bars:
            self.console.print(f"editing {counted(num_rows, 'row')}; {kind} appear in {join_uri(config.output, kind)}")
        stream_rows(
            self.folder,
            Stages(
                preparer.prepare_table,
                preparer.refuse,
                actor,
                config.manipulator,
                _PROGRAM,
                refuse_prepared,
                SongEditFinisher(EditFinisher(config.output, digests, storage, written)).finish_table,
            ),
            pool=pool,
            calls_per_actor=CALLS_PER_ACTOR,
            max_rows_per_block=max_rows,
            num_rows=num_rows,
            config_hash=config_hash,
            progress=config.shows_bars,
            source=lambda: SongSource(rows),
        )

    def _rows(self) -> SongRows:
        return SongRows.of(
            self.sources.groups, self.sources.pictures, self._read_songs(), per_segment=self.config.per_segment
        )

    def _read_songs(self) -> pa.Table:
        return song_folder(self.folder).reconcile(self.sources.songs, tuple(SONG_SCHEMA.names))

    @property
    def _files(self) -> SongFiles:
        return song_files(self.folder, self.facts, self.config.segment_seconds)

    def _describe(self, identity: Facts) -> Facts:
        return describe_run(identity, self.config.model_dump(mode="json"), self.facts.digests)

    def _identify_songs(self) -> Facts:
        return identify_songs(self.config.music, self.config.limits, self.facts, __version__)

    def _summarise(self, overview: Overview, *, num_before: int, seconds: float) -> Facts:
        songs, counts = self._read_songs(), overview.counts
        computed = counts["rows"] - num_before
        return {
            **counts,
            "songs": songs.num_rows,
            "songs_not_heard": pc.sum(pc.not_equal(songs["status"], "ok")).as_py() or 0,
            "segments": pc.sum(songs["num_segments"]).as_py() or 0,
            "computed": computed,
            "seconds": round(seconds, 1),
            "rows_per_minute": round(60 * computed / seconds, 1),
        }


def show(console: Console, summary: Facts, overview: Overview, index: str) -> None:
    """Print the counts, the most common errors with an example of each, and where to look."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    add_counts(table, "rows", summary)
    not_heard = f", {summary['songs_not_heard']:,} could not be heard" if summary["songs_not_heard"] else ""
    table.add_row("songs", f"{summary['songs']:,} in {summary['segments']:,} segments{not_heard}")
    speed = f" in {summary['seconds']:,} s, {summary['rows_per_minute']:,} rows per minute"
    table.add_row(
        "computed now", f"{summary['computed']:,}" + (speed if summary["computed"] else ", all were done before")
    )
    add_errors(table, overview.tally.errors)
    table.add_row("look at", index, style="bold")
    console.print(table)


def main(argv: Sequence[str]) -> int:
    """Run the program with the arguments `argv`; return its exit code."""
    return run_job(run, MusicConfig, argv, usage=_USAGE, description=str(__doc__))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
