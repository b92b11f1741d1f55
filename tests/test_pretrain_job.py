"""The pretraining job on a private Ray: it ends, resumes, survives a killed worker, refuses what does not fit."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from prepared_clips import LONELY, PITCHES, write_prepared
from tiny_world import SAMPLE_RATE

import pretrain_encoder
import pretrain_worker
from job_config import exit_code_of
from pretrain_encoder import PretrainConfig
from soundguide.audio.decode import encode_wav
from soundguide.clips.splits import TRAIN
from soundguide.command_config import load_config
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidProgram
from soundguide.models.checkpoint import load_model
from soundguide.pretraining.batches import BatchReader, ClipBatch
from soundguide.pretraining.shard_stream import ShardStream
from soundguide.run_folder import RunFolder
from soundguide.world import World

EPOCHS, BATCH = 2, 16
STEPS = EPOCHS * (50 // BATCH)


@pytest.fixture(scope="module")
def prepared(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_prepared(tmp_path_factory.mktemp("prepared"), tiny_models)


def flags(models: ManipulatorConfig, prepared: RunFolder, output: Path | str, **changes: object) -> list[str]:
    encoder = load_model(Path(models.audio), device="cpu").config.model_dump(mode="json")
    log_mel = encoder.pop("log_mel")
    chosen = {
        "clips": prepared.uri,
        "output": str(output),
        "image_text": models.image_text,
        "training.num_epochs": EPOCHS,
        "training.batch_size": BATCH,
        "training.optimizer.warmup_steps": 2,
        "training.optimizer.num_cycles": 1,
        "workers.cpus_per_worker": 0.5,
        "report_seconds": 0.01,
        **{
            f"encoder.{name}": json.dumps(value) if isinstance(value, list) else value
            for name, value in encoder.items()
        },
        **{f"encoder.log_mel.{name}": value for name, value in log_mel.items()},
        **changes,
    }
    return [f"--{name}={value}" for name, value in chosen.items()]


@pytest.fixture(scope="module")
def done(
    local_ray: None, tiny_models: ManipulatorConfig, prepared: RunFolder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished training on two workers."""
    output = tmp_path_factory.mktemp("training") / "run"
    assert pretrain_encoder.main(flags(tiny_models, prepared, output, **{"workers.num_workers": 2})) == 0
    return output


