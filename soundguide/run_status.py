"""How a run stands, told from its output folder alone: this reads, never writes, and takes no lock."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from soundguide.config import Frozen
from soundguide.errors import InvalidConfig, OutputConflict, SourceNotFound
from soundguide.result_counts import Block, ErrorKind, ResultCounter
from soundguide.run_files import read_steadily, when_written
from soundguide.run_folder import RunFolder
from soundguide.run_lock import STALE_SECONDS, is_alive
from soundguide.storage import join_uri
from soundguide.training_status import LOG_FILE, TrainingStatus, read_training
from soundguide.validation import describe

State = Literal["running", "complete", "broken"]
Job = Literal["bulk_manipulate", "music_style", "prepare_clips", "pretrain_encoder"]

_RECENT_SECONDS = 600.0  # lately is so long, or as long as the last blocks took
_RECENT_BLOCKS = 8
# By what only the identity of this job's runs has; those of music have settings of edits too.
_JOBS: dict[str, Job] = {"clip": "prepare_clips", "training": "pretrain_encoder"}
_EDITING_JOBS: dict[str, Job] = {"music": "music_style", "edit": "bulk_manipulate"}


class Holder(Frozen):
    """Who is at work in the folder or, where the run is broken, who was."""

    host: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    last_heard: Annotated[datetime, Field(description="When it last said that it is there.")]


class RowCounts(Frozen):
    """Rows of the manifest, and how those that are finished ended."""

    total: int
    done: Annotated[int, Field(description="Finished for good; those of a block that was cut are not.")]
    ok: int
    error: int
    quarantined: int


class RunStatus(Frozen):
    """How a run stands. What the folder does not tell is null; times are UTC."""

    uri: str
    state: Annotated[State, Field(description="broken: not finished, and nobody is at work in it.")]
    job: Annotated[Job | None, Field(description="The program in jobs/; null while its run is about to begin.")] = None
    version: Annotated[str | None, Field(description="Of this package when the run began.")] = None
    config_hash: Annotated[str | None, Field(description="Names all that decides what comes out.")] = None
    started: Annotated[datetime | None, Field(description="The last time, where a run went on.")] = None
    ended: datetime | None = None
    last_change: Annotated[datetime | None, Field(description="The newest sign of life in the folder.")] = None
    holder: Holder | None = None
    rows: Annotated[RowCounts | None, Field(description="Null for a pretraining.")] = None
    errors: Annotated[tuple[ErrorKind, ...], Field(description="By count.")] = ()
    rows_per_minute: Annotated[
        float | None, Field(description="Of the last ten minutes; where the run is complete, of its last start.")
    ] = None
    remaining_seconds: Annotated[float | None, Field(description="At its speed of late; null unless running.")] = None
    training: Annotated[TrainingStatus | None, Field(description="Null but for a pretraining.")] = None


class _Record(BaseModel):
    """What is read of ``run.json``."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    identity: dict[str, Any]
    status: str
    version: str
    config_hash: str
    seconds: Annotated[float | None, Field(ge=0, lt=1e9)] = None
    computed: int | None = None
    rows: int | None = None

    @property
    def is_complete(self) -> bool:
        return self.status == "complete"


def read_status(folder: RunFolder, counter: ResultCounter | None = None) -> RunStatus:
    """Read how the run in a folder stands. A ``counter`` that is kept remembers what earlier looks have read.

    Raises:
        InvalidConfig: there is no run in the folder.
        OutputConflict: one of its files is damaged.
        SourceNotFound: it may not be read.
    """
    holder, at_work = _read_holder(folder)  # first: when a run lets go of its lock, its record is written
    record = _read_record(folder)
    if not at_work:
        holder, at_work = _read_holder(folder)  # again: it may have begun in between
    if record is None:
        if holder is None or not at_work:
            raise InvalidConfig(
                f"there is no run in {folder.uri}: {_what_is_there(folder)}. Name the output folder of a job"
            )
        return RunStatus(uri=folder.uri, state="running", holder=holder, last_change=holder.last_heard)
    status = _begin(folder, record, holder, at_work=at_work)
    if status.job == "pretrain_encoder":
        return _with_training(status, folder, record)
    return _with_rows(status, folder, record, counter or ResultCounter(folder))


def _begin(folder: RunFolder, record: _Record, holder: Holder | None, *, at_work: bool) -> RunStatus:
    """Return what lock and record say."""
    jobs = [job for name, job in _JOBS.items() if name in record.identity]
    jobs += [job for name, job in _EDITING_JOBS.items() if name in record.identity][:1]
    if len(jobs) != 1:
        raise InvalidConfig(
            f"{join_uri(folder.uri, 'run.json')} is of no job that this version knows; its identity has "
            f"{', '.join(record.identity) or 'nothing'}. Ask the version that wrote it, {record.version}"
        )
    written = when_written(join_uri(folder.uri, "run.json"), folder.storage)
    state: State = "running" if at_work else "complete" if record.is_complete else "broken"
    # It is written at the start and at the end. A new run that has yet to find out what is left leaves the old record.
    started = written if not record.is_complete else None
    if state == "complete" and written is not None and record.seconds is not None:
        started = written - record.seconds
    return RunStatus(
        uri=folder.uri,
        state=state,
        job=jobs[0],
        version=record.version,
        config_hash=record.config_hash,
        started=_time(started),
        ended=_time(written) if state == "complete" else None,
        last_change=_newest(_time(written), holder.last_heard if holder else None),
        holder=holder if state != "complete" else None,
    )


