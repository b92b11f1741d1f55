"""The bulk job on a cluster that has no machine to work on until it is asked for."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from bulk_runs import flags, results
from fake_cloud import FakeCloud
from test_chaos import many_rows, running, wait_until

from soundguide.config import ManipulatorConfig

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

NUM_WORKERS, NUM_ROWS = 3, 24
ONE_ACTOR = 2.5  # CPUs; with 4 on each machine, no two actors share one


def busy_actors(cloud: FakeCloud) -> int:
    """Return how many actors there are, with at least a second of work done each."""
    found = 0
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        if "ray::MapWorker" in " ".join(process.info["cmdline"] or []):
            found += process.info["cpu_times"].user > 1
    return found


def test_the_cluster_grows_from_nothing_is_used_and_shrinks_again(
    tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path: Path
) -> None:
    log, output = tmp_path / "log", tmp_path / "out"
    manifest = many_rows(bulk_sources, NUM_ROWS, "cloud.csv")
    arguments = flags(tiny_models, manifest, output)  # later flags win
    arguments += ["--edit.num_steps", "200", "--pool.num_actors", str(NUM_WORKERS), "--pool.gpus_per_actor", "0"]
    arguments += ["--pool.cpus_per_actor", str(ONE_ACTOR), "--pool.rows_per_block", "2"]
    with FakeCloud({"CPU": 4}, max_workers=NUM_WORKERS, idle_seconds=8) as cloud:
        assert cloud.num_workers() == 0
        with running([*arguments, "--address", cloud.address], log) as process:
            wait_until(lambda: cloud.num_workers() == NUM_WORKERS or process.poll() is not None, 120)
            wait_until(lambda: busy_actors(cloud) == NUM_WORKERS or process.poll() is not None, 120)
            assert process.poll() is None, log.read_text()[-3000:]
            assert process.wait(300) == 0, log.read_text()[-3000:]
        wait_until(lambda: cloud.num_workers() == 0, 120)
    assert len(results(output)) == NUM_ROWS and {row["status"] for row in results(output).values()} == {"ok"}
