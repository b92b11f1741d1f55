"""A job in a process of its own that is killed in the middle, as a machine that goes away would kill it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bulk_runs import ROOT


def kill_in_the_middle(job: str, arguments: list[str], output: Path, *, log: Path) -> list[str]:
    """Run a job until two blocks are finished, kill -9 it and all its processes; return the finished blocks' names."""
    command = [sys.executable, f"jobs/{job}.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 150
        while len(committed(output)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, log.read_text()[-2000:]
    time.sleep(1)  # workers notice that their parent is gone
    return committed(output)


def committed(output: Path) -> list[str]:
    """The names, without endings, of blocks that are finished for good."""
    names = [path.name for path in output.glob("_run/checkpoint/*/*.parquet")]
    return [name.removesuffix(".parquet") for name in names if not name.endswith(".pending.parquet")]
