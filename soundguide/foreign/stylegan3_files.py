"""StyleGAN3 as NVIDIA's code saves it: the constructor's arguments and the tensors of ``G_ema``, read as data."""

from typing import Any

from pydantic import ValidationError
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.imported import build
from soundguide.models.stylegan3 import NUM_COLOURS, StyleGAN3, StyleGAN3Config
from soundguide.validation import describe

_RENAMED = {"img_resolution": "resolution"}
_RENAMED_OF_MAPPING = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr_multiplier"}
_SAME = StyleGAN3Config.model_fields.keys() - {"kind", *_RENAMED.values(), *_RENAMED_OF_MAPPING.values()}
_FIELDS = {name: name for name in _SAME} | _RENAMED
_TRAINING_ONLY = {"num_fp16_res", "magnitude_ema_beta"}
_TRAINING_ONLY_OF_MAPPING = {"w_avg_beta"}


def from_nvidia(
    init_kwargs: dict[str, Any], tensors: dict[str, Tensor], *, source: str = "StyleGAN3 checkpoint"
) -> tuple[StyleGAN3, StyleGAN3Config]:
    """Build a generator from what a published pickle records of it, float32, frozen and in evaluation mode.

    ``init_kwargs``: the constructor's arguments, those of the synthesis network beside the others or nested under
    ``synthesis_kwargs``. ``tensors``: parameters and buffers by dotted name; its filters are kept. ``source`` begins
    messages. Raises `InvalidCheckpoint` for an argument that is unknown or out of range, for a generator with labels or
    of other than three colours, and for tensors that do not fit.
    """
    config = _read_config(init_kwargs, source)
    return build(lambda: StyleGAN3(config), tensors, source=source), config


def _read_config(init_kwargs: dict[str, Any], source: str) -> StyleGAN3Config:
    mapping = _options(init_kwargs, "mapping_kwargs", source)
    synthesis = init_kwargs | _options(init_kwargs, "synthesis_kwargs", source)
    for nested in ("mapping_kwargs", "synthesis_kwargs"):
        synthesis.pop(nested, None)
    _require(synthesis.pop("c_dim", 0), 0, f"{source}: c_dim, the number of labels,")
    _require(synthesis.pop("img_channels", NUM_COLOURS), NUM_COLOURS, f"{source}: img_channels")
    unknown = [str(name) for name in synthesis.keys() - _FIELDS.keys() - _TRAINING_ONLY]
    unknown += [
        f"mapping_kwargs.{name}" for name in mapping.keys() - _RENAMED_OF_MAPPING.keys() - _TRAINING_ONLY_OF_MAPPING
    ]
    if unknown:
        raise InvalidCheckpoint(
            f"{source}: made with arguments that the published StyleGAN3 does not take: {', '.join(sorted(unknown))}. "
            "Use a checkpoint of the published code."
        )
    fields = {_FIELDS[name]: value for name, value in synthesis.items() if name in _FIELDS}
    fields |= {_RENAMED_OF_MAPPING[name]: value for name, value in mapping.items() if name in _RENAMED_OF_MAPPING}
    try:
        return StyleGAN3Config.model_validate(fields)
    except ValidationError as error:
        raise InvalidCheckpoint(describe(error, source)) from error


def _options(init_kwargs: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    options = init_kwargs.get(name, {})
    if not isinstance(options, dict):
        raise InvalidCheckpoint(f"{source}: {name} must be a dict, got {options!r:.80}. Download the file again.")
    return options


def _require(value: object, wanted: int, what: str) -> None:
    if not isinstance(value, int) or value != wanted:
        raise InvalidCheckpoint(f"{what} must be {wanted}, got {value!r:.80}. Use a checkpoint with {wanted}.")
