r"""Teach a sound encoder CLIP's space with Ray Train, on clips that prepare_clips.py made (Lee et al., Sec. 3.1).

on this machine, a small encoder:
  python jobs/pretrain_encoder.py --config jobs/configs/miniature.yaml --clips prepared --output out/encoder

on eight GPUs of a cluster, the paper's figures:
  python jobs/pretrain_encoder.py --config jobs/configs/paper.yaml --clips s3://bucket/prepared \
      --image_text /models/vit-b-32 --output s3://bucket/encoder --workers.num_workers 8 --address auto

The output folder has encoder/ (a model folder for --audio of everything else), log.jsonl, tensorboard/, checkpoints/
and run.json. A run that was stopped goes on from its last checkpoint when the same line is given again. The same line
works after `ray job submit --working-dir . --`.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from data_pipeline import connect
from job_config import is_submitted, place_output, run_job
from pretrain_config import PretrainConfig, check_fit
from soundguide import __version__
from soundguide.clips.shards import weak_partners_uri
from soundguide.clips.splits import TRAIN, VALIDATION
from soundguide.errors import InvalidConfig, OutputConflict
from soundguide.models.manifest import MINIATURE, read_config, resolve_model
from soundguide.pretraining.prepared_set import PreparedSet, read_prepared_set
from soundguide.run_folder import Facts, RunFolder, describe_run
from soundguide.storage import Storage, join_uri, resolve_uri

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.train.torch import TorchTrainer

    from pretrain_worker import Plan

CHECKPOINTS = "checkpoints"
_USAGE = "python jobs/pretrain_encoder.py --clips PREPARED --output O [--config F.yaml] [--any.nested.field V]"


def run(config: PretrainConfig, console: Console) -> int:
    """Run the job; return the exit code. Raises InvalidProgram, before any worker starts where that can be known."""
    storage = Storage(config.storage)
    config = _place(config)
    clips = read_prepared_set(RunFolder(config.clips, storage))
    num_steps = check_fit(config, clips)
    folder = RunFolder(config.output, storage)
    with folder.held():
        return pretrain(config, clips, folder, console, num_steps=num_steps)


def pretrain(config: PretrainConfig, clips: PreparedSet, folder: RunFolder, console: Console, *, num_steps: int) -> int:
    """Train, unless the folder holds this very training already; return the exit code."""
    identity, earlier = identify(config, clips), folder.read_record()
    if earlier is None and folder.storage.list(join_uri(config.output, CHECKPOINTS)):
        raise OutputConflict(f"{config.output} holds checkpoints, but not the run.json of their run. Empty it")
    if earlier is not None:
        folder.require_same(earlier, identity)
        if earlier.get("status") == "complete":
            show(console, earlier, config.output)
            return 0
    record = describe_run(identity, config.model_dump(mode="json"), (("image_text", clips.image_text_sha256),))
    folder.write_record({**record, "status": "running"})
    started = time.monotonic()
    asked = max(config.workers.num_workers, config.workers.max_workers) * config.workers.cpus_per_worker
    with connect(config.address, actor_cpus=asked):
        metrics = train(config, clips, folder, console, num_steps=num_steps)
    done = {**record, "status": "complete", "seconds": round(time.monotonic() - started, 1), "metrics": metrics}
    done |= {"clips": clips.counts, "labels": len(clips.labels)}
    folder.write_record(done)
    show(console, done, config.output)
    return 0


def identify(config: PretrainConfig, clips: PreparedSet) -> Facts:
    """Return all that decides what the encoder becomes: an output folder belongs to one such identity."""
    return {
        "encoder": config.encoder.model_dump(mode="json"),
        "training": config.training.model_dump(mode="json"),
        "clips": {"config_hash": clips.config_hash, "counts": clips.counts, "shards": clips.digest},
        "models": {"image_text": clips.image_text_sha256} | _start_digest(config),
        "version": __version__,
    }


def train(
    config: PretrainConfig, clips: PreparedSet, folder: RunFolder, console: Console, *, num_steps: int
) -> dict[str, Any]:
    """Train on the connected cluster, from the last checkpoint if there is one; return the last epoch's figures."""
    from ray.train import Result

    from training_log import TrainingLog

    _warn_of_waiting(config, console)
    with TrainingLog(folder, console, num_steps=num_steps, bars=config.shows_bars) as log:
        result: Result = _interruptible(make_trainer(config, clips, folder, log.queue, num_steps=num_steps).fit)
    _publish(result.checkpoint, folder)
    return {name: value for name, value in (result.metrics or {}).items() if isinstance(value, int | float)}


def _warn_of_waiting(config: PretrainConfig, console: Console) -> None:
    """Say so where the workers ask for more than the cluster has: Ray waits, in silence, for it to grow."""
    import ray

    asked, there = config.workers.num_workers * config.workers.cpus_per_worker, ray.cluster_resources().get("CPU", 0.0)
    if asked > there:
        console.print(
            f"the workers ask for {asked:g} CPUs, and the cluster has {there:g}: training begins when it has "
            "grown. Ctrl-C and --workers.num_workers make do with fewer",
            style="yellow",
        )


def _interruptible(fit: Callable[[], Any]) -> Any:
    """Call `fit`, which takes over Ctrl-C and turns it into SystemExit, and give Ctrl-C back."""
    before = signal.getsignal(signal.SIGINT)
    try:
        return fit()
    except SystemExit as stopped:
        raise KeyboardInterrupt from stopped
    finally:
        signal.signal(signal.SIGINT, before)


