"""What all jobs share beside their settings' sources: exit codes, and where a submitted job may write."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import Field
from rich.console import Console

from job_logs import LogFormat
from soundguide.cli.console import wide
from soundguide.command_config import CommandConfig, load_config
from soundguide.errors import InvalidConfig, InvalidProgram
from soundguide.storage import StorageConfig, resolve_uri


class JobConfig(CommandConfig):
    storage: Annotated[StorageConfig, Field(description="How files are reached.")] = StorageConfig()
    strict: Annotated[bool, Field(description="Exit with 3 when some rows have errors.")] = False
    address: Annotated[str, Field(description="Ray cluster; empty: that of the submitted job, or a private one.")] = ""
    progress: Annotated[Literal["auto", "on", "off"], Field(description="Progress bars; auto: in a terminal.")] = "auto"

    @property
    def shows_bars(self) -> bool:
        """Whether to draw progress bars."""
        return sys.stdout.isatty() if self.progress == "auto" else self.progress == "on"


class RowJobConfig(JobConfig):
    log_format: LogFormat = "text"
    retry_failed: Annotated[
        bool, Field(description="Also compute the rows again that failed or were quarantined before.")
    ] = False


Config = TypeVar("Config", bound=JobConfig)


def run_job(
    run: Callable[[Config, Console], int], kind: type[Config], argv: Sequence[str], *, usage: str, description: str
) -> int:
    """Run a job with the settings in `argv`; return its exit code, as `exit_code_of` does."""
    return exit_code_of(
        lambda: run(load_config(kind, argv, usage=usage, description=description), wide(Console(markup=False)))
    )


def exit_code_of(program: Callable[[], int]) -> int:
    """Run a job; return its exit code: 2 with the reason on stderr for what it refuses, 130 where it was stopped."""
    try:
        return program()
    except KeyboardInterrupt:
        print("Stopped. Give the same command again to go on.", file=sys.stderr)
        return 130
    except Exception as exc:
        refusal = _refusal_in(exc)
        if refusal is None:
            raise
        told = str(refusal).partition("\nFailed to apply UDF")[0]  # Ray Data goes on about its own settings
        print(f"{type(refusal).__name__}: {told}", file=sys.stderr)
        return 2


def is_submitted() -> bool:
    """Say whether this process is the entry point of `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def place_output(output: str) -> str:
    """Return an output folder for processes that work elsewhere, a path without ``..``.

    Raises InvalidConfig where it would be lost.
    """
    if not is_submitted():
        output = resolve_uri(output, base=".")
    elif "://" not in output and not os.path.isabs(output):
        raise InvalidConfig(
            f"output is {output!r}, relative to the job's own working folder, which is deleted after it. "
            "Give a path like /mnt/shared/out that all machines see, or s3://bucket/folder"
        )
    return output if "://" in output else os.path.normpath(output)


def _refusal_in(exc: BaseException | None) -> InvalidProgram | None:
    """Return the InvalidProgram among an exception and its causes: workers' errors arrive wrapped."""
    wrapped = getattr(exc, "cause", None)  # Ray's wrapping is of the class of what it wraps, with another message
    if exc is None or isinstance(exc, InvalidProgram) and wrapped is None:
        return exc
    inside = [wrapped or exc.__cause__, *getattr(exc, "worker_failures", {}).values()]
    return next(filter(None, map(_refusal_in, inside)), None)
