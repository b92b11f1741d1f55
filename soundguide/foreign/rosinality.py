"""The layout of rosinality's StyleGAN2, which most projects that edit with StyleGAN read: both ways."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Set
from pathlib import Path

import torch
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.imported import Imported
from soundguide.foreign.rosinality_names import entries, our_filters, their_filters
from soundguide.foreign.stylegan2_shapes import build_stylegan2
from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config
from soundguide.models.stylegan2_layers import resample_filter

_MAPPING_LR_MULTIPLIER = 0.01
_NUM_SEEDS_OF_MEAN = 10_000
_NUM_SEEDS_OF_CLAMP = 4
_TOLERANCE = 1e-4
_MAX_DOUBLINGS = 9  # from 4 pixels to 2048
_NUM_SHOWN = 3
_REMEDY = "Name a file with a StyleGAN2."


def read_rosinality(tree: object, source: str) -> Imported:
    """Return the generator under ``g_ema`` of a converted or trained file.

    ``latent_avg`` becomes ``mapping.w_avg``; without it that is the mean of codes from fixed seeds, and ``extra`` says
    so. Raises `InvalidCheckpoint` naming key, expected and got where tensors are missing, too many or misshapen.
    """
    theirs, mean = (tree.get("g_ema"), tree.get("latent_avg")) if isinstance(tree, dict) else (None, None)
    if not isinstance(theirs, dict):
        raise InvalidCheckpoint(f"{source}: no weights under g_ema. Name a file with a generator's mean weights.")
    ours = _renamed(theirs, source)
    if isinstance(mean, Tensor):
        ours["mapping.w_avg"] = mean.squeeze(0) if mean.ndim == 2 else mean  # some keep [1, D]
    else:
        ours["mapping.w_avg"] = torch.zeros_like(ours["synthesis.b4.torgb.affine.weight"][0])
    generator = build_stylegan2(ours, source=source, mapping_lr_multiplier=_MAPPING_LR_MULTIPLIER, conv_clamp=None)
    extra = {"layout": "rosinality", "channel_multiplier": _channel_multiplier(generator.config), "w_avg": "latent_avg"}
    if not isinstance(mean, Tensor):
        z = torch.randn(_NUM_SEEDS_OF_MEAN, generator.z_dim, generator=torch.Generator().manual_seed(0))
        generator.w_avg.copy_(generator.mapping(z).mean(dim=0))
        extra["w_avg"] = f"mean of {_NUM_SEEDS_OF_MEAN} codes of seed 0"
    return Imported("generator", generator, generator.config, extra)


def write_rosinality(generator: StyleGAN2, path: Path) -> None:
    """Write a generator as a ``.pt`` file that rosinality's code, and what builds on it, loads strictly.

    It holds ``latent_avg`` ``[D]`` and ``g_ema``. For R = log2(resolution), k in 0 ... R - 3 and n layers of mapping,
    ``g_ema`` has: ``style.{1...n}.{weight,bias}``; ``input.input``; of each of ``conv1``, ``convs.{2k}`` and
    ``convs.{2k+1}`` the ``conv.weight``, ``conv.modulation.{weight,bias}``, ``noise.weight`` and ``activate.bias``; of
    each of ``to_rgb1`` and ``to_rgbs.{k}`` the ``conv.weight``, ``conv.modulation.{weight,bias}`` and ``bias``;
    ``noises.noise_{0...2R-4}``; and the filters ``convs.{2k}.conv.blur.kernel`` and ``to_rgbs.{k}.upsample.kernel``.

    It loads into a generator of this resolution with ``style_dim`` D, ``n_mlp`` n and the ``channel_multiplier`` that
    gives its channels. Raises `InvalidCheckpoint` for a generator that the layout cannot express.
    """
    _require_expressible(generator)
    config, ours = generator.config, generator.state_dict()
    num_doublings = len(config.block_resolutions) - 1
    theirs = {name: 4 * resample_filter() for name in their_filters(num_doublings)}
    for entry in entries(num_doublings=num_doublings, mapping_layers=config.mapping_layers):
        theirs[entry.theirs] = entry.to_theirs(ours[entry.ours].detach().cpu())
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        torch.save({"g_ema": theirs, "latent_avg": generator.w_avg.detach().cpu().clone()}, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _renamed(theirs: dict[object, object], source: str) -> dict[str, Tensor]:
    """Return the weights and filters under our names."""
    num_doublings = _count(theirs, r"to_rgbs\.\d+\.bias")
    if not 0 < num_doublings <= _MAX_DOUBLINGS:
        raise InvalidCheckpoint(
            f"{source}: g_ema expected to_rgbs.0 to to_rgbs.{_MAX_DOUBLINGS - 1} at most, got {num_doublings}. "
            f"{_REMEDY}"
        )
    wanted = {
        entry.theirs: entry
        for entry in entries(num_doublings=num_doublings, mapping_layers=_count(theirs, r"style\.\d+\.weight"))
    }
    filters = their_filters(num_doublings)
    _require_names(theirs.keys(), wanted.keys() | {*filters}, source)
    for name in filters:
        value = theirs[name]
        if not isinstance(value, Tensor) or value.shape != (4, 4) or not value.float().allclose(4 * resample_filter()):
            raise InvalidCheckpoint(f"{source}: {name} expected the filter of StyleGAN2, got another. {_REMEDY}")
    ours = {name: resample_filter() for name in our_filters(num_doublings)}
    for name, entry in wanted.items():
        value = theirs[name]
        renamed = entry.to_ours(value) if isinstance(value, Tensor) else None
        if renamed is None:
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            shape = ["1"] * entry.before + ["..."] + ["1"] * entry.after
            raise InvalidCheckpoint(f"{source}: {name} expected [{', '.join(shape)}], got {got}. {_REMEDY}")
        ours[entry.ours] = renamed
    return ours


def _count(names: dict[object, object], pattern: str) -> int:
    return sum(1 for name in names if isinstance(name, str) and re.fullmatch(pattern, name))


def _require_names(got: Set[object], wanted: Set[object], source: str) -> None:
    wrong = sorted(map(str, got ^ wanted))
    if wrong:
        told = [
            f"{name!r:.80} expected {'a tensor, got nothing' if name in wanted else 'nothing, got one'}"
            for name in wrong[:_NUM_SHOWN]
        ]
        more = f"; and {len(wrong) - _NUM_SHOWN} more" if len(wrong) > _NUM_SHOWN else ""
        raise InvalidCheckpoint(f"{source}: g_ema: {'; '.join(told)}{more}. {_REMEDY}")


def _channel_multiplier(config: StyleGAN2Config) -> int | None:
    """Return the number that makes their table of channels ours; None where there is none.

    They have 512 channels up to 32 pixels, and at R pixels beyond it 16384 / R times this number.
    """
    for number in (2, 1):
        table = (512 if size <= 32 else 16384 // size * number for size in config.block_resolutions)
        if config.block_channels == tuple(table):
            return number
    return None


def _require_expressible(generator: StyleGAN2) -> None:
    config = generator.config
    wrong = []
    if config.z_dim != config.w_dim:
        wrong.append(f"z_dim {config.z_dim} other than w_dim {config.w_dim}")
    if config.mapping_lr_multiplier != _MAPPING_LR_MULTIPLIER:
        wrong.append(f"mapping_lr_multiplier {config.mapping_lr_multiplier} other than {_MAPPING_LR_MULTIPLIER}")
    if _channel_multiplier(config) is None:
        wrong.append(f"channels {config.block_channels}, of no channel_multiplier")
    if not wrong and _clamp_matters(generator):
        wrong.append(f"pictures that conv_clamp {config.conv_clamp} changes")
    if wrong:
        raise InvalidCheckpoint(
            f"rosinality's layout cannot hold this generator: it has {'; '.join(wrong)}. Keep it in our own format."
        )


@torch.no_grad()
def _clamp_matters(generator: StyleGAN2) -> bool:
    """Tell whether pictures of a few seeds are others without the clamp, which their generator does not have."""
    if generator.config.conv_clamp is None:
        return False
    unclamped = StyleGAN2(generator.config.model_copy(update={"conv_clamp": None})).to(generator.w_avg.device)
    unclamped.load_state_dict(generator.state_dict())
    for seed in range(_NUM_SEEDS_OF_CLAMP):
        z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(seed)).to(generator.w_avg)
        ws = generator.map(z)
        if not torch.allclose(generator.synthesize(ws), unclamped.synthesize(ws), atol=_TOLERANCE):
            return True
    return False
