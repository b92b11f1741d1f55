"""The config of a StyleGAN2, told from the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from pydantic import ValidationError
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.imported import fit
from soundguide.models.checkpoint import check_fit
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.models.stylegan2_layers import RESAMPLE_TAPS, resample_filter
from soundguide.validation import describe

_PUBLISHED_BASES = (32768, 16384)


def build_stylegan2(
    state: Mapping[str, Tensor], *, source: str, mapping_lr_multiplier: float, conv_clamp: float | None
) -> StyleGAN2:
    """Return the generator whose weights, under our names, are ``state``.

    Raises `InvalidCheckpoint` naming key, expected and got where they are not those of one StyleGAN2.
    """
    sizes = sorted(
        int(found[1]) for name in state if (found := re.fullmatch(r"synthesis\.b(\d{1,5})\.torgb\.bias", name))
    )
    depth = sum(1 for name in state if re.fullmatch(r"mapping\.fc\d+\.weight", name))
    channels = [_length(state, f"synthesis.b{size}.conv1.weight", 0, source) for size in sizes]
    try:
        config = StyleGAN2Config(
            resolution=max(sizes, default=0),
            z_dim=_length(state, "mapping.fc0.weight", 1, source),
            w_dim=_length(state, "mapping.w_avg", 0, source),
            mapping_layers=depth,
            mapping_lr_multiplier=mapping_lr_multiplier,
            channels=tuple(channels),
            conv_clamp=conv_clamp,
        )
    except ValidationError as error:
        raise InvalidCheckpoint(describe(error, source)) from error
    config = _with_published_base(config, channels)
    # before anything of these sizes is made, for they came from the file
    wanted = {name: torch.empty(shape, device="meta") for name, shape in stylegan2_shapes(config).items()}
    check_fit(source, wanted, state, remedy="Name a file with a StyleGAN2.")
    module = StyleGAN2(config)
    fit(module, state, source=source)
    for name, value in module.named_buffers():
        if name.endswith("resample_filter") and not value.allclose(resample_filter(), atol=1e-6):
            raise InvalidCheckpoint(
                f"{source}: {name} expected the taps {RESAMPLE_TAPS}, got another filter. Only generators with that "
                "filter, as all published ones have, can be drawn with here."
            )
    return module


def stylegan2_shapes(config: StyleGAN2Config) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights of a generator, by name, without making it."""
    w, filter_shape = config.w_dim, (len(RESAMPLE_TAPS),) * 2
    shapes: dict[str, tuple[int, ...]] = {"mapping.w_avg": (w,)}
    for index in range(config.mapping_layers):
        shapes[f"mapping.fc{index}.weight"] = (w, w if index else config.z_dim)
        shapes[f"mapping.fc{index}.bias"] = (w,)
    before = 0
    for size, width in zip(config.block_resolutions, config.block_channels, strict=True):
        block = f"synthesis.b{size}"
        shapes[f"{block}.resample_filter"] = filter_shape
        layers = {"conv0": (before, width, 3), "conv1": (width, width, 3), "torgb": (width, 3, 1)}
        if not before:
            shapes[f"{block}.const"] = (width, size, size)
            del layers["conv0"]
        for name, (inputs, outputs, kernel) in layers.items():
            layer = f"{block}.{name}"
            shapes[f"{layer}.weight"] = (outputs, inputs, kernel, kernel)
            shapes |= {
                f"{layer}.bias": (outputs,),
                f"{layer}.affine.weight": (inputs, w),
                f"{layer}.affine.bias": (inputs,),
            }
            if name != "torgb":
                shapes |= {f"{layer}.noise_const": (size, size), f"{layer}.noise_strength": ()}
                shapes[f"{layer}.resample_filter"] = filter_shape
        before = width
    return shapes


def _with_published_base(config: StyleGAN2Config, channels: Sequence[int]) -> StyleGAN2Config:
    """Return the config with the rule that published models have for their channels, where it gives these."""
    for base in _PUBLISHED_BASES:
        by_rule = config.model_copy(update={"channels": None, "channel_base": base})
        if by_rule.block_channels == tuple(channels):
            return by_rule
    return config


def _length(state: Mapping[str, Tensor], name: str, dimension: int, source: str) -> int:
    if name not in state or state[name].ndim <= dimension:
        got = list(state[name].shape) if name in state else "nothing"
        raise InvalidCheckpoint(f"{source}: {name} expected weights of a StyleGAN2, got {got}. Name a file of one.")
    return state[name].shape[dimension]
