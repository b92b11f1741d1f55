"""The bulk job while things break: after each, every row has one result, and the edits are those of a calm run."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from bulk_runs import ROOT, flags, results, write_manifest
from faulty_s3 import faulty
from killed_runs import committed
from PIL import Image

import bulk_manipulate
from soundguide.config import ManipulatorConfig
from soundguide.stages import EditPreparer
from soundguide.storage import Storage

pytestmark = pytest.mark.chaos

POISON = "row-5"


class PoisonedManipulator:
    """A manipulator in whose process one row is deadly, some time after others began."""

    def __init__(self, config: ManipulatorConfig, storage: Storage) -> None:
        from soundguide.manipulator import Manipulator

        self.manipulator = Manipulator(config, storage)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        if POISON in batch["id"].to_pylist():
            await asyncio.sleep(0.3)
            os._exit(1)
        return await self.manipulator(batch)


class PoisonedPreparer:
    """A preparer that dies at one row, as a decoder does that follows a wild pointer."""

    def __init__(self, *arguments: object) -> None:
        self.preparer = EditPreparer(*arguments)  # type: ignore[arg-type]

    def prepare_table(self, batch: pa.Table) -> Iterator[pa.Table]:
        for part in self.preparer.prepare_table(batch):
            if part["id"][0].as_py() == POISON:
                os._exit(1)
            yield part

    def refuse(self, batch: pa.Table, error: Exception) -> pa.Table:
        return self.preparer.refuse(batch, error)  # type: ignore[arg-type]


@pytest.fixture
def sent_along() -> None:
    """Let what this module defines travel to Ray's workers, which cannot import it."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


def many_rows(folder: Path, num: int, name: str) -> str:
    return write_manifest(folder / name, {f"row-{i}": {"audio": "rain.wav", "seed": str(i)} for i in range(num)})


def pictures(output: Path) -> dict[str, np.ndarray]:
    """The edits of all rows that are ok, by id."""
    found = {id: row for id, row in results(output).items() if row["status"] == "ok"}
    return {id: np.asarray(Image.open(output / str(row["edited_image"]))) for id, row in found.items()}


def require_alike(some: dict[str, np.ndarray], calm: dict[str, np.ndarray]) -> None:
    """Fail where an edit differs from the calm run's by more than 45 dB of PSNR allow."""
    for id, picture in some.items():
        error = np.square(picture.astype(float) - calm[id]).mean()
        assert error <= 255**2 / 10**4.5, id


