"""What a training tells while it runs, on the driver: a live line, JSON Lines and TensorBoard."""

import json
import logging
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from soundguide.errors import SoundGuideError
from soundguide.run_folder import RunFolder
from soundguide.storage import join_uri

LOG_FILE, BOARD = "log.jsonl", "tensorboard"
_POLL_SECONDS = 0.5
_SAVE_SECONDS = 30.0

logger = logging.getLogger(__name__)


class TrainingLog:
    """Takes records from the workers' queue and writes them into the output folder until it is left.

    A record is a flat dict with ``kind`` 'step' or 'epoch', ``epoch`` and ``step``. A run that goes on appends.
    """

    def __init__(self, folder: RunFolder, console: Console, *, num_steps: int, bars: bool) -> None:
        from tensorboardX import SummaryWriter

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})  # it ends with the driver alone
        self._folder, self._console = folder, console
        self._lines = self._earlier_lines()
        self._saved = time.monotonic()
        self._board_folder = tempfile.TemporaryDirectory(prefix="soundguide-board-")
        self._board = SummaryWriter(self._board_folder.name)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
            TimeRemainingColumn(),
            console=console,
            disable=not bars,
        )
        self._task = self._progress.add_task("starting", total=num_steps)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._progress.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._progress.stop()
        self._save()
        self._board.close()
        self._board_folder.cleanup()
        self.queue.shutdown()

    def _follow(self) -> None:
        while True:
            try:
                self._take(self.queue.get(timeout=_POLL_SECONDS))
            except Empty:
                if self._done.is_set():
                    return
            except RayActorError:
                logger.warning("the queue of the log was lost: training goes on, untold")
                return
            if time.monotonic() - self._saved > _SAVE_SECONDS:
                self._save()

    def _take(self, record: dict[str, Any]) -> None:
        self._lines.append(json.dumps(record))
        for name, value in record.items():
            if isinstance(value, int | float) and name not in ("step", "epoch"):
                self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"])
        heard = f", right {record['validation_accuracy']:.1%}" if "validation_accuracy" in record else ""
        if record["kind"] == "step":
            text = f"epoch {record['epoch']}: loss {record['loss']:.3f}, {record['samples_per_second']:.0f} clips/s"
            self._progress.update(self._task, description=text, completed=record["step"])
        else:
            loss = f"validation loss {record['validation_loss']:.3f}" if "validation_loss" in record else "done"
            self._console.print(f"epoch {record['epoch']}: {loss}{heard}, step {record['step']:,}", highlight=False)

    def _save(self) -> None:
        """Write the log whole, since object stores cannot append; what fails now is tried again later."""
        self._saved = time.monotonic()
        try:
            self._write()
        except (OSError, SoundGuideError) as error:
            logger.warning("the log in %s could not be written (%s): training goes on", self._folder.uri, error)

    def _write(self) -> None:
        storage = self._folder.storage
        storage.write_bytes(join_uri(self._folder.uri, LOG_FILE), "".join(f"{line}\n" for line in self._lines).encode())
        self._board.flush()
        for path in Path(self._board_folder.name).iterdir():
            storage.write_bytes(join_uri(self._folder.uri, BOARD, path.name), path.read_bytes())

    def _earlier_lines(self) -> list[str]:
        uri = join_uri(self._folder.uri, LOG_FILE)
        storage = self._folder.storage
        return storage.read_bytes(uri).decode().splitlines() if storage.exists(uri) else []
