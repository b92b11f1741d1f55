"""Edit every row of a manifest with Ray Data: `python jobs/bulk_manipulate.py --manifest M --output O`.

The same line works after `ray job submit --working-dir . --`. A run that was stopped goes on where it stopped when
the same line is given again. Settings come from flags, or from a YAML file with the same names (`--config`).
"""

import sys
import time
from collections.abc import Sequence
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from rich.console import Console
from rich.table import Table

from data_pipeline import Stages, connect, stream_rows
from edit_job import CALLS_PER_ACTOR, MAX_ROWS_PER_BLOCK, EditJobConfig
from error_summary import add_counts, add_errors_of, counted
from job_config import run_job
from job_logs import log_as, tell_start, told_end
from job_metrics import ByteCount
from soundguide.manifest import read_manifest
from soundguide.model_facts import ModelFacts, read_model_facts
from soundguide.records import STATUSES
from soundguide.run_folder import Facts, RunFolder, describe_run, identify
from soundguide.stages import EditFinisher, EditPreparer, SourceLimits
from soundguide.storage import Storage, join_uri
from soundguide.tables import refuse_prepared

_PROGRAM = "bulk_manipulate"
_USAGE = "python jobs/bulk_manipulate.py --manifest M --output O [--config F.yaml] [--any.nested.field V]"


class BulkConfig(EditJobConfig):
    manifest: Annotated[str, Field(description="CSV, JSON Lines or Parquet: id, audio, and image, seed or latent.")]
    limits: Annotated[SourceLimits, Field(description="What one row's files may cost.")] = SourceLimits()


def run(config: BulkConfig, console: Console) -> int:
    """Run the job; return the exit code. Raises InvalidProgram, before any model loads where that can be known."""
    log_as(config.log_format)
    storage = Storage(config.storage)
    manifest = read_manifest(config.manifest, storage)
    config = config.placed()
    facts = read_model_facts(config.manipulator, storage)
    config.require_identity(facts)
    folder = RunFolder(config.output, storage)
    with told_end(config.output) as told, folder.held():
        summary, rows = edit_all(config, manifest, facts, folder, console)
        told |= summary
    show(console, summary, rows, join_uri(config.output, "index.html"))
    return 3 if config.strict and summary["ok"] < summary["rows"] else 0


def edit_all(
    config: BulkConfig, manifest: pa.Table, facts: ModelFacts, folder: RunFolder, console: Console
) -> tuple[Facts, pa.Table]:
    """Edit what is not done yet; return the counts, and a few columns of every row's result."""
    identity = identify(config.edit, config.limits, config.manipulator, facts)
    record = describe_run(identity, config.model_dump(mode="json"), facts.digests)
    config_hash = record["config_hash"]
    complete = folder.claim(identity, manifest)
    if config.retry_failed and folder.forget_failed(config_hash):
        complete = False
    started, num_before = time.monotonic(), folder.count_done(config_hash)
    tell_start(config.output, rows=manifest.num_rows, done=num_before)
    if not complete:
        folder.write_record({**record, "status": "running"})
        from soundguide.manipulator import Manipulator  # loads torch: not before the manifest is known to be right

        read, written = (ByteCount(f"soundguide_bytes_{name}", _PROGRAM) for name in ("read", "written"))
        preparer = EditPreparer(facts, config.edit, folder.storage, config.limits, read)
        num_rows = manifest.num_rows - num_before
        if not config.shows_bars:
            console.print(f"editing {counted(num_rows, 'row')}; pictures appear in {join_uri(config.output, 'images')}")
        with connect(config.address, actor_cpus=config.pool.cpus, log_format=config.log_format) as place:
            if place:
                console.print(place, style="dim")
            stream_rows(
                folder,
                Stages(
                    preparer.prepare_table,
                    preparer.refuse,
                    Manipulator,
                    config.manipulator,
                    _PROGRAM,
                    refuse_prepared,
                    EditFinisher(config.output, facts.digests, folder.storage, written).finish_table,
                ),
                pool=config.pool,
                calls_per_actor=CALLS_PER_ACTOR,
                max_rows_per_block=MAX_ROWS_PER_BLOCK,
                num_rows=num_rows,
                config_hash=config_hash,
                progress=config.shows_bars,
            )
    rows = folder.reconcile(manifest)
    summary = {
        "rows": rows.num_rows,
        **{name: pc.sum(pc.equal(rows["status"], name)).as_py() for name in STATUSES},
    }
    seconds, computed = time.monotonic() - started, rows.num_rows - num_before
    summary |= {
        "computed": computed,
        "seconds": round(seconds, 1),
        "rows_per_minute": round(60 * computed / seconds, 1),
    }
    if not complete:
        folder.write_record({**record, "status": "complete", **summary})
        folder.write_sheet(rows, manifest, {**record, **summary})
    return summary, rows


def show(console: Console, summary: Facts, rows: pa.Table, index: str) -> None:
    """Print the counts, the most common errors with an example of each, and where to look."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    add_counts(table, "rows", summary)
    speed = f" in {summary['seconds']:,} s, {summary['rows_per_minute']:,} rows per minute"
    table.add_row(
        "computed now", f"{summary['computed']:,}" + (speed if summary["computed"] else ", all were done before")
    )
    add_errors_of(table, rows)
    table.add_row("look at", index, style="bold")
    console.print(table)


def main(argv: Sequence[str]) -> int:
    """Run the program with the arguments `argv`; return its exit code."""
    return run_job(run, BulkConfig, argv, usage=_USAGE, description=str(__doc__))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
