"""How far a training is, from the end of its log and its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runs import run, unwrapped

from soundguide.run_folder import RunFolder, describe_run
from soundguide.run_status import read_status
from soundguide.storage import join_uri


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run"))


def log_line(kind: str, epoch: int, step: int, **figures: object) -> str:
    return json.dumps({"kind": kind, "epoch": epoch, "step": step, **figures}) + "\n"


def train(folder: RunFolder, log: str, **changes: object) -> None:
    """Write the folder of a pretraining: 4 epochs of 25 steps of 16 clips."""
    identity = {
        "encoder": {},
        "training": {"num_epochs": 4, "batch_size": 16},
        "clips": {"counts": {"train": 410, "validation": 40}},
        "version": "0.1.0",
    }
    folder.write_record({**describe_run(identity, {}, ()), "status": "running", **changes})
    folder.storage.write_bytes(join_uri(folder.uri, "log.jsonl"), log.encode())


def test_a_training_tells_its_steps_loss_and_speed(folder: RunFolder) -> None:
    log = log_line("step", 0, 24, loss=9.0, samples_per_second=10.0)
    log += log_line("epoch", 0, 25, validation_loss=8.0, validation_accuracy=0.25)
    log += log_line("step", 1, 40, loss=7.5, samples_per_second=32.0)
    train(folder, log)
    latest = {"checkpoint_dir_name": "checkpoint_2026-01-02", "metrics": {"epoch": 0, "step": 25}}
    snapshot = {"ray_version": "2.60.0", "checkpoint_results": [latest], "latest_checkpoint_result": latest}
    notes = join_uri(folder.uri, "checkpoints", "checkpoint_manager_snapshot.json")
    folder.storage.write_bytes(notes, json.dumps(snapshot).encode())
    with folder.held():
        found = read_status(folder)
    training = found.training
    assert training and found.rows is None and (found.state, found.job) == ("running", "pretrain_encoder")
    assert (training.step, training.num_steps, training.epochs_done, training.num_epochs) == (40, 100, 1, 4)
    assert (training.loss, training.validation_accuracy, training.clips_per_second) == (7.5, 0.25, 32)
    assert training.checkpoint and training.checkpoint.step == 25
    assert found.remaining_seconds == pytest.approx(60 * 16 / 32)
    result = run("status", folder.uri)  # nobody holds it now
    told = unwrapped(result.stdout)
    assert result.exit_code == 3 and "40 %, 40 of 100 steps" in told and "it goes on from step 25" in told


def test_only_the_end_of_a_long_log_is_read(folder: RunFolder) -> None:
    filler = {f"figure_{number}": 0.123456 for number in range(30)}
    early = "".join(log_line("step", 0, step, **filler) for step in range(200))
    early += log_line("epoch", 0, 25, validation_accuracy=0.5)
    late = "".join(
        log_line("step", 1, 26 + step, loss=1.0, **filler) for step in range(300)
    )  # more than the first look
    train(folder, "no json\n" + early + late + '{"kind": "step", "ep')
    training = read_status(folder).training
    assert training and (training.step, training.epochs_done, training.validation_accuracy) == (325, 1, 0.5)


@pytest.mark.parametrize("log", ["", "\n", "[1]\n", log_line("step", 0, 1, loss=float("nan"), samples_per_second=0)])
def test_a_training_that_has_told_nothing_yet_is_at_its_beginning(folder: RunFolder, log: str) -> None:
    train(folder, log)
    answer = json.loads(run("status", folder.uri, "--json").stdout)
    training = answer["training"]
    assert training["epochs_done"] == 0 and training["step"] <= 1 and training["loss"] is None
    assert answer["remaining_seconds"] is None and training["checkpoint"] is None
    assert "it goes on from the beginning" in unwrapped(run("status", folder.uri).stdout)
