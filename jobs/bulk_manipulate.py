"""Edit every row of a manifest with Ray Data: `python jobs/bulk_manipulate.py --manifest M --output O`.

The same line works after `ray job submit --working-dir . --`. A run that was stopped goes on where it stopped when
the same line is given again. Settings come from flags, or from a YAML file with the same names (`--config`).
"""

import hashlib
import json
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from rich.console import Console
from rich.table import Table

from bulk_pipeline import PoolConfig, connect, edit_rows, is_submitted
from soundguide import __version__
from soundguide.config import EditSettings, ManipulatorConfig, describe
from soundguide.errors import InvalidConfig, InvalidProgram
from soundguide.manifest import read_manifest
from soundguide.model_facts import absolute_models, read_model_facts
from soundguide.run_folder import Facts, RunFolder, identify, package_versions
from soundguide.stages import EditFinisher, EditPreparer, SourceLimits
from soundguide.storage import Storage, StorageConfig, join_uri, resolve_uri

_NUM_ERRORS = 5
_USAGE = "python jobs/bulk_manipulate.py --manifest M --output O [--config F.yaml] [--any.nested.field V]"


class BulkConfig(BaseSettings):
    """Edit every row of a manifest: pictures, sounds and texts in, edited pictures and a table of results out."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_use_class_docs_for_groups=True,
    )

    manifest: Annotated[str, Field(description="CSV, JSON Lines or Parquet: id, audio, and image, seed or latent.")]
    output: Annotated[str, Field(description="Folder for results, pictures, run.json and index.html.")]
    config: Annotated[str, Field(description="YAML file with any of these settings; flags win over it.")] = ""
    edit: Annotated[EditSettings, Field(description="Settings of all edits; columns of the manifest win.")] = (
        EditSettings()
    )
    manipulator: Annotated[ManipulatorConfig, Field(description="The models, and how they run.")] = ManipulatorConfig()
    pool: Annotated[PoolConfig, Field(description="The actors that edit.")] = PoolConfig()
    limits: Annotated[SourceLimits, Field(description="What one row's files may cost.")] = SourceLimits()
    storage: Annotated[StorageConfig, Field(description="How files are reached.")] = StorageConfig()
    strict: Annotated[bool, Field(description="Exit with 3 when some rows have errors.")] = False
    address: Annotated[str, Field(description="Ray cluster; empty: that of the submitted job, or a private one.")] = ""
    progress: Annotated[Literal["auto", "on", "off"], Field(description="Progress bars; auto: in a terminal.")] = "auto"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        **_: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Flags and YAML only: a variable named OUTPUT or LIMITS in somebody's environment must not change a run.
        return (init_settings,)


def load_config(argv: Sequence[str]) -> BulkConfig:
    """Return the configuration of flags over YAML over defaults. Raises InvalidConfig; exits for --help."""
    parser = ArgumentParser(prog="bulk_manipulate.py", usage=_USAGE, description=__doc__)
    flags = CliSettingsSource[Any](BulkConfig, cli_parse_args=list(argv), root_parser=parser)
    path = str(flags().get("config", ""))
    try:
        if path and not Path(path).is_file():
            raise InvalidConfig(f"config is {path!r}, which is no file. Check the path")
        layer = YamlConfigSettingsSource(BulkConfig, yaml_file=path)() if path else {}
        return BulkConfig(_cli_settings_source=flags, **layer)
    except ValidationError as exc:
        raise InvalidConfig(describe(exc, "arguments")) from exc
    except (yaml.YAMLError, UnicodeError, TypeError) as exc:
        raise InvalidConfig(f"{path} is no YAML of settings ({exc}). Write one 'name: value' per line") from exc


def run(config: BulkConfig, console: Console) -> int:
    """Run the job; return the exit code. Raises InvalidProgram, before any model loads where that can be known."""
    storage = Storage(config.storage)
    manifest = read_manifest(config.manifest, storage)
    config = _place(config)
    facts = read_model_facts(config.manipulator)
    folder, identity = (
        RunFolder(config.output, storage),
        identify(config.edit, config.limits, config.manipulator, facts),
    )
    config_hash = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    complete = folder.claim(identity, manifest)
    record: Facts = {
        "identity": identity,
        "config": config.model_dump(mode="json"),
        "config_hash": config_hash,
        "models": dict(facts.digests),
        "version": __version__,
        "versions": package_versions(),
    }
    started, num_before = time.monotonic(), folder.count_done(config_hash)
    if not complete:
        folder.write_record({**record, "status": "running"})
        bars = sys.stdout.isatty() if config.progress == "auto" else config.progress == "on"
        with connect(config.address, config.pool):
            edit_rows(
                folder,
                EditPreparer(facts, config.edit, storage, config.limits),
                config.manipulator,
                EditFinisher(config.output, facts.digests, storage),
                pool=config.pool,
                num_rows=manifest.num_rows - num_before,
                config_hash=config_hash,
                progress=bars,
            )
    rows = folder.reconcile(manifest)
    summary = {
        "rows": rows.num_rows,
        **{name: pc.sum(pc.equal(rows["status"], name)).as_py() for name in ("ok", "error")},
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
    show(console, summary, rows, join_uri(config.output, "index.html"))
    return 3 if config.strict and summary["error"] else 0


def show(console: Console, summary: Facts, rows: pa.Table, index: str) -> None:
    """Print the counts, the most common errors with an example of each, and where to look."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("rows", f"{summary['rows']:,}: {summary['ok']:,} ok, {summary['error']:,} with errors")
    speed = f" in {summary['seconds']:,} s, {summary['rows_per_minute']:,} rows per minute"
    table.add_row(
        "computed now", f"{summary['computed']:,}" + (speed if summary["computed"] else ", all were done before")
    )
    failed = rows.filter(pc.equal(rows["status"], "error"))
    kinds = sorted(pc.value_counts(failed["error_kind"]).to_pylist(), key=lambda item: -item["counts"])
    for kind in kinds[:_NUM_ERRORS]:
        example = failed.filter(pc.equal(failed["error_kind"], kind["values"])).slice(0, 1).to_pylist()[0]
        table.add_row(
            f"{kind['counts']:,} x {kind['values']}", f"{example['id']!r}: {example['error']:.160}", style="yellow"
        )
    table.add_row("look at", index, style="bold")
    console.print(table)


