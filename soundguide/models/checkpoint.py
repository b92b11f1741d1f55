"""Models on disk: a folder of weights and config that is written whole, read strictly and never unpickled."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as dump_safetensors
from torch import Tensor, nn

from soundguide import __version__
from soundguide.errors import InvalidCheckpoint
from soundguide.models.arcface import ArcFaceConfig, ArcFaceEncoder
from soundguide.models.arcface_graph import ArcFaceGraph, ArcFaceGraphConfig
from soundguide.models.audio_encoder import SwinAudioConfig, SwinAudioEncoder
from soundguide.models.image_text import OpenClipConfig, OpenClipEncoder
from soundguide.models.manifest import CONFIG_FILE, WEIGHTS_FILE, config_fields, read_config
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.validation import describe

ModelConfig = StyleGAN2Config | OpenClipConfig | SwinAudioConfig | ArcFaceConfig | ArcFaceGraphConfig
Model = StyleGAN2 | OpenClipEncoder | SwinAudioEncoder | ArcFaceEncoder | ArcFaceGraph

_NUM_SHOWN = 3  # mismatches named in one message


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A frozen model in evaluation mode, float32, and what its folder says about it."""

    module: Model
    config: ModelConfig
    sha256: str
    labels: tuple[str, ...]


def save_model(
    folder: Path,
    module: nn.Module,
    config: BaseModel,
    *,
    half: bool,
    made_by: str,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Write a model folder, whole or not at all, over an older one if there is one; return the SHA-256 of its weights.

    ``config`` has a ``kind``. ``half`` stores floating weights in float16. ``made_by``: the command that remakes the
    weights. ``extra``: ``labels``, a list of texts, is kept as such; everything else is free-form JSON. Raises
    `InvalidCheckpoint` for weights that are not finite as stored.
    """
    weights = dump_safetensors({name: _stored(name, value, half) for name, value in module.state_dict().items()})
    sha256 = hashlib.sha256(weights).hexdigest()
    manifest = config.model_dump(mode="json") | {
        "package_version": __version__,
        "weights_sha256": sha256,
        "made_by": made_by,
    }
    others = dict(extra or {})
    if "labels" in others:
        manifest["labels"] = list(others.pop("labels"))
    if others:
        manifest["extra"] = others
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"  # beside it: renames stay in one file system
    temporary.mkdir()
    try:
        _write(temporary / WEIGHTS_FILE, weights)
        _write(temporary / CONFIG_FILE, text.encode())
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sha256


def load_model(folder: Path, *, device: torch.device | str) -> LoadedModel:
    """Build the model that a folder describes, on ``device``, frozen and in evaluation mode.

    Raises `InvalidCheckpoint` for a missing, damaged or altered folder, another kind, or weights that do not fit.
    """
    manifest = read_config(folder)
    config = _parse(folder, config_fields(manifest))
    module = _build(config)
    sha256 = load_weights(module, folder)
    module = module.to(device).eval().requires_grad_(False)
    return LoadedModel(module, config, sha256, tuple(manifest.get("labels", ())))


def load_weights(module: nn.Module, folder: Path) -> str:
    """Load the weights of a model folder into ``module``, strictly; return their SHA-256.

    Call it for kinds that `load_model` does not build. Floating weights become float32. Raises `InvalidCheckpoint` if
    the file is missing or damaged, if its hash is not the one in ``config.json``, or for any tensor too many, too few
    or of another shape.
    """
    path = folder / WEIGHTS_FILE
    expected = read_config(folder)["weights_sha256"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidCheckpoint(f"{path}: cannot be read ({error.strerror}). Copy or save the model again.") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != expected:
        raise InvalidCheckpoint(
            f"{path}: damaged or exchanged, expected SHA-256 {expected}, got {sha256}. Copy or save the model again."
        )
    try:
        stored = parse_safetensors(data)
    except SafetensorError as error:
        raise InvalidCheckpoint(f"{path}: not a safetensors file ({error}). Save the model again.") from error
    state = {name: value.float() if value.is_floating_point() else value for name, value in stored.items()}
    remedy = f"Use the {CONFIG_FILE} that was saved with these weights."
    check_fit(f"{path}", module.state_dict(), state, remedy=remedy)
    module.load_state_dict(state, strict=True)
    return sha256


def _parse(folder: Path, fields: dict[str, Any]) -> ModelConfig:
    try:
        match fields["kind"]:
            case "stylegan2":
                return StyleGAN2Config.model_validate(fields)
            case "open_clip":
                return OpenClipConfig.model_validate(fields)
            case "swin_audio":
                return SwinAudioConfig.model_validate(fields)
            case "arcface":
                return ArcFaceConfig.model_validate(fields)
            case "arcface_graph":
                return ArcFaceGraphConfig.model_validate(fields)
            case other:
                raise InvalidCheckpoint(
                    f"{folder}: kind {other!r} is none of stylegan2, open_clip, swin_audio, arcface, arcface_graph. "
                    "Name another model folder."
                )
    except ValidationError as error:
        raise InvalidCheckpoint(describe(error, str(folder / CONFIG_FILE))) from error


def _build(config: ModelConfig) -> Model:
    match config:
        case StyleGAN2Config():
            return StyleGAN2(config)
        case OpenClipConfig():
            return OpenClipEncoder(config)
        case SwinAudioConfig():
            return SwinAudioEncoder(config)
        case ArcFaceConfig():
            return ArcFaceEncoder(config)
        case ArcFaceGraphConfig():
            return ArcFaceGraph(config)
        case _:
            assert_never(config)


def check_fit(source: str, wanted: Mapping[str, Tensor], got: Mapping[str, Tensor], *, remedy: str) -> None:
    """Raise `InvalidCheckpoint` for tensors of ``source`` that are too many, too few or of other shapes than wanted."""
    wrong = [
        f"{name}: expected {_shape(wanted, name)}, got {_shape(got, name)}"
        for name in sorted(wanted.keys() | got.keys())
        if _shape(wanted, name) != _shape(got, name)
    ]
    if wrong:
        more = f"; and {len(wrong) - _NUM_SHOWN} more" if len(wrong) > _NUM_SHOWN else ""
        raise InvalidCheckpoint(
            f"{source}: does not fit its architecture. {'; '.join(wrong[:_NUM_SHOWN])}{more}. {remedy}"
        )


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(list(tensors[name].shape)) if name in tensors else "nothing"


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu()
    if value.is_floating_point():
        value = value.to(torch.float16 if half else torch.float32)
        if not bool(value.isfinite().all()):
            raise InvalidCheckpoint(
                f"{name}: not finite as {value.dtype}. Save with half=False, or go back to a step before it diverged."
            )
    return value.clone(memory_format=torch.contiguous_format)  # safetensors refuses shared and strided memory


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # or a power cut after the rename could leave an empty file under the final name


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename ``temporary`` to ``folder``; an older folder steps aside for it, and back if that fails."""
    if not folder.exists():
        temporary.rename(folder)
        return
    aside = temporary.with_suffix(".old")
    folder.rename(aside)
    try:
        temporary.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside)
