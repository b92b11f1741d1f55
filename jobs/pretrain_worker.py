"""What each worker of a pretraining runs under Ray Train: its shard of the clips, epoch after epoch."""

import os
import resource
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray import train
from ray.exceptions import RayActorError
from ray.train.torch import get_device, prepare_model
from ray.util.queue import Queue

from soundguide.clips.weak_partners import WeakPartners, fetch_table
from soundguide.distributed import mean_over_workers
from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder
from soundguide.models.checkpoint import save_model
from soundguide.pretraining.batches import BatchReader, ClipBatch
from soundguide.pretraining.pretrainer import Pretrainer
from soundguide.pretraining.settings import PretrainingSettings
from soundguide.pretraining.shard_stream import ShardStream
from soundguide.storage import Storage

ENCODER = "encoder"
_STATE = "state.pt"
_NUM_AHEAD = 3  # batches decoded while another one trains

Item = TypeVar("Item")


@dataclass(frozen=True)
class Plan:
    """All that a worker must know. ``label_embeddings`` ``[L, E]``; ``partners``: folder of the weak partners.

    ``start``: weights by name to begin with, as numpy arrays, or None.
    """

    settings: PretrainingSettings
    encoder: SwinAudioConfig
    train: ShardStream
    validation: ShardStream
    labels: tuple[str, ...]
    label_embeddings: NDArray[np.float32]
    teacher_log_scale: float
    partners: str
    storage: Storage
    num_steps: int
    num_threads: int
    precise: bool
    compile: bool
    half: bool
    start: ray.ObjectRef | None
    checkpoint_steps: int
    report_seconds: float
    made_by: str


