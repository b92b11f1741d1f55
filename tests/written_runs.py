"""Output folders as the jobs leave them, written without Ray: begun, at work, finished."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.model_facts import read_model_facts
from soundguide.records import EditResult
from soundguide.run_folder import Facts, RunFolder, describe_run, identify
from soundguide.stages import SourceLimits
from soundguide.storage import join_uri
from soundguide.tables import result_table

NOBODY = 2**22 - 1  # no process has this number


def ok(*ids: str) -> list[EditResult]:
    return [EditResult(id=id, status="ok") for id in ids]


def failed(id: str, kind: str, error: str = "wrong") -> EditResult:
    return EditResult(id=id, status="error", error=error, error_kind=kind)


def begin(folder: RunFolder, num_rows: int) -> Facts:
    """Do what the bulk job does before its first row; return the record."""
    models = ManipulatorConfig()
    facts = read_model_facts(models)
    identity = identify(EditSettings(), SourceLimits(), models, facts)
    folder.claim(identity, pa.table({"id": [f"row-{number}" for number in range(num_rows)]}))
    record = describe_run(identity, {}, facts.digests)
    folder.write_record({**record, "status": "running"})
    return record


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def finish_block(
    folder: RunFolder, record: Facts, results: Iterable[EditResult] | pa.Table, name: str, *, pending: bool = False
) -> None:
    """Write a block as Ray Data does: ids that are pending, the results, and a rename that makes it final."""
    table = results if isinstance(results, pa.Table) else result_table(results)
    ids = join_uri(folder.checkpoint_uri(record["config_hash"]), name + (".pending" if pending else "") + ".parquet")
    folder.storage.write_bytes(ids, parquet(table.select(["id"])))
    folder.storage.write_bytes(join_uri(folder.results_uri, f"{name}-0.parquet"), parquet(table))


def complete(folder: RunFolder, record: Facts, **summary: object) -> None:
    folder.write_record({**record, "status": "complete", **summary})


def aged(path: Path, seconds: float) -> None:
    """Make a file as old as this."""
    os.utime(path, times=(time.time() - seconds,) * 2)


def lock(folder: RunFolder, **changes: object) -> None:
    """Leave a lock as another run would."""
    mine = {"token": "theirs", "host": os.uname().nodename, "pid": NOBODY, "time": time.time()}
    folder.storage.write_bytes(join_uri(folder.uri, "_run", "lock.json"), json.dumps(mine | changes).encode())


def finished(folder: RunFolder) -> Facts:
    """Write a run of six rows that is complete."""
    record = begin(folder, 6)
    bad = [failed("row-2", "InvalidAudio", "silent"), failed("row-3", "InvalidAudio"), failed("row-4", "InvalidImage")]
    finish_block(folder, record, [*ok("row-0", "row-1"), bad[0]], "0_000000")
    lost = EditResult(id="row-5", status="quarantined", error="the process died", error_kind="Quarantined")
    finish_block(folder, record, [*bad[1:], lost], "0_000001")
    complete(folder, record, rows=6, computed=6, seconds=30.0)
    return record
