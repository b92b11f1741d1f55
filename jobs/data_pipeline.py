"""The Ray Data part of a job: where it runs, how it is divided, and the straight line from rows to results."""

import logging
import math
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pyarrow as pa
from pydantic import Field

import job_metrics
from job_config import is_submitted
from job_logs import LogFormat, tell_place, worker_logging
from soundguide.clips.facts import EmbedderConfig
from soundguide.config import Frozen, ManipulatorConfig
from soundguide.errors import InvalidConfig, Stalled
from soundguide.private_ray import LOG_LEVEL_NOTE, prepare_environment
from soundguide.quarantine import Attempts, GuardedActor, GuardedStage, Refuse
from soundguide.quiet import without_lines
from soundguide.run_folder import RunFolder

if TYPE_CHECKING:
    import ray

_BLOCKS_PER_ACTOR = 32  # at least: actors start and end at different times, and one must not hold another's work
_LEAST_ROWS_PER_BLOCK = 4  # or an actor's calls together would not fill its slots
LIGHT_CPUS = 0.5  # CPUs that a reading, preparing or finishing task asks for; less would start too many processes
_BESIDE = 2.0  # CPUs to keep free of actors: the filter of finished ids asks for one, the repartition for another
_MOST_PER_CORE = 2  # CPUs that actors of a private Ray may ask for, for each that there is
_LEAST = 0.02  # CPUs to share out among actors where there is no room: they must start all the same


class PoolConfig(Frozen):
    """The actors; each holds one copy of its models."""

    num_actors: Annotated[int, Field(ge=0, le=10_000, description="Actors; 0: one for each GPU, or else each CPU.")] = 0
    cpus_per_actor: Annotated[float, Field(gt=0, le=1024, description="CPUs that one actor asks for.")] = 1.0
    gpus_per_actor: Annotated[
        float | None, Field(ge=0, le=64, description="GPUs that one actor asks for; not given: 1 where there are any.")
    ] = None
    label_selector: Annotated[
        dict[str, str],
        Field(description='Labels of the machines on which actors may work, like {"market": "spot"}; empty: any.'),
    ] = {}  # noqa: RUF012 - pydantic copies it
    rows_per_block: Annotated[
        int, Field(ge=0, le=100_000, description="Rows that are finished, and on a crash lost, together; 0: by size.")
    ] = 0
    stall_seconds: Annotated[
        float, Field(gt=0, description="Stop when no block has finished for so long; longer than the slowest edits.")
    ] = 3600.0

    @property
    def cpus(self) -> float:
        """CPUs that all actors ask for, as far as their number is given."""
        return self.num_actors * self.cpus_per_actor


ActorConfig = TypeVar("ActorConfig", ManipulatorConfig, EmbedderConfig)


@dataclass(frozen=True, slots=True)
class Stages:
    """What happens to rows: `prepare` (cheap, yields one at a time), an actor of `config`, `finish` (cheap).

    `refuse` and `refuse_prepared` make a row that kills its process an error; without the second the actor is trusted.
    `program` is whose the metrics are.
    """

    prepare: Callable[[pa.Table], Iterator[pa.Table]]
    refuse: Refuse
    actor: Callable[..., Any]
    config: ManipulatorConfig | EmbedderConfig
    program: str
    refuse_prepared: Refuse | None = None
    finish: Callable[[pa.Table], pa.Table] | None = None


