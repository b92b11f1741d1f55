"""The bulk job in processes of its own: killed and resumed, and submitted to a cluster."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bulk_runs import ERRORS, GOOD, ROOT, flags, result_files, results, write_manifest
from killed_runs import kill_in_the_middle
from ports import free_port

import bulk_manipulate
from soundguide.config import ManipulatorConfig


@pytest.mark.chaos
def test_a_killed_run_goes_on_and_writes_no_id_twice(
    request: pytest.FixtureRequest, tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    # Slow enough to be killed in the middle, and in blocks of two rows.
    rows = {f"row-{i}": {"audio": "rain.wav", "seed": str(i), "num_steps": "150" if i else "0"} for i in range(24)}
    manifest = write_manifest(bulk_sources / "kill.csv", rows)
    arguments = [*flags(tiny_models, manifest, output), "--pool.rows_per_block", "2"]
    finished = kill_in_the_middle("bulk_manipulate", arguments, output, log=tmp_path / "log")
    assert 0 < 2 * len(finished) < len(rows)
    before = {name: data for name, data in result_files(output).items() if any(name.startswith(f) for f in finished)}
    request.getfixturevalue("local_ray")  # not before: two Rays at once are slow
    assert bulk_manipulate.main(arguments) == 0
    assert results(output).keys() == rows.keys()
    assert before and before.items() <= result_files(output).items()
    assert json.loads((output / "run.json").read_text())["computed"] == len(rows) - 2 * len(finished)


@pytest.fixture
def cluster() -> Iterator[str]:
    """A Ray cluster of its own, as `ray start --head` makes it on a machine of two CPUs; yields the jobs' address."""
    folder = tempfile.mkdtemp(prefix="sgjob", dir="/tmp")
    port, dashboard = free_port(), free_port()
    command = ["-m", "ray.scripts.scripts", "start", "--head", "--block", f"--temp-dir={folder}", f"--port={port}"]
    command += [f"--dashboard-port={dashboard}", "--num-cpus=2", "--num-gpus=0", "--include-dashboard=true"]
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--object-store-memory={256 * 2**20}"]
    command += ["--ray-client-server-port", str(free_port()), "--disable-usage-stats"]
    with open(f"{folder}/log", "w") as log:
        # Otherwise a head that is told to end waits up to 30 s for its node to drain.
        at_once = {**os.environ, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        head = subprocess.Popen([sys.executable, *command], env=at_once, stdout=log, stderr=log, start_new_session=True)
    try:
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        head.send_signal(signal.SIGTERM)  # to it alone: without its servers it would wait for them to come back
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
            head.wait()
        shutil.rmtree(folder, ignore_errors=True)


Answer = TypeVar("Answer")


def once_started(call: Callable[[], Answer], deadline: float) -> Answer:
    """Call until the cluster answers: its address comes first, the agent that takes jobs some seconds later."""
    while True:
        try:
            return call()
        except (ConnectionError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@pytest.mark.slow
def test_a_submitted_job_runs_and_refuses_a_relative_output(
    cluster: str, tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path: Path
) -> None:
    from ray.job_submission import JobSubmissionClient

    working_dir = tmp_path / "tree"  # as a user's checkout, without what git does not keep
    for name in ("soundguide", "jobs"):
        shutil.copytree(ROOT / name, working_dir / name, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    deadline = time.monotonic() + 90
    client = once_started(lambda: JobSubmissionClient(cluster), deadline)
    manifest = write_manifest(bulk_sources / "job.csv", {"a": GOOD["seed"], "b": ERRORS["missing"][0]})

    def submit(output: Path | str) -> tuple[str, str]:
        entrypoint = " ".join([sys.executable, "jobs/bulk_manipulate.py", *flags(tiny_models, manifest, output)])
        environment = {"working_dir": str(working_dir)}
        job = once_started(lambda: client.submit_job(entrypoint=entrypoint, runtime_env=environment), deadline)
        while not (status := client.get_job_status(job)).is_terminal():
            assert time.monotonic() < deadline + 150, client.get_job_logs(job)
            time.sleep(0.3)
        return status.value, client.get_job_logs(job)

    status, logs = submit("out")
    assert status == "FAILED" and "output is 'out', relative to the job's own working folder" in logs
    status, logs = submit(tmp_path / "out")
    assert status == "SUCCEEDED", logs
    assert {id: row["status"] for id, row in results(tmp_path / "out").items()} == {"a": "ok", "b": "error"}
    assert pa.types.is_string(pq.read_schema(next((tmp_path / "out" / "results").iterdir())).field("error").type)