def record(output: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((output / "run.json").read_text())
    return found


def log_lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_two_workers_see_every_clip_and_tell_what_they_do(done: Path) -> None:
    metrics = record(done)["metrics"]
    assert isinstance(metrics, dict)
    assert (metrics["step"], metrics["samples_seen"]) == (STEPS, STEPS * BATCH)
    assert metrics["validation_loss"] > 0 and 0 <= metrics["validation_accuracy"] <= 1
    log = log_lines(done)
    steps = [line for line in log if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    for name in ("text", "image", "self_supervised", "weak_pairs"):
        assert all(line[f"loss_{name}"] > 0 and line[f"scale_{name}"] > 1 for line in steps)
    assert {"learning_rate", "gradient_norm", "samples_per_second"} <= steps[0].keys()
    assert [line["epoch"] for line in log if line["kind"] == "epoch"] == list(range(EPOCHS))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert list((done / "tensorboard").glob("events*"))


def test_the_encoder_hears_for_everything_else(done: Path, tiny_models: ManipulatorConfig) -> None:
    loaded = load_model(done / "encoder", device="cpu")
    assert set(loaded.labels) == {*PITCHES, LONELY}
    world = World(tiny_models.model_copy(update={"audio": str(done / "encoder"), "device": "cpu"}))
    from clip_videos import tone

    embedding = world.listener.embed(encode_wav(tone(400.0, 1.0, rate=SAMPLE_RATE), SAMPLE_RATE))
    assert {label for label, _ in world.listener.top(embedding, num=2)} <= {*PITCHES, LONELY}


def test_a_finished_run_is_shown_and_not_repeated(
    done: Path,
    tiny_models: ManipulatorConfig,
    prepared: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pretrain_encoder, "train", lambda *_, **__: pytest.fail("it was trained again"))
    same = flags(tiny_models, prepared, done, **{"workers.num_workers": 1})  # how many workers is no matter
    assert pretrain_encoder.main(same) == 0
    assert "soundguide listen SOUND --audio" in capsys.readouterr().out
    assert pretrain_encoder.main(flags(tiny_models, prepared, done, **{"training.seed": 1})) == 2
    assert "training.seed was 0, is 1" in capsys.readouterr().err


class KilledOnce:
    """Batches of which one kills its worker, the first time."""

    def __init__(self, marker: Path) -> None:
        self.marker, self.whole = marker, pretrain_worker.batches_of

    def __call__(
        self, stream: ShardStream, reader: BatchReader, *, epoch: int, skip: int = 0, **how: int
    ) -> Iterator[ClipBatch]:
        for number, batch in enumerate(self.whole(stream, reader, epoch=epoch, skip=skip, **how), skip):
            if stream.split == TRAIN and (epoch, number) == (1, 2) and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def kill_once(patched: pytest.MonkeyPatch, marker: Path) -> None:
    """Make a worker die once, in the middle of the second epoch; what is patched travels to it."""
    import test_pretrain_job
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(test_pretrain_job)
    patched.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    patched.setattr(pretrain_worker, "batches_of", KilledOnce(marker))


def test_a_killed_worker_costs_no_sample_and_little_loss(
    done: Path,
    tiny_models: ManipulatorConfig,
    prepared: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kill_once(monkeypatch, tmp_path / "killed")
    changes = {"workers.num_workers": 2, "checkpoint_steps": 1}  # so that it goes on in the middle of an epoch
    assert pretrain_encoder.main(flags(tiny_models, prepared, tmp_path / "out", **changes)) == 0
    assert (tmp_path / "killed").exists()
    calm, killed = record(done)["metrics"], record(tmp_path / "out")["metrics"]
    assert isinstance(calm, dict) and isinstance(killed, dict)
    assert calm["samples_seen"] == killed["samples_seen"] == STEPS * BATCH
    assert killed["validation_loss"] == pytest.approx(calm["validation_loss"], rel=0.05)


def test_the_same_command_goes_on_with_a_run_that_failed(
    done: Path,
    tiny_models: ManipulatorConfig,
    prepared: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.train import WorkerGroupError

    changes = {"checkpoint_steps": 1, "workers.max_failures": 0}
    again = flags(tiny_models, prepared, tmp_path / "out", **changes)
    with monkeypatch.context() as patched:
        kill_once(patched, tmp_path / "killed")
        with pytest.raises(WorkerGroupError):
            pretrain_encoder.main(again)
    assert record(tmp_path / "out")["status"] == "running" and not (tmp_path / "out" / "encoder").exists()
    assert pretrain_encoder.main(again) == 0
    calm, resumed = record(done)["metrics"], record(tmp_path / "out")["metrics"]
    assert isinstance(calm, dict) and isinstance(resumed, dict)
    assert resumed["samples_seen"] == STEPS * BATCH
    assert resumed["validation_loss"] == pytest.approx(calm["validation_loss"], rel=0.05)
    steps = [line["step"] for line in log_lines(tmp_path / "out") if line["kind"] == "step"]
    # the last checkpoint may have been on its way when the worker died: then its step is taken again, and no other
    assert sorted(set(steps)) == list(range(1, STEPS + 1)) and len(steps) <= STEPS + 1


def test_an_encoder_can_be_trained_further(
    done: Path, tiny_models: ManipulatorConfig, prepared: RunFolder, tmp_path: Path
) -> None:
    still = {"training.optimizer.learning_rate": 1e-9, "training.num_epochs": 1}
    changes = still | {"start_from": done / "encoder"}
    assert pretrain_encoder.main(flags(tiny_models, prepared, tmp_path / "out", **changes)) == 0
    before, after = (
        load_model(path / "encoder", device="cpu").module.state_dict() for path in (done, tmp_path / "out")
    )
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training.batch_size": 64}, r"has 50 clips to train on, fewer than one batch of 64\. Lower"),
        ({"workers.num_workers": 3}, r"batch_size 16 cannot be shared among 3 workers\. Take a multiple"),
        ({"workers.num_workers": 16}, r"cannot be shared among 16 workers.*two clips at least"),
        ({"encoder.embed_dim": 8}, r"embed_dim is 8, but the clips' embeddings are 16 wide\. Set it to 16"),
        ({"image_text": "miniature"}, r"were prepared with .*Name the model that prepared them"),
        ({"clips": "nowhere"}, r"no finished preparation"),
        ({"workers.num_workers": 4, "workers.max_workers": 2}, r"max_workers 2 must be at least workers.num_workers 4"),
        ({"workers.max_workers": 4}, r"needs --checkpoint_steps"),
        ({"encoder.log_mel.sample_rate": 16_000}, r"reads sounds of 16000 Hz.*prepared with 8000 Hz"),
        ({"training.loss.kl_form": "both"}, r"kl_form"),
        ({"start_from": "miniature"}, r"is not built as encoder says \(.*Set encoder as it is there"),
        ({"start_from": "nowhere"}, r"no model here"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(
    tiny_models: ManipulatorConfig,
    prepared: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    says: str,
) -> None:
    assert pretrain_encoder.main(flags(tiny_models, prepared, tmp_path / "out", **changes)) == 2
    assert re.search(says, capsys.readouterr().err) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["paper", "miniature"])
def test_the_configs_are_valid(name: str) -> None:
    path = Path(pretrain_encoder.__file__).parent / "configs" / f"{name}.yaml"
    config = load_config(PretrainConfig, ["--config", str(path), "--clips", "c", "--output", "o"])
    if name == "paper":  # Sec. 4.1
        optimizer, training = config.training.optimizer, config.training
        assert (training.batch_size, training.num_epochs, config.encoder.embed_dim) == (384, 50, 512)
        assert (optimizer.learning_rate, optimizer.beta1, optimizer.weight_decay) == (1e-3, 0.9, 1e-4)
        assert (training.augment.frequency_ratio, training.augment.time_ratio) == (0.15, 0.3)
        assert set(training.loss.weights().values()) == {1.0}


def test_a_refusal_of_a_worker_is_told_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    from ray.train import WorkerGroupError

    def fail() -> int:
        raise WorkerGroupError("workers failed", {1: InvalidProgram("the gradient of step 7 is not finite. Lower it")})

    assert exit_code_of(fail) == 2
    assert "InvalidProgram: the gradient of step 7 is not finite" in capsys.readouterr().err
    with pytest.raises(WorkerGroupError):  # what is no refusal keeps its traceback
        exit_code_of(lambda: (_ for _ in ()).throw(WorkerGroupError("failed", {0: OSError("no space")})))
