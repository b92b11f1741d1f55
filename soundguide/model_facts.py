"""What can be known of a world's models without loading them: sizes, rates and digests."""

import os
from dataclasses import dataclass

from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidCheckpoint
from soundguide.models.manifest import MINIATURE, WEIGHTS_FILE, detector_sha256, read_config, resolve_model
from soundguide.storage import Storage


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Sizes of pictures ``resolution`` and codes ``[num_ws, w_dim]``, and the sound encoder's ``sample_rate`` in Hz.

    ``digests``: role and SHA-256 of the weights, as the models' configs state them; loading verifies them. The face
    detector of an identity encoder counts as a role of its own.
    """

    resolution: int
    num_ws: int
    w_dim: int
    sample_rate: int
    digests: tuple[tuple[str, str], ...] = ()


def absolute_models(config: ManipulatorConfig) -> ManipulatorConfig:
    """Return the config with absolute model folders, for processes that work in another folder."""
    names = {role: getattr(config, role) for role in ("generator", "image_text", "audio", "identity")}
    local = {role: name for role, name in names.items() if name and name != MINIATURE and "://" not in name}
    return config.model_copy(update={role: os.path.abspath(name) for role, name in local.items()})


def read_model_facts(config: ManipulatorConfig, storage: Storage = Storage()) -> ModelFacts:  # noqa: B008 - immutable
    """Read the facts from the configs in the model folders. Raises `InvalidCheckpoint` where a model is missing."""
    folders = {
        "audio": resolve_model(config.audio, "audio", storage),
        "generator": resolve_model(config.generator, "generator", storage),
        "image_text": resolve_model(config.image_text, "image_text", storage),
    }
    if config.identity:
        folders["identity"] = resolve_model(config.identity, "identity", storage)
    configs = {role: read_config(folder) for role, folder in folders.items()}
    for folder in folders.values():
        if not (folder / WEIGHTS_FILE).is_file():
            raise InvalidCheckpoint(f"{folder}: has no {WEIGHTS_FILE}. Copy or save the model again.")
    try:
        resolution = int(configs["generator"]["resolution"])
        w_dim = int(configs["generator"]["w_dim"])
        sample_rate = int(configs["audio"]["log_mel"]["sample_rate"])
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidCheckpoint(
            f"{folders['generator']} and {folders['audio']}: a generator and a sound encoder were expected, but their "
            f"configs lack {exc}. Name the folders of such models"
        ) from exc
    num_ws = 2 * (resolution.bit_length() - 1) - 2  # 2 log2(R) - 2
    digests = {role: str(found["weights_sha256"]) for role, found in configs.items()}
    if config.identity and (detector := detector_sha256(configs["identity"])):
        digests["detector"] = detector
    return ModelFacts(resolution, num_ws, w_dim, sample_rate, tuple(digests.items()))
