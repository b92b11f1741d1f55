"""The config of a StyleGAN2, told from the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.imported import build
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
    module = build(lambda: StyleGAN2(config), state, source=source)
    for name, value in module.named_buffers():
        if name.endswith("resample_filter") and not value.allclose(resample_filter(), atol=1e-6):
            raise InvalidCheckpoint(
                f"{source}: {name} expected the taps {RESAMPLE_TAPS}, got another filter. Only generators with that "
                "filter, as all published ones have, can be drawn with here."
            )
    return module


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
