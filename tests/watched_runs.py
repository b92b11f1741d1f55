"""A small run of the bulk job, watched from outside: the metrics that it told, its log and those of its workers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from bulk_runs import ERRORS, GOOD, ROOT, flags, write_manifest
from prometheus_client.parser import text_string_to_metric_families

from soundguide.config import ManipulatorConfig

NUM_SLOTS = 4
EXPORT_SECONDS = 30  # at most until all is told; Ray's processes tell it every 10, and late on a busy machine

Line = dict[str, Any]
Series = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a metric as PromQL knows it, and its labels."""


def scrape() -> dict[Series, float]:
    """Return what the Ray of this process tells Prometheus now; nothing where its agent fails, as it can while busy."""
    import ray

    [node] = ray.nodes()
    try:
        with urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics") as page:
            families = list(text_string_to_metric_families(page.read().decode()))
    except HTTPError:
        return {}  # Prometheus, too, would only ask again
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


@dataclass
class WatchedRun:
    """What was seen of a run: the last value of each series, JSON lines of the driver and of the rows, what it printed.

    ``rows`` are the ids of the manifest, ``files`` the pictures and codes that were written.
    """

    rows: set[str]
    output: Path
    manifest: str
    series: dict[Series, float] = field(default_factory=dict)
    driver: list[Line] = field(default_factory=list)
    row_lines: list[Line] = field(default_factory=list)
    printed: str = ""

    @property
    def workers(self) -> set[str]:
        """The processes that finished the rows."""
        return {line["worker_id"] for line in self.row_lines}

    def counted(self, name: str, **labels: str) -> float:
        """Add up a counter of those processes; other tests' jobs run on the same Ray."""
        return sum(
            value
            for (found, pairs), value in self.series.items()
            if found == name and dict(pairs).get("WorkerId") in self.workers and labels.items() <= dict(pairs).items()
        )


def watch(models: ManipulatorConfig, sources: Path, folder: Path) -> WatchedRun:
    """Run the job in a process of its own on this process's Ray, and look at it until all that it told is there."""
    import ray

    rows = GOOD | {id: values for id, (values, _) in ERRORS.items()}
    run = WatchedRun(set(rows), folder / "out", write_manifest(sources / "m.csv", rows))
    arguments = [*flags(models, run.manifest, run.output), "--pool.rows_per_block", "4", "--log_format", "json"]
    arguments += ["--address", ray.get_runtime_context().gcs_address]
    command = [sys.executable, "jobs/bulk_manipulate.py", *arguments]
    stdout, stderr = folder / "stdout", folder / "stderr"
    with (
        stdout.open("w") as out,
        stderr.open("w") as err,
        subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err) as job,
    ):
        while job.poll() is None:
            run.series |= scrape()
            time.sleep(0.5)
    assert job.returncode == 0, stderr.read_text()[-3000:]
    run.printed, run.driver = stdout.read_text(), list(json_lines(stderr))
    [connected] = [line for line in run.driver if line["message"] == "connected"]
    for path in Path(connected["logs"]).glob("worker-*.err"):
        told = [line for line in json_lines(path) if line.get("name") == "soundguide.rows"]
        run.row_lines += [line for line in told if line["job_id"] == connected["job_id"]]
    deadline = time.monotonic() + EXPORT_SECONDS
    while run.counted("ray_soundguide_rows_total") < len(rows) and time.monotonic() < deadline:
        time.sleep(0.5)
        run.series |= scrape()
    return run


def json_lines(path: Path) -> Iterator[Line]:
    """Yield the objects among the lines of a log; Ray writes other lines between them."""
    for line in path.read_text().splitlines():
        if line.startswith("{"):
            yield json.loads(line)
