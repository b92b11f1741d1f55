"""What clip preparation must know before any encoder is loaded: settings, sizes, rates and digests. No torch here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

from pydantic import Field

from soundguide.config import Frozen
from soundguide.errors import InvalidCheckpoint
from soundguide.model_facts import audio_sample_rate
from soundguide.models.manifest import WEIGHTS_FILE, read_config, resolve_model

Augment = Callable[[str, int, Random], list[str]]
"""``augment(text, count, random)`` returns `count` other wordings of a text."""

_DEFAULT_RESOLUTION = 224  # open_clip's own, where an architecture names none


class EmbedderConfig(Frozen):
    """The image-text encoder, and what it embeds beside frames and texts."""

    image_text: Annotated[str, Field(description="Image and text encoder: a model folder, or 'miniature'.")] = (
        "miniature"
    )
    num_augmented_texts: Annotated[
        int, Field(ge=0, le=64, description="Augmented variants of each text (Sec. 3.1.1).")
    ] = 4
    wordnet: Annotated[
        str, Field(description="Folder of WordNet's database files for synonyms; empty: those of the package.")
    ] = ""
    seed: Annotated[int, Field(ge=0, lt=2**31, description="Seed of the augmented texts.")] = 0
    device: Annotated[str, Field(description="'auto' (CUDA where there is one), 'cpu' or 'cuda[:N]'.")] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Pictures or texts embedded at once.")] = 64
    num_threads: Annotated[int, Field(ge=0, le=1024, description="Torch threads of an actor; 0: by room.")] = 0


def find_augment(config: EmbedderConfig) -> Augment:
    """Return the augmentation of Sec. 3.1.1 with the synonyms that `config` names.

    Raises `InvalidConfig` where there is no WordNet in the folder, or nothing that reads it.
    """
    from soundguide.text_augment import WordNetSynonyms, augment_texts, shipped_synonyms

    synonyms = WordNetSynonyms(Path(config.wordnet)) if config.wordnet else shipped_synonyms()
    return lambda text, count, random: augment_texts(text, count, synonyms=synonyms, random=random)


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """The image-text encoder's ``resolution`` and ``embed_dim``, and the ``sample_rate`` in Hz of the sounds.

    ``digests``: role and SHA-256 of the weights, as the models' configs state them; loading verifies them.
    """

    resolution: int
    embed_dim: int
    sample_rate: int
    digests: tuple[tuple[str, str], ...]


def read_encoder_facts(*, image_text: str, audio: str, sample_rate: int = 0) -> EncoderFacts:
    """Read the facts of an image-text encoder and of a sound encoder; a `sample_rate` above 0 replaces the latter.

    Raises `InvalidCheckpoint` where a model is missing or is of another role.
    """
    folder = resolve_model(image_text, "image_text")
    config = _config(folder)
    if config["kind"] != "open_clip":
        raise InvalidCheckpoint(f"{folder}: an image-text encoder was expected, got {config['kind']!r}. Name another")
    architecture = _architecture(folder, config)
    try:
        resolution = int(architecture["vision_cfg"].get("image_size", _DEFAULT_RESOLUTION))
        embed_dim = int(architecture["embed_dim"])
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidCheckpoint(f"{folder}: its architecture lacks {exc}. Save the model again") from exc
    digests = (("image_text", str(config["weights_sha256"])),)
    return EncoderFacts(resolution, embed_dim, sample_rate or _sample_rate(audio), digests)


def _sample_rate(audio: str) -> int:
    folder = resolve_model(audio, "audio")
    try:
        return audio_sample_rate(read_config(folder))
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidCheckpoint(
            f"{folder}: a sound encoder was expected, but its config lacks {exc}. Name the folder of one, or give "
            "the sample rate itself"
        ) from exc


def _config(folder: Path) -> dict[str, Any]:
    config = read_config(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise InvalidCheckpoint(f"{folder}: has no {WEIGHTS_FILE}. Copy or save the model again.")
    return config


def _architecture(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return open_clip's description of the towers: the model's own, or that of the architecture it names."""
    name = config.get("architecture", "")
    if not name:
        return dict(config.get("model_config_json") or {})
    import open_clip  # loads torch: only where a name has to be looked up

    found = open_clip.get_model_config(name)
    if found is None:
        raise InvalidCheckpoint(f"{folder}: open_clip has no architecture {name!r}. Save the model again")
    return dict(found)