def train_worker(config: dict[str, Any]) -> None:
    """Train to the end of the plan, from the last checkpoint if there is one; the function that Ray Train calls."""
    plan: Plan = config["plan"]
    journal: Queue = config["journal"]
    context, settings = train.get_context(), plan.settings
    torch.set_num_threads(plan.num_threads or max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    rank, world = context.get_world_rank(), context.get_world_size()
    encoder = SwinAudioEncoder(plan.encoder, seed=settings.seed)
    if plan.start is not None:
        encoder.load_state_dict({name: torch.tensor(value) for name, value in ray.get(plan.start).items()})
    pretrainer = Pretrainer(
        encoder,
        settings,
        num_steps=plan.num_steps,
        teacher_log_scale=plan.teacher_log_scale,
        device=get_device(),
        precise=plan.precise,
        compile=plan.compile,
        wrap=prepare_model if world > 1 else None,
    )
    local = settings.batch_size // world
    first_epoch, num_done = _resume(pretrainer)
    reader = _reader(plan)
    label_embeddings = torch.from_numpy(plan.label_embeddings).to(pretrainer.device)
    speed = Speedometer(journal if rank == 0 else None, plan.report_seconds)
    for epoch in range(first_epoch, settings.num_epochs):
        fell_back = torch.zeros((), device=pretrainer.device)
        torch.manual_seed(settings.seed + 7919 * epoch + rank)  # drop path
        for batch in batches_of(
            plan.train, reader, epoch=epoch, size=local, skip=num_done, shuffle=settings.shuffle_clips // world
        ):
            generator = torch.Generator().manual_seed(settings.seed + 1_000_003 * pretrainer.step + rank)
            found = pretrainer.train_step(batch.to(pretrainer.device), generator)
            pretrainer.samples_seen += local * world
            num_done += 1
            fell_back += batch.fell_back.sum()
            speed.note(pretrainer, epoch, found, local * world)
            if plan.checkpoint_steps and pretrainer.step % plan.checkpoint_steps == 0:
                _report(pretrainer, plan, {"step": pretrainer.step}, (epoch, num_done), rank)
        validation = batches_of(plan.validation, reader, epoch=0, size=local)
        metrics = {
            "epoch": epoch,
            "step": pretrainer.step,
            "samples_seen": pretrainer.samples_seen,
            "partners_fallen_back": round(float(mean_over_workers(fell_back)) * world),
            **pretrainer.validate((batch.to(pretrainer.device) for batch in validation), label_embeddings),
        }
        num_done = 0
        _report(pretrainer, plan, metrics, (epoch + 1, 0), rank)
        speed.tell({"kind": "epoch", **metrics})


def batches_of(
    stream: ShardStream, reader: BatchReader, *, epoch: int, size: int, skip: int = 0, shuffle: int | None = None
) -> Iterator[ClipBatch]:
    """Yield this worker's batches, read and decoded ahead; with ``shuffle`` without the rest that fills none."""
    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    tables = stream.tables(size, epoch=epoch, rank=rank, world=world, shuffle=shuffle, skip=skip)
    return ahead((reader.read(table, epoch=epoch) for table in tables), depth=_NUM_AHEAD)


def ahead(items: Iterable[Item], *, depth: int) -> Iterator[Item]:
    """Yield the items in order, up to ``depth`` of them made ahead by a thread."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, iterator, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, iterator, end))
            yield cast(Item, item)


class Speedometer:
    """Sends figures to the driver every few seconds; with `journal` None it is silent."""

    def __init__(self, journal: Queue | None, every_seconds: float) -> None:
        self._journal, self._every = journal, every_seconds
        self._started = self._since = time.monotonic()
        self._samples = 0

    def note(self, pretrainer: Pretrainer, epoch: int, found: dict[str, torch.Tensor], num_samples: int) -> None:
        """Count a step, and tell of it if it is time."""
        self._samples += num_samples
        now = time.monotonic()
        if self._journal is None or now - self._since < self._every and pretrainer.step > 1:
            return
        figures = {name: float(value) for name, value in found.items()}
        figures["samples_per_second"] = self._samples / max(now - self._since, 1e-6)
        figures["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.tell({"kind": "step", "epoch": epoch, "step": pretrainer.step, **figures})
        self._since, self._samples = now, 0

    def tell(self, record: dict[str, Any]) -> None:
        """Send a record."""
        if self._journal is None:
            return
        try:
            self._journal.put({**record, "seconds": round(time.monotonic() - self._started, 3)})
        except RayActorError:  # whoever listened is gone: no reason to stop
            self._journal = None


def _reader(plan: Plan) -> BatchReader:
    table = None
    if plan.settings.loss.weak_pairs and plan.partners:
        # a folder that another user made could not be written
        cache = Path(tempfile.gettempdir()) / f"soundguide-partners-{os.getuid()}"
        table = WeakPartners(fetch_table(plan.partners, plan.storage, cache=cache))
    return BatchReader(
        plan.labels,
        num_samples=plan.encoder.num_samples,
        sample_rate=plan.encoder.log_mel.sample_rate,
        partners=table,
        text_share=plan.settings.augment.text_share,
        seed=plan.settings.seed,
    )


def _resume(pretrainer: Pretrainer) -> tuple[int, int]:
    """Load the last checkpoint, if there is one; return the epoch to go on with and its batches that are done.

    Another number of workers divides the clips differently: then the epoch begins again, and the schedule with it.
    """
    checkpoint = train.get_checkpoint()
    if checkpoint is None:
        return 0, 0
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / _STATE, map_location=pretrainer.device, weights_only=True)
    pretrainer.load_state(state["pretrainer"])
    epoch, done = int(state["epoch"]), int(state["batches_done"])
    if done and state["num_workers"] != train.get_context().get_world_size():
        pretrainer.step -= done
        pretrainer.samples_seen -= done * int(state["batch_size"])
        done = 0
    return epoch, done


def _report(pretrainer: Pretrainer, plan: Plan, metrics: dict[str, Any], place: tuple[int, int], rank: int) -> None:
    """Report to Ray Train, with a checkpoint from rank 0; all workers meet here."""
    if rank:
        train.report(metrics)
        return
    with tempfile.TemporaryDirectory(prefix="soundguide-") as folder:
        save_model(
            Path(folder) / ENCODER,
            pretrainer.best_encoder,
            plan.encoder,
            half=plan.half,
            made_by=plan.made_by,
            extra={"labels": plan.labels},
        )
        world = train.get_context().get_world_size()
        state = {
            "pretrainer": pretrainer.state(),
            "epoch": place[0],
            "batches_done": place[1],
            "num_workers": world,
            "batch_size": plan.settings.batch_size // world * world,
        }
        torch.save(state, Path(folder) / _STATE)
        train.report(metrics, checkpoint=train.Checkpoint.from_directory(folder))
