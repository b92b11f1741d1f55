"""The configuration of a pretraining, and whether clips, encoder and workers fit together."""

from typing import Annotated

from pydantic import Field

from job_config import JobConfig
from soundguide.config import Frozen
from soundguide.errors import InvalidConfig
from soundguide.models.audio_encoder import SwinAudioConfig
from soundguide.models.manifest import MINIATURE, config_fields, read_config, resolve_model
from soundguide.pretraining.prepared_set import PreparedSet
from soundguide.pretraining.settings import PretrainingSettings


class WorkersConfig(Frozen):
    """The workers that train, each with a part of every batch."""

    num_workers: Annotated[int, Field(ge=1, le=10_000, description="Workers; the least number where max_workers.")] = 1
    max_workers: Annotated[
        int, Field(ge=0, le=10_000, description="Train with as many as there is room for, up to this; 0: no more.")
    ] = 0
    gpus: Annotated[bool | None, Field(description="One GPU for each worker; not given: where there are any.")] = None
    cpus_per_worker: Annotated[float, Field(gt=0, le=1024, description="CPUs that one worker asks for.")] = 1.0
    num_threads: Annotated[int, Field(ge=0, le=1024, description="Torch threads of a worker; 0: by room.")] = 0
    max_failures: Annotated[
        int, Field(ge=-1, description="Times that the workers are started again; -1: without end.")
    ] = 3
    timeout_seconds: Annotated[float, Field(ge=1, description="Longest wait of a worker for the others.")] = 300.0
    precision: Annotated[
        str, Field(pattern="^(auto|float32|bfloat16)$", description="Of the encoder's arithmetic.")
    ] = "auto"
    compile: Annotated[
        bool, Field(description="Through torch.compile: a minute more at the start; CPUs need a C++ compiler.")
    ] = False


class PretrainConfig(JobConfig):
    clips: Annotated[str, Field(description="Output folder of prepare_clips.py.")]
    output: Annotated[str, Field(description="Folder for the encoder, checkpoints, logs and run.json.")]
    encoder: Annotated[SwinAudioConfig, Field(description="The sound encoder; the defaults are Swin-T.")] = (
        SwinAudioConfig()
    )
    image_text: Annotated[str, Field(description="The encoder that prepared the clips: a folder, or 'miniature'.")] = (
        MINIATURE
    )
    start_from: Annotated[
        str, Field(description="Train an encoder further: its model folder, or 'miniature'. Not given: from scratch.")
    ] = ""
    training: Annotated[PretrainingSettings, Field(description="Loss, optimiser, epochs.")] = PretrainingSettings()
    workers: Annotated[WorkersConfig, Field(description="The workers that train.")] = WorkersConfig()
    half: Annotated[bool, Field(description="Store the encoder in float16, half as large.")] = False
    checkpoint_steps: Annotated[
        int, Field(ge=0, description="Steps between checkpoints, beside that at the end of each epoch; 0: none.")
    ] = 0
    report_seconds: Annotated[float, Field(gt=0, description="Seconds between lines of the log.")] = 10.0


def check_fit(config: PretrainConfig, clips: PreparedSet) -> int:
    """Return the steps of the whole training. Raises InvalidConfig where clips, encoder and workers do not fit."""
    size, workers = config.training.batch_size, config.workers
    most = max(workers.num_workers, workers.max_workers)
    if 0 < workers.max_workers < workers.num_workers or (workers.max_workers and not config.checkpoint_steps):
        raise InvalidConfig(
            f"workers.max_workers {workers.max_workers} must be at least workers.num_workers {workers.num_workers}, "
            "and needs --checkpoint_steps, to which training goes back whenever workers come or go"
        )
    if size < 2 * most or (size % workers.num_workers and not workers.max_workers):
        raise InvalidConfig(
            f"training.batch_size {size} cannot be shared among {most} workers. Take a multiple of their number, with "
            "two clips at least for each"
        )
    if clips.num_train < size:
        raise InvalidConfig(
            f"{clips.folder.uri} has {clips.num_train} clips to train on, fewer than one batch of {size}. Lower "
            "training.batch_size, or prepare more clips"
        )
    if config.encoder.embed_dim != clips.embed_dim:
        raise InvalidConfig(
            f"encoder.embed_dim is {config.encoder.embed_dim}, but the clips' embeddings are {clips.embed_dim} wide. "
            f"Set it to {clips.embed_dim}"
        )
    rate = config.encoder.log_mel.sample_rate
    if clips.sample_rate < rate:
        raise InvalidConfig(
            f"the encoder reads sounds of {rate} Hz, but the clips were prepared with {clips.sample_rate} Hz. Prepare "
            f"them with --sample_rate {rate}, or lower encoder.log_mel.sample_rate"
        )
    if config.start_from:
        start = resolve_model(config.start_from, "audio")
        known = SwinAudioConfig.model_validate(config_fields(read_config(start)))
        if config.encoder != known:
            pairs = zip(config.encoder.model_dump().items(), known.model_dump().values(), strict=True)
            differing = "; ".join(f"{name} {ours}, there {theirs}" for (name, ours), theirs in pairs if ours != theirs)
            raise InvalidConfig(
                f"start_from {start} is not built as encoder says ({differing}). Set encoder as it is there, or leave "
                "start_from out"
            )
    model = resolve_model(config.image_text, "image_text")
    digest = str(read_config(model)["weights_sha256"])
    if digest != clips.image_text_sha256:
        raise InvalidConfig(
            f"image_text {model} has weights {digest[:12]}..., but the clips were prepared with "
            f"{clips.image_text_sha256[:12]}.... Name the model that prepared them"
        )
    return config.training.num_epochs * (clips.num_train // size)
