"""What a model folder says about itself, readable without torch: CPU steps need rates and windows, not weights.

A checkpoint is a folder with ``config.json`` and ``weights.safetensors``. The JSON object holds ``kind`` and the other
fields of the model's config, beside ``package_version``, ``weights_sha256``, ``made_by`` (the command that remakes it),
and where they apply ``labels`` (what a sound encoder can name), ``domain`` (what a generator draws, see `domain`) and
``extra`` (free-form).
"""

import json
from pathlib import Path
from typing import Any, Literal

from soundguide.errors import InvalidCheckpoint
from soundguide.storage import Storage

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
DETECTOR_FILE = "detector.onnx"  # of faces, beside the weights of an identity encoder
MINIATURE = "miniature"
MINIATURE_FACES = "miniature-faces"
PACKAGED = (MINIATURE, MINIATURE_FACES)

Role = Literal["generator", "image_text", "audio", "identity", "inverter", "reader"]

ROLE_OF_KIND: dict[str, Role] = {
    "stylegan2": "generator",
    "stylegan3": "generator",
    "open_clip": "image_text",
    "swin_audio": "audio",
    "lee_resnet18": "audio",
    "wav2clip": "audio",
    "audioclip": "audio",
    "arcface": "identity",
    "arcface_graph": "identity",
    "inversion_encoder": "inverter",
    "scene_reader": "reader",
}
"""What a model of each ``kind`` is used as."""

_STORAGE = Storage()
_REQUIRED = ("kind", "package_version", "weights_sha256", "made_by")
_NOT_FIELDS = frozenset({"package_version", "weights_sha256", "made_by", "labels", "domain", "extra"})


def resolve_model(name: str, role: Role, storage: Storage = _STORAGE) -> Path:
    """Return the folder of a model.

    ``name``: ``'miniature'`` or ``'miniature-faces'`` for the packaged ones, a URI for one that is fetched, a path that
    exists, or the name of an imported one (`home.models_home`). Raises what `fetch.fetch_model` and `home.named_model`
    raise.
    """
    if name in PACKAGED:
        weights = Path(__file__).parent.parent / "miniature" / "weights"
        return weights / role if name == MINIATURE else weights / "faces" / role
    if "://" in name:
        from soundguide.models.fetch import fetch_model

        return fetch_model(name, storage)
    from soundguide.models.home import is_model_name, named_model

    path = Path(name)
    return named_model(name) if is_model_name(name) and not path.exists() else path


def read_config(folder: Path) -> dict[str, Any]:
    """Return the object in ``config.json`` of a model folder; raise `InvalidCheckpoint` where there is none."""
    path = folder / CONFIG_FILE
    try:
        text = path.read_bytes()
    except NotADirectoryError as error:
        raise InvalidCheckpoint(
            f"{folder} is a file, and a model is a folder. Bring it in with: soundguide models import {folder} -o NAME"
        ) from error
    except OSError as error:
        raise InvalidCheckpoint(
            f"{folder}: no model here, {CONFIG_FILE} cannot be read ({error.strerror}). "
            f"Name a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, or '{MINIATURE}'."
        ) from error
    return parse_config(text, str(path))


def parse_config(text: bytes, path: str) -> dict[str, Any]:
    """Return the object in the text of a model's ``config.json``, at ``path``. Raises `InvalidCheckpoint`."""
    try:
        config = json.loads(text.decode("utf-8"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise InvalidCheckpoint(f"{path}: damaged, not JSON ({error}). Copy or save the model again.") from error
    missing = [key for key in _REQUIRED if not isinstance(config, dict) or not isinstance(config.get(key), str)]
    if missing:
        raise InvalidCheckpoint(f"{path}: lacks the text fields {missing}. Save the model with `save_model`.")
    labels = config.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InvalidCheckpoint(f"{path}: labels must be a list of texts, got {labels!r:.80}. Correct or remove it.")
    return dict(config)


def detector_sha256(config: dict[str, Any]) -> str:
    """Return the SHA-256 of the face detector that comes with a model, of what `read_config` gave; "" for none."""
    alignment = config.get("alignment")
    return str(alignment.get("detector_sha256", "")) if isinstance(alignment, dict) else ""


def config_fields(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the model's own config, ``kind`` among them, of what `read_config` gave."""
    return {key: value for key, value in manifest.items() if key not in _NOT_FIELDS}
