"""``soundguide status``: how far a job is, from its output folder alone."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from soundguide.cli.border import examples

if TYPE_CHECKING:
    from rich.table import Table

    from soundguide.run_folder import RunFolder
    from soundguide.run_status import RunStatus
    from soundguide.training_status import TrainingStatus

BROKEN = 3  # the exit code where the run is not finished and nobody is at work

_EVERY_SECONDS = 2.0
_COLOURS = {"running": "cyan", "complete": "green", "broken": "red"}
_EPILOG = examples(
    ("how far is it?", "status out/pairs"),
    ("look on until it ends", "status out/pairs --watch"),
    ("a training on S3", "status s3://bucket/encoder"),
    ("for a program; exit code 3 where the run was killed or failed", "status out/pairs --json"),
    ("a line of JSON every two seconds", "status out/pairs --watch --json"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(status)


def status(
    run: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="Output folder of a job, or its run.json; a path or s3:// URI.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON; docs/bulk.md names its fields.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds until it is not running.")] = (
        False
    ),
) -> None:
    """Tell how far a job is (edits of a manifest, clips, a training) from its output folder, which is only read.

    Exits with 0 where the run is at work or complete, with 3 where it is broken.
    """
    from soundguide.cli.console import err
    from soundguide.run_folder import RunFolder

    parent, name = posixpath.split(run)
    looks = _look_on(RunFolder((parent or ".") if name == "run.json" else run))
    with err.status("looking"):
        found = next(looks)
    if watch:
        found = _follow(found, looks, json=json)
    else:
        _print(found, json=json)
    if found.state == "broken":
        raise typer.Exit(BROKEN)


def _look_on(folder: RunFolder) -> Iterator[RunStatus]:
    """Yield how the run stands, time and again, the last time when it is not running any more."""
    from soundguide.result_counts import ResultCounter
    from soundguide.run_status import read_status

    counter = ResultCounter(folder)
    while True:
        found = read_status(folder, counter)
        yield found
        if found.state != "running":
            return
        time.sleep(_EVERY_SECONDS)


def _print(found: RunStatus, *, json: bool) -> None:
    from soundguide.cli.console import out

    if json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        out.print(_to_table(found))


def _follow(found: RunStatus, looks: Iterator[RunStatus], *, json: bool) -> RunStatus:
    """Show each look, JSON as a line or a table in the place of the one before, and return the last."""
    from rich.live import Live

    from soundguide.cli.console import out

    if json:
        typer.echo(found.model_dump_json())
        for found in looks:
            typer.echo(found.model_dump_json())
        return found
    with Live(_to_table(found), console=out, auto_refresh=False) as live:
        for found in looks:
            live.update(_to_table(found), refresh=True)
    return found


def _to_table(found: RunStatus) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    what = f"{found.job}, version {found.version}, configuration {found.config_hash}" if found.job else "about to begin"
    table.add_row("job", what)
    table.add_row("state", Text(found.state, style=f"bold {_COLOURS[found.state]}"))
    if found.holder is not None:
        who, heard = found.holder, _ago(found.holder.last_heard)
        table.add_row("run by", Text(f"process {who.pid} on {who.host}, heard of {heard}"))
    if found.started is not None:
        table.add_row("started", f"{found.started.astimezone():%Y-%m-%d %H:%M:%S}, {_ago(found.started)}")
    if found.ended is not None:
        table.add_row("ended", f"{found.ended.astimezone():%Y-%m-%d %H:%M:%S}, {_ago(found.ended)}")
    elif found.state == "broken" and found.last_change is not None:
        table.add_row("last change", _ago(found.last_change))
    if found.rows is not None:
        _add_rows(table, found)
    if found.training is not None:
        _add_training(table, found.training, found.remaining_seconds)
    if found.state == "broken":
        table.add_row("to go on", Text(_advice(found), style="yellow"))
    return table


def _add_rows(table: Table, found: RunStatus) -> None:
    from soundguide.cli.console import add_errors

    assert found.rows is not None
    rows = found.rows
    _add_bar(table, rows.done, rows.total, "rows")
    if rows.done:
        outcome = f"{rows.ok:,} ok, {rows.error:,} with errors"
        table.add_row("ended as", outcome + (f", {rows.quarantined:,} quarantined" if rows.quarantined else ""))
    if found.rows_per_minute is not None:
        table.add_row("speed", _speed(found.rows_per_minute, "rows per minute", found.remaining_seconds))
    add_errors(table, found.errors)


def _add_training(table: Table, training: TrainingStatus, remaining_seconds: float | None) -> None:
    _add_bar(table, training.step, training.num_steps, "steps")
    table.add_row("epochs", f"{training.epochs_done:,} of {training.num_epochs:,}")
    if training.loss is not None:
        table.add_row("loss", f"{training.loss:.3f}")
    if training.validation_accuracy is not None:
        table.add_row("validation", f"{training.validation_accuracy:.1%} of its sounds named right")
    if training.clips_per_second is not None:
        table.add_row("speed", _speed(training.clips_per_second, "clips per second", remaining_seconds))
    if training.checkpoint is not None:
        table.add_row("checkpoint", f"{training.checkpoint.name}, at step {training.checkpoint.step:,}")


def _add_bar(table: Table, done: int, total: int, unit: str) -> None:
    from rich.text import Text

    from soundguide.cli.console import bar

    share = done / total if total else 0.0
    # rounded down: all is not done before it is
    table.add_row("done", Text.assemble(bar(share), f" {int(100 * share)} %, {done:,} of {total:,} {unit}"))


def _speed(value: float, unit: str, remaining_seconds: float | None) -> str:
    left = "" if remaining_seconds is None else f", about {_span(remaining_seconds)} left"
    return (f"{value:,.0f}" if value >= 10 else f"{value:.2g}") + f" {unit}{left}"


def _advice(found: RunStatus) -> str:
    """Say what became of a broken run, and how it goes on."""
    what = "nobody is at work in it: it was killed, or it failed. Give the same command again"
    if found.training is not None:
        begun = found.training.checkpoint
        return f"{what}; it goes on from {f'step {begun.step:,}' if begun else 'the beginning'}"
    left = 0 if found.rows is None else found.rows.total - found.rows.done
    return f"{what}; it computes the {left:,} rows that are left" if left else f"{what}; only its summary is missing"


def _ago(then: datetime) -> str:
    return f"{_span((datetime.now(UTC) - then).total_seconds())} ago"


def _span(seconds: float) -> str:
    """Return a time in its two largest units: '2 h 05 min'."""
    whole = max(0, round(seconds))
    for unit, size, part, of_part in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // of_part:02} {part}"
    return f"{whole} s"
