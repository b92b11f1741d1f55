"""What the driver of a job logs as JSON: that it starts or goes on, where to look, its counts, and how it ends."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field

from soundguide.run_folder import Facts

LogFormat = Annotated[
    Literal["text", "json"],
    Field(description="Logs of the run and of each row: 'json', or 'text', which tells failed rows alone."),
]

_logger = logging.getLogger("soundguide.run")
_STANDARD = {*vars(logging.makeLogRecord({})), "_ray_timestamp_ns"}


class _JsonLines(logging.Formatter):
    """One object a line, its names those of Ray's own JSON lines."""

    def format(self, record: logging.LogRecord) -> str:
        given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line = {"asctime": self.formatTime(record), "levelname": record.levelname, "message": record.getMessage()}
        return json.dumps({**line, "name": record.name, **given})


def log_as(log_format: LogFormat) -> None:
    """Log what this module tells to stderr as JSON; as text it is not told, for the program prints it."""
    handler: logging.Handler = logging.NullHandler()
    if log_format == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(_JsonLines())
    _logger.handlers, _logger.propagate = [handler], False  # Ray's handler would tell everything twice
    _logger.setLevel(logging.INFO)


def worker_logging(log_format: LogFormat) -> dict[str, Any]:
    """Return what `ray.init` needs so that the job's workers log in this format."""
    import ray

    if log_format == "text":
        return {}
    return {"logging_config": ray.LoggingConfig(encoding="JSON", additional_log_standard_attrs=["name"])}


def tell_start(output: str, *, rows: int | None, done: int) -> None:
    """Log how many rows there are, None where that is not known yet, and how many an earlier run has done."""
    _logger.info("resumed" if done else "started", extra={"output": output, "rows": rows, "done_before": done})


def tell_place(ours: Mapping[str, Any], *, local: bool) -> str:
    """Log where Ray tells metrics and keeps logs; return the same in a line. `ours`: the address that Ray gave us."""
    import ray

    [node] = [each for each in ray.nodes() if each["NodeID"] == ours["node_id"]]
    host = "127.0.0.1" if local else node["NodeManagerAddress"]
    place = {"metrics": f"http://{host}:{node['MetricsExportPort']}/metrics", "logs": f"{ours['session_dir']}/logs"}
    _logger.info("connected", extra={"job_id": ray.get_runtime_context().get_job_id(), **place})
    return "   ".join(f"{name}: {where}" for name, where in place.items())


@contextmanager
def told_end(output: str) -> Iterator[Facts]:
    """Log the counts that are put into what this yields, or what stopped the run."""
    summary: Facts = {}
    try:
        yield summary
    except BaseException as exc:
        reason = next(iter(str(exc).splitlines()), "")
        _logger.error("stopped", extra={"output": output, "error_kind": type(exc).__name__, "error": reason})
        raise
    _logger.info("ended", extra={"output": output, **summary})
