"""The pretraining job where things go otherwise: other workers, object stores, logs that fail, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from bulk_runs import ROOT
from prepared_clips import write_prepared
from rich.console import Console
from test_pretrain_job import BATCH, STEPS, flags, kill_once, log_lines, record

import pretrain_encoder
from soundguide.config import ManipulatorConfig
from soundguide.models.checkpoint import load_model
from soundguide.run_folder import RunFolder
from soundguide.storage import Storage


@pytest.fixture(scope="module")
def prepared(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_prepared(tmp_path_factory.mktemp("prepared"), tiny_models)


@pytest.mark.chaos
def test_other_workers_go_on_with_the_epoch_that_was_cut(
    local_ray: None,
    tiny_models: ManipulatorConfig,
    prepared: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.train import WorkerGroupError

    output, changes = tmp_path / "out", {"checkpoint_steps": 1, "workers.max_failures": 0}
    with monkeypatch.context() as patched:
        kill_once(patched, tmp_path / "killed")
        with pytest.raises(WorkerGroupError):
            pretrain_encoder.main(flags(tiny_models, prepared, output, **changes))
    assert pretrain_encoder.main(flags(tiny_models, prepared, output, **changes, **{"workers.num_workers": 2})) == 0
    metrics: Any = record(output)["metrics"]
    assert (metrics["step"], metrics["samples_seen"]) == (STEPS, STEPS * BATCH)


@pytest.mark.s3
def test_clips_and_output_may_lie_in_an_object_store(
    local_ray: None, tiny_models: ManipulatorConfig, prepared: RunFolder, s3: Storage, tmp_path: Path
) -> None:
    local = Storage()
    for uri in local.list(prepared.uri):
        name = uri.removeprefix(prepared.uri).lstrip("/")
        s3.write_bytes(f"s3://bucket/prepared/{name}", local.read_bytes(uri))
    there = RunFolder("s3://bucket/prepared")
    changes = {
        "storage.endpoint_url": s3.config.endpoint_url,
        "storage.region": s3.config.region,
        "training.num_epochs": 1,
    }
    assert pretrain_encoder.main(flags(tiny_models, there, "s3://bucket/run", **changes)) == 0
    for name in ("config.json", "weights.safetensors"):
        (tmp_path / "encoder").mkdir(exist_ok=True)
        (tmp_path / "encoder" / name).write_bytes(s3.read_bytes(f"s3://bucket/run/encoder/{name}"))
    assert load_model(tmp_path / "encoder", device="cpu").labels
    lines = s3.read_bytes("s3://bucket/run/log.jsonl").decode().splitlines()
    assert json.loads(lines[-1])["kind"] == "epoch"


def test_a_log_that_cannot_be_written_stops_nothing(local_ray: None, tmp_path: Path, caplog: Any) -> None:
    from training_log import TrainingLog

    folder = RunFolder(str(tmp_path / "run"))
    with TrainingLog(folder, Console(quiet=True), num_steps=2, bars=False) as log:
        (tmp_path / "run").write_text("a file in the way")
        log.queue.put({"kind": "step", "epoch": 0, "step": 1, "loss": 1.0, "samples_per_second": 2.0})
    assert "could not be written" in caplog.text and "training goes on" in caplog.text
    (tmp_path / "run").unlink()
    with TrainingLog(folder, Console(quiet=True), num_steps=2, bars=False) as log:
        log.queue.put({"kind": "epoch", "epoch": 0, "step": 2})
    assert [line["kind"] for line in log_lines(tmp_path / "run")] == ["epoch"]


@pytest.mark.chaos
@pytest.mark.slow
def test_ctrl_c_keeps_the_checkpoints_and_says_how_to_go_on(
    tiny_models: ManipulatorConfig, prepared: RunFolder, tmp_path: Path
) -> None:
    changes = {"checkpoint_steps": 1, "training.num_epochs": 400}
    output = tmp_path / "out"
    command = [sys.executable, "jobs/pretrain_encoder.py", *flags(tiny_models, prepared, output, **changes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while not list(output.glob("checkpoints/checkpoint_*")) and time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 130, (tmp_path / "log").read_text()[-2000:]
    assert "Give the same command again to go on" in (tmp_path / "log").read_text()
    assert record(output)["status"] == "running" and not (output / "_run" / "lock.json").exists()
    assert list(output.glob("checkpoints/checkpoint_*"))