@pytest.fixture(scope="module")
def calm(
    local_ray: None, tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    """The edits of twelve rows in a run that nothing disturbs."""
    output = tmp_path_factory.mktemp("calm") / "out"
    assert bulk_manipulate.main(flags(tiny_models, many_rows(bulk_sources, 12, "calm.csv"), output)) == 0
    return pictures(output)


@pytest.mark.parametrize("stage", ["prepare", "manipulate"])
def test_exactly_the_row_that_kills_its_process_is_quarantined_and_can_be_tried_again(
    stage: str,
    calm: dict[str, np.ndarray],
    sent_along: None,
    tiny_models: ManipulatorConfig,
    bulk_sources: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    manifest = many_rows(bulk_sources, 12, "poison.csv")
    arguments = [*flags(tiny_models, manifest, output), "--pool.rows_per_block", "4"]
    with monkeypatch.context() as patched:
        if stage == "prepare":
            patched.setattr(bulk_manipulate, "EditPreparer", PoisonedPreparer)
        else:
            patched.setattr("soundguide.manipulator.Manipulator", PoisonedManipulator)
        assert bulk_manipulate.main(arguments) == 0
        found = results(output)
        assert {id for id, row in found.items() if row["status"] == "quarantined"} == {POISON}
        assert len(found) == 12 and "died 2 times" in str(found[POISON]["error"])
        require_alike(pictures(output), calm)
        assert not list((output / "_run" / "attempts").glob("*"))
    before = {id: row for id, row in found.items() if id != POISON}
    assert bulk_manipulate.main([*arguments, "--retry-failed"]) == 0
    again = results(output)
    assert again[POISON]["status"] == "ok"
    assert repr({id: again[id] for id in before}) == repr(before)  # NaN is not equal to itself
    require_alike(pictures(output), calm)


NUM_ROWS = 12  # as many as in the calm run
KILLS = 10


@contextmanager
def running(arguments: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the job in a process of its own; whatever is left of it at the end is killed."""
    command, env = [sys.executable, "jobs/bulk_manipulate.py", *arguments], {**os.environ, **environment}
    with log.open("ab") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(what: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def require_whole(output: Path, calm: dict[str, np.ndarray], log: Path) -> None:
    """Fail unless every row has one good result, every file is whole, and the edits are the calm run's."""
    found = results(output)
    assert {id: row["status"] for id, row in found.items()} == dict.fromkeys(calm, "ok"), log.read_text()[-3000:]
    require_alike(pictures(output), calm)
    names = {path.name for path in output.rglob("*")}
    assert not {name for name in names if name.endswith((".tmp", ".part", ".pending.parquet"))}
    assert {path.stem for path in (output / "images").iterdir()} == set(calm)


def slow_run(models: ManipulatorConfig, folder: Path, output: Path | str, name: str) -> list[str]:
    """The calm run's rows, in blocks of two, with a little time in between to be disturbed in."""
    manifest = many_rows(folder, NUM_ROWS, name)
    return [*flags(models, manifest, output), "--pool.rows_per_block", "2", "--manipulator.num_slots", "1"]


@pytest.mark.slow
def test_a_driver_that_is_killed_again_and_again_loses_and_doubles_nothing(
    calm: dict[str, np.ndarray], tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path: Path
) -> None:
    output, log, chance = tmp_path / "out", tmp_path / "log", random.Random(5)
    arguments = slow_run(tiny_models, bulk_sources, output, "driver.csv")
    killed = 0
    for attempt in range(KILLS):
        with running(arguments, log) as process:
            try:
                process.wait(chance.uniform(1, 12))
            except subprocess.TimeoutExpired:
                killed += 1
                if attempt % 2:  # its Ray may live on for a moment, and go on writing
                    process.kill()
                    process.wait()
            else:
                assert process.returncode == 0, log.read_text()[-3000:]
    assert killed > 2
    with running(arguments, log) as process:
        assert process.wait(120) == 0, log.read_text()[-3000:]
    require_whole(output, calm, log)


def test_an_actor_that_is_killed_costs_no_row(
    calm: dict[str, np.ndarray], tiny_models: ManipulatorConfig, bulk_sources: Path, tmp_path: Path
) -> None:
    output, log = tmp_path / "out", tmp_path / "log"
    with running([*slow_run(tiny_models, bulk_sources, output, "actor.csv"), "--edit.num_steps", "30"], log) as process:
        wait_until(lambda: committed(output))
        actors = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "ray::MapWorker" in " ".join(child.cmdline())
        ]
        assert len(actors) == 1
        actors[0].kill()
        assert process.wait(120) == 0, log.read_text()[-3000:]
    assert {row["status"] for row in results(output).values()} == {"ok"} and len(results(output)) == NUM_ROWS


def test_faults_of_the_object_store_cost_time_and_nothing_else_and_no_secret_is_written(
    calm: dict[str, np.ndarray], tiny_models: ManipulatorConfig, bulk_sources: Path, s3: Storage, tmp_path: Path
) -> None:
    log, secret = tmp_path / "log", "wJalrXUtnFEMI-of-nobody"
    s3.write_bytes("s3://bucket/in/rain.wav", (bulk_sources / "rain.wav").read_bytes())
    s3.write_bytes("s3://bucket/in/rows.csv", Path(many_rows(bulk_sources, NUM_ROWS, "s3.csv")).read_bytes())
    with faulty(s3) as (faults, storage):
        faults.strike("", "", "500", "", "", "", "drop", "", "", "cut", "", "slow", "", "", "503")
        arguments = flags(tiny_models, "s3://bucket/in/rows.csv", "s3://bucket/out")
        arguments += ["--storage.endpoint_url", str(storage.config.endpoint_url), "--storage.region", "eu-central-1"]
        with running([*arguments, "--pool.rows_per_block", "3"], log, AWS_SECRET_ACCESS_KEY=secret) as process:
            assert process.wait(240) == 0, log.read_text()[-3000:]
        assert all(faults.met[fault] for fault in ("500", "503", "drop", "cut", "slow"))
    for uri in s3.list("s3://bucket/out"):
        path = tmp_path / uri.removeprefix("s3://bucket/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.read_bytes(uri))
    require_whole(tmp_path / "out", calm, log)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 3 * NUM_ROWS and not [path for path in written if secret.encode() in path.read_bytes()]


@pytest.fixture(params=["", "results"], ids=["for-all", "for-results"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A run's output folder, and the disk without room on which it, or its folder of results, lies."""
    output = tmp_path / "out"
    disk = output / request.param
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={'4k' if request.param else '112k'}", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.decode().strip()}; run the tests as root")
    yield output, disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_stops_the_run_with_a_reason_and_the_rest_is_done_when_there_is_room(
    calm: dict[str, np.ndarray],
    tiny_models: ManipulatorConfig,
    bulk_sources: Path,
    small_disk: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    (output, disk), log = small_disk, tmp_path / "log"
    arguments = slow_run(tiny_models, bulk_sources, output, "disk.csv")
    with running(arguments, log) as process:
        assert process.wait(180) == 2, log.read_text()[-3000:]
    told = log.read_text().splitlines()[-1]
    assert told.startswith("OutputConflict: ") and "No space left on device. Make room" in told
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    with running(arguments, log) as process:
        assert process.wait(120) == 0, log.read_text()[-3000:]
    require_whole(output, calm, log)


@pytest.fixture
def two_nodes() -> Iterator[tuple[Any, Any]]:
    """A cluster whose head takes the tasks and whose other node takes the actors; yields it and that node."""
    from ray.cluster_utils import Cluster

    quiet = {"include_dashboard": False, "object_store_memory": 100 * 2**20, "num_gpus": 0}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, **quiet}, shutdown_at_exit=False)
    worker = cluster.add_node(num_cpus=4, num_gpus=0, object_store_memory=100 * 2**20)
    yield cluster, worker
    cluster.shutdown()


def run_while(
    cluster: Any, disturb: Callable[[], None], models: ManipulatorConfig, sources: Path, folder: Path, name: str
) -> Path:
    """Run the job on the cluster, disturb it when the first blocks are done; return the output folder."""
    output, log = folder / "out", folder / "log"
    arguments = [*slow_run(models, sources, output, name), "--address", cluster.address, "--pool.num_actors", "2"]
    with running(arguments, log) as process:
        wait_until(lambda: committed(output))
        disturb()
        assert process.wait(240) == 0, log.read_text()[-3000:]
    return output


@pytest.mark.slow
def test_a_node_that_goes_away_costs_no_row(
    calm: dict[str, np.ndarray],
    two_nodes: tuple[Any, Any],
    tiny_models: ManipulatorConfig,
    bulk_sources: Path,
    tmp_path: Path,
) -> None:
    cluster, worker = two_nodes
    output = run_while(
        cluster,
        lambda: cluster.remove_node(worker, allow_graceful=False),
        tiny_models,
        bulk_sources,
        tmp_path,
        "node.csv",
    )
    require_whole(output, calm, tmp_path / "log")


@pytest.mark.slow
def test_a_node_with_notice_of_preemption_costs_no_row(
    calm: dict[str, np.ndarray],
    two_nodes: tuple[Any, Any],
    tiny_models: ManipulatorConfig,
    bulk_sources: Path,
    tmp_path: Path,
) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

    cluster, worker = two_nodes

    def give_notice() -> None:
        deadline_ms = int(time.time() * 1000) + 3000
        taken, why = GcsClient(cluster.address).drain_node(
            worker.node_id, DRAIN_NODE_REASON_PREEMPTION, "spot", deadline_ms
        )
        assert taken, why
        time.sleep(3)
        cluster.remove_node(worker, allow_graceful=False)

    output = run_while(cluster, give_notice, tiny_models, bulk_sources, tmp_path, "notice.csv")
    require_whole(output, calm, tmp_path / "log")
