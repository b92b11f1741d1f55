"""The four trained models of the miniature as folders: how each is saved, and how one is read for training another."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, PositiveInt
from torch import nn

from soundguide.config import Frozen
from soundguide.errors import InvalidCheckpoint
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.reader import SceneReader
from soundguide.models.audio_encoder import SwinAudioEncoder
from soundguide.models.checkpoint import load_model, save_model
from soundguide.models.image_text import OpenClipEncoder
from soundguide.models.manifest import MINIATURE, Role, resolve_model
from soundguide.models.stylegan2 import StyleGAN2


class SceneReaderConfig(Frozen):
    """The scene reader's architecture is fixed but for what it reads: of landscapes, if its folder does not say."""

    kind: Literal["scene_reader"] = "scene_reader"
    num_factors: PositiveInt = len(LANDSCAPE.continuous)
    num_labels: PositiveInt = len(LANDSCAPE.labels)


def save_role(folder: Path, model: nn.Module, *, made_by: str, labels: tuple[str, ...] = LANDSCAPE.labels) -> str:
    """Save one of the miniature's models, weights in float16; return their SHA-256.

    ``made_by``: the command that remakes it. The sound encoder's folder also says what it can hear, ``labels``.
    """
    extra = {"labels": list(labels)} if isinstance(model, SwinAudioEncoder) else None
    return save_model(folder, model, _config_of(model), half=True, made_by=made_by, extra=extra)


def load_generator(name: str = MINIATURE) -> StyleGAN2:
    """Load a generator, frozen, on the CPU: the packaged one, or of a folder. Raises `InvalidCheckpoint`."""
    model = load_model(resolve_model(name, "generator"), device="cpu").module
    if not isinstance(model, StyleGAN2):
        raise _not_a("generator", name)
    return model


def load_image_text(name: str = MINIATURE) -> OpenClipEncoder:
    """Load a CLIP, frozen, on the CPU: the packaged one, or of a folder. Raises `InvalidCheckpoint`."""
    model = load_model(resolve_model(name, "image_text"), device="cpu").module
    if not isinstance(model, OpenClipEncoder):
        raise _not_a("image_text", name)
    return model


def _config_of(model: nn.Module) -> BaseModel:
    match model:
        case SceneReader():
            return SceneReaderConfig(num_factors=model.factors.out_features, num_labels=model.events.out_features)
        case StyleGAN2() | OpenClipEncoder() | SwinAudioEncoder():
            return model.config
        case _:
            raise AssertionError(f"{type(model).__name__} is no model of the miniature")


def _not_a(role: Role, name: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(f"{name}: a model of another kind, expected the {role} of the miniature. Name its folder.")