def _with_rows(status: RunStatus, folder: RunFolder, record: _Record, counter: ResultCounter) -> RunStatus:
    tally, blocks = counter.count(record.config_hash, complete=record.is_complete)
    done, total = tally.num_rows, _count_manifest(folder)
    if total is None:
        total = record.rows if record.rows is not None else done
    ok, error, quarantined = (tally.statuses[name] for name in ("ok", "error", "quarantined"))
    changes: dict[str, Any] = {
        "rows": RowCounts(total=total, done=done, ok=ok, error=error, quarantined=quarantined),
        "errors": tally.errors,
        "last_change": _newest(status.last_change, *(_time(block.finished) for block in blocks)),
    }
    if status.state == "complete" and done < total:  # rows joined or were given up, and then the run was killed
        changes |= {"state": "broken", "started": None, "ended": None}
    elif status.state == "complete" and record.computed and record.seconds:
        changes["rows_per_minute"] = round(60 * record.computed / record.seconds, 3)
    elif status.state == "running" and status.started is not None:
        speed = _rows_per_minute(blocks, started=status.started.timestamp(), now=time.time())
        if speed:
            changes |= {"rows_per_minute": round(speed, 3), "remaining_seconds": round(60 * (total - done) / speed)}
    return status.model_copy(update=changes)


def _with_training(status: RunStatus, folder: RunFolder, record: _Record) -> RunStatus:
    try:
        training = read_training(folder, record.identity)
    except ValidationError as exc:
        raise _damaged(folder, describe(exc, "identity")) from exc
    told = _time(when_written(join_uri(folder.uri, LOG_FILE), folder.storage))
    return status.model_copy(
        update={
            "training": training,
            "last_change": _newest(status.last_change, told),
            "remaining_seconds": training.remaining_seconds if status.state == "running" else None,
        }
    )


def _rows_per_minute(blocks: Sequence[Block], *, started: float, now: float) -> float:
    """Return the speed lately, 0 before the first block; times in seconds since 1970."""
    finished = sorted((block.finished for block in blocks if block.finished > started), reverse=True)
    since = min(now - _RECENT_SECONDS, finished[_RECENT_BLOCKS] if len(finished) > _RECENT_BLOCKS else started)
    since = max(since, started)
    num_rows = sum(block.num_rows for block in blocks if block.finished > since)
    return 60 * num_rows / max(now - since, 1.0)


def _read_holder(folder: RunFolder) -> tuple[Holder | None, bool]:
    """Return who wrote the lock, and whether it holds it still, as `run_lock.only_run` would decide."""
    try:
        lock = json.loads(folder.storage.read_bytes(join_uri(folder.uri, "_run", "lock.json"), max_bytes=10_000))
        holder = Holder(host=lock["host"], pid=lock["pid"], last_heard=datetime.fromtimestamp(lock["time"], UTC))
    except (SourceNotFound, ValueError, KeyError, TypeError, OverflowError):
        return None, False
    heard = time.time() - holder.last_heard.timestamp() <= STALE_SECONDS
    return holder, heard and (holder.host != socket.gethostname() or is_alive(holder.pid))


def _read_record(folder: RunFolder) -> _Record | None:
    found = folder.read_record()
    try:
        return None if found is None else _Record.model_validate(found)
    except ValidationError as exc:
        raise _damaged(folder, describe(exc, "run.json")) from exc


def _damaged(folder: RunFolder, why: str) -> OutputConflict:
    return OutputConflict(
        f"{join_uri(folder.uri, 'run.json')} is no record of a run ({why}). Put it back as the run wrote it, or give "
        "another output folder"
    )


def _count_manifest(folder: RunFolder) -> int | None:
    """Return the rows of the manifest, None if it is gone."""
    filesystem, path = folder.storage.arrow_filesystem(folder.manifest_uri)

    def read(path: str) -> int:
        with filesystem.open_input_file(path) as source:
            return int(pq.read_metadata(source).num_rows)

    return read_steadily(path, read)


def _what_is_there(folder: RunFolder) -> str:
    if not folder.storage.exists(folder.uri):
        return "there is no such folder"
    if not folder.storage.exists(join_uri(folder.uri, "run.json")):
        return "it has no run.json"
    return "its run.json names none"


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _newest(*times: datetime | None) -> datetime | None:
    return max((time for time in times if time is not None), default=None)
