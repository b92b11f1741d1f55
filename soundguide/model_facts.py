"""What can be known of a world's models without loading them: sizes, rates and digests."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidCheckpoint
from soundguide.models.domain import Domain, read_domain
from soundguide.models.manifest import PACKAGED, WEIGHTS_FILE, Role, detector_sha256, read_config, resolve_model
from soundguide.storage import Storage


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Sizes of pictures ``resolution`` and codes ``[num_ws, w_dim]``, and the sound encoder's ``sample_rate`` in Hz.

    ``digests``: role and SHA-256 of the weights, as the models' configs state them; loading verifies them. The face
    detector of an identity encoder counts as a role of its own; ``face_detector`` is that encoder, as the config names
    it, empty without a detector. ``domain``: that of the generator, whose crop leaves pictures ``[height, width]`` of
    its square.
    """

    resolution: int
    num_ws: int
    w_dim: int
    sample_rate: int
    digests: tuple[tuple[str, str], ...] = ()
    domain: Domain = Domain()
    face_detector: str = ""

    @property
    def aligns_photos(self) -> bool:
        """Whether photos of faces are aligned before they are inverted: they must be, and can be."""
        return self.domain.alignment == "ffhq" and self.face_detector != ""

    @property
    def height(self) -> int:
        """Rows of pictures, as they are read and written."""
        top, bottom, _, _ = self.domain.visible(self.resolution)
        return bottom - top

    @property
    def width(self) -> int:
        """Columns of pictures, as they are read and written."""
        _, _, left, right = self.domain.visible(self.resolution)
        return right - left


def models_of(config: ManipulatorConfig) -> dict[Role, str]:
    """Return the models that a config names, by role."""
    named: dict[Role, str] = {
        "generator": config.generator,
        "image_text": config.image_text,
        "audio": config.audio,
        "identity": config.identity,
        "inverter": config.inverter,
    }
    return {role: name for role, name in named.items() if name}


def absolute_models(config: ManipulatorConfig) -> ManipulatorConfig:
    """Return the config with absolute model folders, for processes that work in another folder or have another home.

    Raises `InvalidCheckpoint` for a name that no imported model has.
    """
    local = {role: name for role, name in models_of(config).items() if name not in PACKAGED and "://" not in name}
    return config.model_copy(update={role: os.path.abspath(resolve_model(name, role)) for role, name in local.items()})


def read_model_facts(config: ManipulatorConfig, storage: Storage = Storage()) -> ModelFacts:  # noqa: B008 - immutable
    """Read the facts from the configs in the model folders. Raises `InvalidCheckpoint` where a model is missing."""
    folders = {role: resolve_model(name, role, storage) for role, name in models_of(config).items()}
    configs = {role: read_config(folder) for role, folder in folders.items()}
    for folder in folders.values():
        if not (folder / WEIGHTS_FILE).is_file():
            raise InvalidCheckpoint(f"{folder}: has no {WEIGHTS_FILE}. Copy or save the model again.")
    role: Role = "generator"
    try:
        resolution = int(configs["generator"]["resolution"])
        w_dim = int(configs["generator"]["w_dim"])
        num_ws = num_layers(configs["generator"])
        role = "audio"
        sample_rate = audio_sample_rate(configs["audio"])
    except (KeyError, TypeError, ValueError) as exc:
        wanted = "a generator" if role == "generator" else "a sound encoder"
        raise InvalidCheckpoint(
            f"{folders[role]}: {wanted} was expected ({role}), but its config lacks {exc}. Name the folder of one"
        ) from exc
    digests: dict[str, str] = {role: str(found["weights_sha256"]) for role, found in configs.items()}
    face_detector = ""
    if config.identity and (detector := detector_sha256(configs["identity"])):
        digests["detector"], face_detector = detector, config.identity
    domain = read_domain(configs["generator"], folders["generator"])
    domain.visible(resolution)  # a crop that does not fit is told before any work
    return ModelFacts(resolution, num_ws, w_dim, sample_rate, tuple(digests.items()), domain, face_detector)


def audio_sample_rate(config: Mapping[str, Any]) -> int:
    """Return the rate in Hz in a sound encoder's `config`; raise KeyError, TypeError or ValueError if there is none."""
    return int(config.get("log_mel", config)["sample_rate"])  # the Swin encoder's front end has fields of its own


def num_layers(generator: Mapping[str, Any]) -> int:
    """Return the layers of a W+ code by a generator's config; otherwise only the classes beside the networks know them.

    Raises KeyError, TypeError or ValueError where it lacks what that follows from.
    """
    if generator["kind"] == "stylegan3":
        return int(generator["num_layers"]) + 2  # the Fourier features and sRGB have a code each
    return 2 * (int(generator["resolution"]).bit_length() - 1) - 2  # 2 log2(R) - 2
