"""How far a pretraining is, from the end of its log and from the checkpoint that it would go on from."""

from __future__ import annotations

import json
import math
import os
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, Field

from soundguide.clips.splits import TRAIN
from soundguide.config import Frozen
from soundguide.errors import SourceNotFound
from soundguide.run_files import read_steadily
from soundguide.run_folder import Facts, RunFolder
from soundguide.storage import Storage, join_uri

LOG_FILE = "log.jsonl"
# Where Ray Train notes which checkpoints are whole: a folder beside it may still be on its way.
_CHECKPOINTS = ("checkpoints", "checkpoint_manager_snapshot.json")
_TAIL_BYTES = (2**16, 2**19, 2**22)  # read from the log's end until an epoch's line is among them


class Checkpoint(Frozen):
    """What the same command would go on from."""

    name: Annotated[str, Field(description="Its folder in checkpoints/.")]
    step: Annotated[int, Field(description="Steps that it has behind it.")]


class TrainingStatus(Frozen):
    """How far a pretraining is, as its log last told; null for what it has not told yet."""

    step: Annotated[int, Field(description="Steps done.")]
    num_steps: Annotated[int, Field(description="Steps of the whole training.")]
    epochs_done: Annotated[int, Field(description="Epochs done.")]
    num_epochs: Annotated[int, Field(description="Epochs of the whole training.")]
    loss: Annotated[float | None, Field(description="Of the last step that was told.")] = None
    validation_accuracy: Annotated[float | None, Field(description="After the last epoch, 0..1.")] = None
    clips_per_second: Annotated[float | None, Field(description="Lately, all workers together.")] = None
    batch_size: Annotated[int, Field(description="Clips of a step.")]
    checkpoint: Annotated[Checkpoint | None, Field(description="The newest that is whole.")] = None

    @property
    def remaining_seconds(self) -> float | None:
        """How long the steps that are left take at this speed."""
        if not self.clips_per_second:
            return None
        return (self.num_steps - self.step) * self.batch_size / self.clips_per_second


class _Settings(BaseModel):
    num_epochs: int
    batch_size: Annotated[int, Field(gt=0)]


class _Clips(BaseModel):
    counts: dict[str, int]


class _Identity(BaseModel):
    """What is read of the identity in ``run.json``."""

    training: _Settings
    clips: _Clips


def read_training(folder: RunFolder, identity: Facts) -> TrainingStatus:
    """Read how far the pretraining in the folder is; ``identity`` is that of its ``run.json``.

    Raises ValidationError where ``identity`` is not that of a pretraining.
    """
    known = _Identity.model_validate(identity)
    num_epochs, batch_size = known.training.num_epochs, known.training.batch_size
    lines = _read_tail(join_uri(folder.uri, LOG_FILE), folder.storage)
    last = lines[-1] if lines else {}
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    epoch = _number(last, "epoch") or 0  # counts from 0
    return TrainingStatus(
        step=int(_number(last, "step") or 0),
        num_steps=num_epochs * (known.clips.counts.get(TRAIN, 0) // batch_size),
        epochs_done=int(epoch) + (last.get("kind") == "epoch"),
        num_epochs=num_epochs,
        loss=_number(steps[-1], "loss") if steps else None,
        validation_accuracy=_number(epochs[-1], "validation_accuracy") if epochs else None,
        clips_per_second=_number(steps[-1], "samples_per_second") if steps else None,
        batch_size=batch_size,
        checkpoint=_read_checkpoint(folder),
    )


def _read_tail(uri: str, storage: Storage) -> list[Facts]:
    """Return the last lines of a log, back to the end of an epoch where that is not too far; none without a log."""
    lines: list[Facts] = []
    for num_bytes in _TAIL_BYTES:
        data = read_steadily(uri, partial(_read_end, storage, num_bytes)) or b""
        whole = len(data) < num_bytes
        # the first line may be cut
        lines = [line for line in map(_parse, data.split(b"\n")[not whole :]) if line is not None]
        if whole or any(line["kind"] == "epoch" for line in lines):
            break
    return lines


def _read_end(storage: Storage, num_bytes: int, uri: str) -> bytes:
    try:
        with storage.open(uri) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - num_bytes))
            return file.read()
    except SourceNotFound:
        return b""


def _parse(line: bytes) -> Facts | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("kind") in ("step", "epoch") else None


def _number(line: Facts, name: str) -> float | None:
    value = line.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _read_checkpoint(folder: RunFolder) -> Checkpoint | None:
    try:
        found: Any = json.loads(folder.storage.read_bytes(join_uri(folder.uri, *_CHECKPOINTS)))
        latest = found["latest_checkpoint_result"]
        return Checkpoint(name=latest["checkpoint_dir_name"], step=latest["metrics"]["step"])
    except (SourceNotFound, ValueError, KeyError, TypeError):
        return None  # none yet, or none that this version of Ray would know