def main(argv: Sequence[str]) -> int:
    """Run the program with the arguments `argv`; return its exit code."""
    try:
        return run(load_config(argv), Console())
    except KeyboardInterrupt:
        print("Stopped. Give the same command again to go on.", file=sys.stderr)
        return 130
    except Exception as exc:
        refusal = refusal_in(exc)
        if refusal is None:
            raise
        print(f"{type(refusal).__name__}: {refusal}", file=sys.stderr)
        return 2


def _place(config: BulkConfig) -> BulkConfig:
    """Return the config with absolute folders, for actors may work in another; a submitted job must name them so."""
    if is_submitted():
        if "://" not in config.output and not os.path.isabs(config.output):
            raise InvalidConfig(
                f"output is {config.output!r}, relative to the job's own working folder, which is deleted after it. "
                "Give a path like /mnt/shared/out that all machines see, or s3://bucket/folder"
            )
        return config
    output = resolve_uri(config.output, base=".")
    return config.model_copy(update={"output": output, "manipulator": absolute_models(config.manipulator)})


def refusal_in(exc: BaseException | None) -> InvalidProgram | None:
    """Return the InvalidProgram among an exception and its causes: workers' errors arrive wrapped."""
    while exc is not None and not isinstance(exc, InvalidProgram):
        exc = getattr(exc, "cause", None) or exc.__cause__
    return exc


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