def make_trainer(
    config: PretrainConfig, clips: PreparedSet, folder: RunFolder, journal: object, *, num_steps: int
) -> "TorchTrainer":
    """Return the trainer; its checkpoints in the output folder make it go on where an earlier one stopped."""
    import ray
    from ray import cloudpickle
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    import pretrain_worker

    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # or lines come twice
    cloudpickle.register_pickle_by_value(pretrain_worker)  # workers on other machines do not have this folder
    resources, workers = ray.cluster_resources(), config.workers
    on_gpu = bool(resources.get("GPU")) if workers.gpus is None else workers.gpus
    if not config.address and not is_submitted() and on_gpu and resources.get("GPU", 0) < workers.num_workers:
        raise InvalidConfig(
            f"{workers.num_workers} workers need a GPU each, and this machine has {resources.get('GPU', 0):g}. Take "
            "fewer, --workers.gpus false, or the --address of a cluster"
        )
    filesystem, path = folder.storage.arrow_filesystem(folder.uri)
    filesystem.create_dir(path, recursive=True)
    per_worker = {"CPU": workers.cpus_per_worker} | ({"GPU": 1.0} if on_gpu else {})
    elastic = (workers.num_workers, workers.max_workers)
    return TorchTrainer(
        pretrain_worker.train_worker,
        train_loop_config={"plan": _plan(config, clips, on_gpu=on_gpu, num_steps=num_steps), "journal": journal},
        torch_config=TorchConfig(timeout_s=int(workers.timeout_seconds)),
        scaling_config=ScalingConfig(
            num_workers=elastic if workers.max_workers > workers.num_workers else workers.num_workers,
            use_gpu=on_gpu,
            resources_per_worker=per_worker,
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )


def show(console: Console, record: Facts, output: str) -> None:
    """Print what came out, and what to do with it."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    clips, metrics = record["clips"], record["metrics"]
    table.add_row("clips", ", ".join(f"{count:,} {split}" for split, count in sorted(clips.items())))
    table.add_row("trained", f"{metrics.get('samples_seen', 0):,} sounds, {metrics.get('step', 0):,} steps")
    if "validation_accuracy" in metrics:
        right = f"{metrics['validation_accuracy']:.1%} of its sounds named right, of {record['labels']} labels"
        table.add_row("validation", f"{right}; loss {metrics['validation_loss']:.3f}")
    encoder = join_uri(output, "encoder")
    table.add_row("try it", f"soundguide listen SOUND --audio {encoder}", style="bold")
    console.print(table)


def main(argv: Sequence[str]) -> int:
    """Run the program with the arguments `argv`; return its exit code."""
    return run_job(run, PretrainConfig, argv, usage=_USAGE, description=str(__doc__))


def _plan(config: PretrainConfig, clips: PreparedSet, *, on_gpu: bool, num_steps: int) -> "Plan":
    """Return what the workers need to know; CLIP embeds the labels' names here, once."""
    from pretrain_worker import Plan
    from soundguide.models.checkpoint import load_model
    from soundguide.models.image_text import OpenClipEncoder

    loaded = load_model(resolve_model(config.image_text, "image_text"), device="cpu").module
    if not isinstance(loaded, OpenClipEncoder):
        raise InvalidConfig(f"image_text {config.image_text} is no image-text encoder. Name one")
    return Plan(
        settings=config.training,
        encoder=config.encoder,
        train=clips.stream(TRAIN, seed=config.training.seed),
        validation=clips.stream(VALIDATION, seed=config.training.seed),
        labels=clips.labels,
        label_embeddings=loaded.encode_text(list(clips.labels)).numpy(),
        teacher_log_scale=float(loaded.logit_scale),
        partners=join_uri(weak_partners_uri(clips.folder), TRAIN) if clips.has_partners else "",
        storage=clips.folder.storage,
        num_steps=num_steps,
        num_threads=config.workers.num_threads,
        compile=config.workers.compile,
        half=config.half,
        start=_start_weights(config),
        precise=config.workers.precision == "float32" or (config.workers.precision == "auto" and not on_gpu),
        checkpoint_steps=config.checkpoint_steps,
        report_seconds=config.report_seconds,
        made_by="python jobs/pretrain_encoder.py (see run.json beside it)",
    )


def _start_digest(config: PretrainConfig) -> Facts:
    if not config.start_from:
        return {}
    return {"start_from": str(read_config(resolve_model(config.start_from, "audio"))["weights_sha256"])}


def _start_weights(config: PretrainConfig) -> "ObjectRef | None":
    """Return the weights to begin with, where every worker can fetch them."""
    if not config.start_from:
        return None
    import ray

    from soundguide.models.checkpoint import load_model

    loaded = load_model(resolve_model(config.start_from, "audio"), device="cpu").module
    return ray.put({name: value.numpy() for name, value in loaded.state_dict().items()})


def _publish(checkpoint: Any, folder: RunFolder) -> None:
    """Put the encoder of a checkpoint into the output folder: weights first, so that its config never lacks them."""
    from pretrain_worker import ENCODER

    with checkpoint.as_directory() as local:
        files = sorted((Path(local) / ENCODER).iterdir(), key=lambda path: path.suffix == ".json")
        for path in files:
            folder.storage.write_bytes(join_uri(folder.uri, ENCODER, path.name), path.read_bytes())


def _place(config: PretrainConfig) -> PretrainConfig:
    """Return the config with absolute folders, for workers stand in others; a submitted job must name them so."""
    places = {"output": place_output(config.output), "clips": resolve_uri(config.clips, base=".")}
    if not is_submitted():
        models = {"image_text": config.image_text, "start_from": config.start_from}
        places |= {name: os.path.abspath(path) for name, path in models.items() if path not in ("", MINIATURE)}
    return config.model_copy(update=places)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