@contextmanager
def connect(address: str, *, actor_cpus: float, log_format: LogFormat = "text") -> Iterator[str]:
    """Join the cluster at `address` (empty: that of the submitted job), or run a private Ray meanwhile.

    `actor_cpus`: what the job's own actors will ask for, all together; a private Ray counts so many CPUs and some more.
    Yields a line that says where its metrics and logs are; empty where that is our caller's affair, or not known.
    """
    local = not address and not is_submitted()
    prepare_environment(local=local)
    if local:
        os.environ.setdefault("RAY_DATA_PARQUET_FOOTER_NUM_ACTORS", "1")  # of 32, which would fill a small machine
    import ray

    if ray.is_initialized():  # by whoever called us
        yield ""
        return
    if local:
        _require_room(actor_cpus)
    elif address:
        _require_answer(address)
    # Not the default folder, which points other programs at the last cluster; and short, as socket paths must be.
    folder = tempfile.mkdtemp(prefix="sg-ray-", dir="/tmp") if local else None
    where: dict[str, Any] = (
        {"address": "local", "num_cpus": _local_cpus(actor_cpus), "_temp_dir": folder}
        if local
        else {"address": address or "auto"}
    )
    where |= worker_logging(log_format)
    with without_lines(LOG_LEVEL_NOTE):
        context = ray.init(
            include_dashboard=False if local else None, log_to_driver=False, logging_level="warning", **where
        )
    logging.getLogger("ray").setLevel(logging.WARNING)  # as JSON, Ray sets the workers' level here too
    try:
        yield "" if "://" in address else tell_place(context.address_info, local=local)  # a Ray Client is told nothing
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def stream_rows(
    folder: RunFolder,
    stages: Stages,
    *,
    pool: PoolConfig,
    calls_per_actor: int,
    max_rows_per_block: int,
    num_rows: int,
    config_hash: str,
    progress: bool,
    source: Callable[[], "ray.data.Datasource"] | None = None,
) -> None:
    """Send the rows of the folder's manifest that are not done yet, about `num_rows`, through the stages.

    ``source`` makes the rows in the manifest's place; it is called when Ray runs. What comes out is written as results.
    A row that kills its process again and again is quarantined. Raises Stalled where nothing moves for
    `pool.stall_seconds`, OutputConflict and StoreUnavailable where results cannot be written.
    """
    import ray
    from ray import cloudpickle
    from ray.data.checkpoint import CheckpointConfig
    from ray.data.exceptions import ExecutionTimeoutError
    from ray.exceptions import RayTaskError

    import finished_ids  # imports ray

    for module in (job_metrics, finished_ids):  # and `source` sees to its own
        cloudpickle.register_pickle_by_value(module)  # workers on other machines do not have this folder
    pool, config = fit_pool(pool, stages.config)
    attempts = Attempts(folder.attempts_uri, folder.storage)
    attempts.clear()  # of a run that was killed, which says nothing about its rows
    arguments: list[Any] = [config]
    if stages.refuse_prepared is not None:
        work = partial(stages.actor, config, folder.storage)
        measured = partial(job_metrics.MeasuredActor, work, stages.program)
        arguments = [measured, stages.refuse_prepared, attempts, calls_per_actor]
    rows_per_block = pool.rows_per_block or max(
        _LEAST_ROWS_PER_BLOCK, min(max_rows_per_block, num_rows // (pool.num_actors * _BLOCKS_PER_ACTOR))
    )
    filesystem, manifest = folder.storage.arrow_filesystem(folder.manifest_uri)
    _, results = folder.storage.arrow_filesystem(folder.results_uri)
    _, checkpoint = folder.storage.arrow_filesystem(folder.checkpoint_uri(config_hash))

    context = _configured(progress=progress, stall_seconds=pool.stall_seconds)
    context.checkpoint_config = CheckpointConfig(
        id_column="id",
        checkpoint_path=checkpoint,
        delete_checkpoint_on_success=False,
        override_filesystem=filesystem,
        checkpoint_manager_cls=finished_ids.FinishedIds,
    )
    blocks: dict[str, Any] = {
        "batch_size": rows_per_block,
        "batch_format": "pyarrow",
        "udf_modifying_row_count": False,
    }
    if source is None:
        given = ray.data.read_parquet(manifest, filesystem=filesystem, num_cpus=LIGHT_CPUS)
    else:
        made = source()
        num_tasks = len(made.get_read_tasks(1))  # unless it is given, Ray cuts what each makes into very small blocks
        given = ray.data.read_datasource(made, num_cpus=LIGHT_CPUS, override_num_blocks=num_tasks)
    rows = (
        given.repartition(target_num_rows_per_block=rows_per_block)
        .map_batches(GuardedStage(stages.prepare, stages.refuse, attempts), num_cpus=LIGHT_CPUS, **blocks)
        .map_batches(
            stages.actor if stages.refuse_prepared is None else GuardedActor,
            fn_constructor_args=arguments,
            num_cpus=pool.cpus_per_actor,
            num_gpus=pool.gpus_per_actor,
            label_selector=pool.label_selector or None,
            compute=ray.data.ActorPoolStrategy(
                size=pool.num_actors,
                max_concurrent_calls_per_actor=calls_per_actor,
                # one more waits beside the actor; by default as many as it works on, which the last actor would miss
                max_tasks_in_flight_per_actor=calls_per_actor + 1,
            ),
            **blocks,
        )
    )
    if stages.finish is None:
        blocks["batch_size"] = None  # written as it comes from the actor
    rows = rows.map_batches(job_metrics.FinishedRows(stages.program, stages.finish), num_cpus=LIGHT_CPUS, **blocks)
    try:
        rows.write_parquet(results, filesystem=filesystem, ray_remote_args={"num_cpus": LIGHT_CPUS})
        attempts.clear()
    except ExecutionTimeoutError as exc:
        labelled = f" on machines labelled {pool.label_selector} (pool.label_selector)" if pool.label_selector else ""
        raise Stalled(
            f"nothing has moved for {pool.stall_seconds:g} s. {pool.num_actors} actors ask for {pool.cpus_per_actor:g} "
            f"CPUs and {pool.gpus_per_actor:g} GPUs each{labelled}: ray status tells whether the cluster has them. If "
            "it only takes so long, give a higher pool.stall_seconds. The same command goes on where this one ended"
        ) from exc
    except RayTaskError as exc:
        with folder.storage.writing(folder.results_uri):  # the results are written by Ray Data, not through our storage
            raise exc.cause from exc
    finally:
        context.checkpoint_config = None  # or whatever this process reads next would lack the ids that are done here


def _configured(*, progress: bool, stall_seconds: float) -> Any:
    """Return Ray Data's context, which datasets copy when they are made: what it shows, and how it fails."""
    import ray

    logging.getLogger("ray.data").setLevel(logging.INFO if progress and not sys.stdout.isatty() else logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.INFO if progress else logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = progress
    context.enable_rich_progress_bars, context.use_ray_tqdm = True, False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = stall_seconds
    # What stops the job arrives as it was raised, and is told once, by whoever called us.
    context.raise_original_map_exception = True
    for name in ("ray.data._internal.execution.streaming_executor_state", "ray.data.exceptions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return context


def fit_pool(pool: PoolConfig, config: ActorConfig) -> tuple[PoolConfig, ActorConfig]:
    """Return the pool and its actors' config as this cluster has room for them: sizes, devices and threads."""
    import ray

    resources, nodes = ray.cluster_resources(), ray.nodes()
    cpus, all_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    gpus = pool.gpus_per_actor
    if gpus is None:
        gpus = 1.0 if all_gpus and config.device != "cpu" else 0.0
    if not cpus and not (pool.num_actors and pool.gpus_per_actor is not None):
        raise InvalidConfig(
            "no machine of the cluster has CPUs yet. If it grows when it is asked, say for what: --pool.num_actors N "
            "and --pool.gpus_per_actor 1 (0 for CPUs alone)"
        )
    if 0 < cpus < _BESIDE and len(nodes) == 1:
        raise InvalidConfig(
            f"the Ray cluster counts {cpus:g} CPUs, and the tasks beside the actors need {_BESIDE:g}: they would "
            "wait for ever. Start it with more (ray start --head --num-cpus 4 counts four, whatever there are)"
        )
    real_cpus = min(cpus, float(os.cpu_count() or 1)) if len(nodes) == 1 else cpus  # a private Ray counts some twice
    cpus_per_actor, room = pool.cpus_per_actor, max(cpus - _BESIDE, _LEAST)
    num_actors = pool.num_actors
    if not num_actors:
        num_actors = max(1, int(all_gpus // gpus if gpus else min(room, real_cpus) // cpus_per_actor))
        cpus_per_actor = min(cpus_per_actor, room / num_actors)
    changes: dict[str, object] = {}
    if not gpus and config.device == "auto":
        changes["device"] = "cpu"  # a GPU that was not asked for belongs to somebody else
    if not config.num_threads:
        changes["num_threads"] = max(1, int(real_cpus // num_actors if cpus else cpus_per_actor))
    sized = {"num_actors": num_actors, "cpus_per_actor": cpus_per_actor, "gpus_per_actor": gpus}
    return pool.model_copy(update=sized), config.model_copy(update=changes)


def _require_room(actor_cpus: float) -> None:
    """Raise InvalidConfig where the actors would start side by side on far fewer cores, and crawl."""
    there = os.cpu_count() or 1
    if actor_cpus > max(4, _MOST_PER_CORE * there):
        raise InvalidConfig(
            f"actors or workers ask for {actor_cpus:g} CPUs, and this machine has {there}. Ask for {there} at most, "
            "or lower what each asks for (cpus_per_actor, cpus_per_worker)"
        )


def _require_answer(address: str) -> None:
    """Raise InvalidConfig where nothing listens at ``host:port``: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():
        return  # "auto", or another form that Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as exc:
        raise InvalidConfig(
            f"address is {address!r}, and nothing answers there ({exc.strerror or exc}). Start Ray, or name its head"
        ) from exc


def _local_cpus(actor_cpus: float) -> int:
    """Return the CPUs that a private Ray counts: those of the machine, or of its actors, and those beside them."""
    return math.ceil(_BESIDE + max(2, os.cpu_count() or 1, actor_cpus))
