"""The Ray Data part of clip preparation: the straight line from requests to shards."""

import logging
import sys

from bulk_pipeline import CALLS_PER_ACTOR, LIGHT_CPUS, PoolConfig, fit_pool
from soundguide.clips.decode import ClipDecoder
from soundguide.clips.facts import EmbedderConfig
from soundguide.config import ManipulatorConfig
from soundguide.run_folder import RunFolder

_MAX_ROWS_PER_BLOCK = 128  # of clips of 10 s: below the 128 MiB at which Ray Data cuts blocks anyway


def prepare_rows(
    folder: RunFolder,
    decoder: ClipDecoder,
    embedder: EmbedderConfig,
    *,
    pool: PoolConfig,
    num_rows: int,
    config_hash: str,
    progress: bool,
) -> None:
    """Prepare the requests of the folder's manifest that are not done yet, about `num_rows`, and write their shards."""
    import ray
    from ray.data.checkpoint import CheckpointConfig

    from soundguide.clips.embed import ClipEmbedder  # loads torch: not before the requests are known to be right

    pool, room = fit_pool(pool, ManipulatorConfig(device=embedder.device, num_threads=embedder.num_threads))
    embedder = embedder.model_copy(update={"device": room.device, "num_threads": room.num_threads})
    rows_per_block = pool.rows_per_block or max(
        1, min(_MAX_ROWS_PER_BLOCK, num_rows // (pool.num_actors * CALLS_PER_ACTOR))
    )
    filesystem, manifest = folder.storage.arrow_filesystem(folder.manifest_uri)
    _, shards = folder.storage.arrow_filesystem(folder.results_uri)
    _, checkpoint = folder.storage.arrow_filesystem(folder.checkpoint_uri(config_hash))

    logging.getLogger("ray.data").setLevel(logging.INFO if progress and not sys.stdout.isatty() else logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.INFO if progress else logging.ERROR)
    context = ray.data.DataContext.get_current()  # datasets copy it when they are made
    context.checkpoint_config = CheckpointConfig(
        id_column="id",
        checkpoint_path=checkpoint,
        delete_checkpoint_on_success=False,
        override_filesystem=filesystem,
    )
    context.enable_progress_bars = progress
    context.enable_rich_progress_bars, context.use_ray_tqdm = True, False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = pool.stall_seconds

    (
        ray.data.read_parquet(manifest, filesystem=filesystem, num_cpus=LIGHT_CPUS)
        .repartition(target_num_rows_per_block=rows_per_block)
        .map_batches(
            decoder.decode_table,
            batch_size=rows_per_block,
            batch_format="pyarrow",
            num_cpus=LIGHT_CPUS,
            udf_modifying_row_count=False,
        )
        .map_batches(
            ClipEmbedder,
            fn_constructor_args=[embedder],
            batch_size=rows_per_block,
            batch_format="pyarrow",
            num_cpus=pool.cpus_per_actor,
            num_gpus=pool.gpus_per_actor,
            compute=ray.data.ActorPoolStrategy(size=pool.num_actors),
            udf_modifying_row_count=False,
        )
        .write_parquet(shards, filesystem=filesystem, ray_remote_args={"num_cpus": LIGHT_CPUS})
    )
