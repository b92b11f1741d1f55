r"""Turn videos and sounds into training clips with Ray Data: shards of sounds, frames, texts and their embeddings.

a manifest of your own (CSV, JSON Lines or Parquet):
  id,video,label
  rain-1,videos/a.mp4,raining
  storm,videos/b.webm,raining|thunderstorm

  python jobs/prepare_clips.py --manifest clips.csv --output prepared

  Columns: id, video (or audio, with an image or without), label (several with | between them) or text; optional:
  split, source_id (the recording), start_seconds, end_seconds.

VGG-Sound, its CSV and a folder of videos named like ---g-f_I2yQ_000001.mp4:
  python jobs/prepare_clips.py --vggsound vggsound.csv --media videos --output prepared

AudioSet, its lists and a folder of videos or sounds, here on S3:
  python jobs/prepare_clips.py --audioset balanced_train_segments.csv,eval_segments.csv \
      --class_names class_labels_indices.csv --media s3://bucket/audioset --output s3://bucket/prepared

Folders that hold whole recordings, not trimmed clips: add --files recordings.

The output folder has results/*.parquet (a row for each clip; those with status "ok" are samples), weak_partners/ and
run.json. A run that was stopped goes on where it stopped when the same line is given again, and clips that joined the
list or the folder since are added. The same line works after `ray job submit --working-dir . --`.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator
from rich.console import Console
from rich.table import Table

from data_pipeline import PoolConfig, Stages, connect, stream_rows
from error_summary import add_counts, add_errors_of
from job_config import RowJobConfig, is_submitted, place_output, run_job
from job_logs import log_as, tell_start, told_end
from job_metrics import ByteCount
from soundguide import __version__
from soundguide.clips.decode import ClipDecoder, ClipLimits, ClipSettings
from soundguide.clips.facts import EmbedderConfig, EncoderFacts, read_encoder_facts
from soundguide.clips.shards import open_shards, reconcile_clips, weak_partners_uri
from soundguide.clips.sources import ClipRequests, Files, read_audioset, read_plain, read_vggsound
from soundguide.clips.splits import SPLITS
from soundguide.clips.weak_partners import write_tables
from soundguide.models.manifest import MINIATURE, PACKAGED
from soundguide.records import STATUSES
from soundguide.run_folder import Facts, RunFolder, describe_run
from soundguide.storage import Storage, resolve_uri

_MAX_ROWS_PER_BLOCK = 128  # of clips of 10 s: below the 128 MiB at which Ray Data cuts blocks anyway
_FRAME_SCALE = 2  # frames are kept at twice the side at which the encoder reads them: room for crops
_HOW = {"device", "batch_size", "num_threads", "image_text"}  # how embeddings are made, but not what they are
_PROGRAM = "prepare_clips"
_USAGE = "python jobs/prepare_clips.py (--manifest | --vggsound | --audioset) LIST --output O [--any.nested.field V]"


class ClipsConfig(RowJobConfig):
    manifest: Annotated[str, Field(description="A manifest of clips: CSV, JSON Lines or Parquet.")] = ""
    vggsound: Annotated[str, Field(description="VGG-Sound's CSV; with --media.")] = ""
    audioset: Annotated[
        tuple[str, ...], Field(description="AudioSet's segment CSVs, commas between; with --media and --class_names.")
    ] = ()
    class_names: Annotated[str, Field(description="AudioSet's class_labels_indices.csv.")] = ""
    media: Annotated[str, Field(description="Folder of the data set's videos or sounds, at any depth.")] = ""
    files: Annotated[Files, Field(description="What that folder's files hold: trimmed clips or whole recordings.")] = (
        "clips"
    )
    output: Annotated[str, Field(description="Folder for the shards, the weak partners and run.json.")]
    validation_share: Annotated[
        float, Field(ge=0, lt=1, description="Share of recordings to validate on, where the data says none.")
    ] = 0.05
    audio: Annotated[str, Field(description="Sound encoder whose rate sounds get: a model folder, or 'miniature'.")] = (
        MINIATURE
    )
    sample_rate: Annotated[int, Field(ge=0, le=192_000, description="Another rate, Hz; 0: that encoder's.")] = 0
    clip: Annotated[ClipSettings, Field(description="What a clip is.")] = ClipSettings()
    embedder: Annotated[EmbedderConfig, Field(description="The image-text encoder.")] = EmbedderConfig()
    limits: Annotated[ClipLimits, Field(description="What one clip's files may cost.")] = ClipLimits()
    pool: Annotated[PoolConfig, Field(description="The actors that embed.")] = PoolConfig()

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        lists = [name for name in ("manifest", "vggsound", "audioset") if getattr(self, name)]
        if len(lists) != 1:
            raise ValueError(f"give one of manifest, vggsound and audioset, got {' and '.join(lists) or 'none'}")
        needed = {"manifest": (), "vggsound": ("media",), "audioset": ("media", "class_names")}[lists[0]]
        missing = [name for name in needed if not getattr(self, name)]
        if missing:
            raise ValueError(f"{lists[0]} needs {' and '.join(missing)} too. Add --{' and --'.join(missing)}")
        return self


def read_requests(config: ClipsConfig, storage: Storage) -> ClipRequests:
    share = config.validation_share
    if config.manifest:
        return read_plain(config.manifest, storage, validation_share=share)
    media = resolve_uri(config.media, base=".")  # workers stand in another folder
    if config.vggsound:
        return read_vggsound(config.vggsound, media, storage, files=config.files, validation_share=share)
    return read_audioset(
        config.audioset, config.class_names, media, storage, files=config.files, validation_share=share
    )


def run(config: ClipsConfig, console: Console) -> int:
    """Run the job; return the exit code. Raises InvalidProgram, before any model loads where that can be known."""
    log_as(config.log_format)
    storage = Storage(config.storage)
    requests = read_requests(config, storage)
    config = _place(config)
    facts = read_encoder_facts(
        image_text=config.embedder.image_text, audio=config.audio, sample_rate=config.sample_rate
    )
    folder = RunFolder(config.output, storage)
    with told_end(config.output) as told, folder.held():
        summary, rows = prepare_all(config, requests, facts, folder, console)
        told |= summary
    show(console, summary, rows, config.output)
    return 3 if config.strict and summary["ok"] < summary["rows"] else 0


def prepare_all(
    config: ClipsConfig, requests: ClipRequests, facts: EncoderFacts, folder: RunFolder, console: Console
) -> tuple[Facts, pa.Table]:
    """Prepare what is not done yet; return the counts, and a few columns of every clip's row."""
    identity = identify(config, facts)
    record = describe_run(identity, config.model_dump(mode="json"), facts.digests)
    config_hash = record["config_hash"]
    complete = folder.claim(identity, requests.table)
    if config.retry_failed and folder.forget_failed(config_hash):
        complete = False
    started, num_before = time.monotonic(), folder.count_done(config_hash)
    tell_start(config.output, rows=requests.table.num_rows, done=num_before)
    if not complete:
        folder.write_record({**record, "status": "running"})
        from soundguide.clips.embed import ClipEmbedder  # loads torch: not before the requests are known to be right

        side = _FRAME_SCALE * facts.resolution
        read = ByteCount("soundguide_bytes_read", _PROGRAM)
        decoder = ClipDecoder(facts.sample_rate, side, config.clip, config.limits, folder.storage, read)
        with connect(config.address, actor_cpus=config.pool.cpus, log_format=config.log_format) as place:
            if place:
                console.print(place, style="dim")
            stream_rows(
                folder,
                Stages(decoder.decode_table, decoder.refuse, ClipEmbedder, config.embedder, _PROGRAM),
                pool=config.pool,
                calls_per_actor=1,
                max_rows_per_block=_MAX_ROWS_PER_BLOCK,
                num_rows=requests.table.num_rows - num_before,
                config_hash=config_hash,
                progress=config.shows_bars,
            )
    rows = reconcile_clips(folder, requests.table, embed_dim=facts.embed_dim)
    summary = summarise(rows, requests)
    summary |= {"computed": rows.num_rows - num_before, "seconds": round(time.monotonic() - started, 1)}
    if not complete:
        tables = write_tables(open_shards(folder, embed_dim=facts.embed_dim), weak_partners_uri(folder), folder.storage)
        partners = {split: dataclasses.asdict(table) for split, table in tables.items()}
        folder.write_record({**record, "status": "complete", "weak_partners": partners, **summary})
    return summary, rows


def identify(config: ClipsConfig, facts: EncoderFacts) -> Facts:
    """Return all that decides what a clip becomes: an output folder belongs to one such identity."""
    return {
        "clip": config.clip.model_dump(mode="json"),
        "limits": config.limits.model_dump(mode="json"),
        "embedder": config.embedder.model_dump(mode="json", exclude=_HOW),
        "sample_rate": facts.sample_rate,
        "validation_share": config.validation_share,
        "models": dict(facts.digests),
        "version": __version__,
    }


def summarise(rows: pa.Table, requests: ClipRequests) -> Facts:
    """Return the counts of what `reconcile_clips` gave: in all, by outcome, by kind of error and by split."""
    good = rows.filter(pc.equal(rows["status"], "ok"))
    kinds = pc.value_counts(rows.filter(pc.not_equal(rows["status"], "ok"))["error_kind"]).to_pylist()
    counts = {name: pc.sum(pc.equal(rows["status"], name)).as_py() or 0 for name in STATUSES}
    return {
        "rows": rows.num_rows,
        **counts,
        "errors": {kind["values"]: kind["counts"] for kind in sorted(kinds, key=lambda kind: -kind["counts"])},
        "splits": {split: pc.sum(pc.equal(good["split"], split)).as_py() or 0 for split in SPLITS},
        "without_frame": pc.sum(pc.invert(good["has_frame"])).as_py() or 0,
        "without_file": requests.num_missing,
        "without_file_examples": list(requests.missing),
    }


def show(console: Console, summary: Facts, rows: pa.Table, output: str) -> None:
    """Print the counts, the most common errors with an example of each, and where the clips are."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    add_counts(table, "clips", summary)
    table.add_row("splits", ", ".join(f"{count:,} {split}" for split, count in summary["splits"].items()))
    if summary["without_file"]:
        examples = ", ".join(summary["without_file_examples"])
        table.add_row("left out", f"{summary['without_file']:,} that have no file, such as {examples}", style="yellow")
    if summary["without_frame"]:
        table.add_row("sound alone", f"{summary['without_frame']:,} have no frame")
    now = f" in {summary['seconds']:,} s" if summary["computed"] else ", all were done before"
    table.add_row("computed now", f"{summary['computed']:,}{now}")
    add_errors_of(table, rows)
    table.add_row("look at", output, style="bold")
    console.print(table)


def main(argv: Sequence[str]) -> int:
    """Run the program with the arguments `argv`; return its exit code."""
    return run_job(run, ClipsConfig, argv, usage=_USAGE, description=str(__doc__))


def _place(config: ClipsConfig) -> ClipsConfig:
    """Return the config with absolute folders, for actors may work in another; a submitted job must name them so."""
    names = {} if is_submitted() else {name: getattr(config.embedder, name) for name in ("image_text", "wordnet")}
    folders = {name: os.path.abspath(path) for name, path in names.items() if path and path not in PACKAGED}
    embedder = config.embedder.model_copy(update=folders)
    return config.model_copy(update={"output": place_output(config.output), "embedder": embedder})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
