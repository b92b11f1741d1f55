"""The checkpoints of e4e and pSp: an encoder, its generator and the mean code in one file.

Such a file holds ``state_dict`` with ``encoder.*`` and ``decoder.*``, the options ``opts`` and ``latent_avg``; one that
training can go on with has more, which is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.imported import Imported, build
from soundguide.foreign.inert_pickle import Record
from soundguide.models.domain import Domain
from soundguide.models.inversion_encoder import COARSE_STRIDE, InversionEncoder, InversionEncoderConfig
from soundguide.validation import describe

_VARIANTS = {"Encoder4Editing": "e4e", "GradualStyleEncoder": "psp"}
_CAR_LAYERS = 16  # of the car generator of 512 pixels, for which encoders were trained with 18 heads
_HEAD = r"styles\.(\d{1,4})\."
_REMEDY = "Name an e4e or pSp file for editing as its authors publish it, or download it again."


@dataclass(frozen=True, slots=True)
class _File:
    """What is read of a checkpoint; names are without their prefix ``encoder.`` or ``decoder.``."""

    source: str
    variant: str
    dataset: str
    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    latent_avg: Tensor | None
    starts_from_avg: bool

    @property
    def num_doublings(self) -> int:
        """How often the generator doubles the 4 pixels that it begins with; 0 where the file has none."""
        return _count(r"to_rgbs\.(\d{1,4})\.", self.decoder)


def read_inversion(tree: object, source: str) -> Imported:
    """Return the encoder of an e4e or pSp checkpoint as `read_torch_file` reads it; ``source`` names it in errors.

    Heads beyond the layers of its generator are left out. Raises `InvalidCheckpoint` for another tree, another kind of
    encoder, or tensors that do not fit; those are named with what was expected and got.
    """
    file = _read_file(tree, source)
    heads = _count(_HEAD, file.encoder)
    config = _config_of(file, num_ws=min(heads, _num_layers(file) or heads))
    state = {
        f"encoder.{name}": value
        for name, value in file.encoder.items()
        if (head := re.match(_HEAD, name)) is None or int(head[1]) < config.num_ws
    }
    state["latent_avg"] = _mean_code(file, config)
    for name in [name for name in state if name.endswith(".running_mean")]:
        # files of torch 0.4 have no counters, and nothing reads them
        state.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.zeros((), dtype=torch.int64))
    module = build(lambda: InversionEncoder(config), state, source=source)
    extra = {"layout": file.variant, "dataset_type": file.dataset, "heads_in_file": heads}
    return Imported("inverter", module, config, extra)


def read_inversion_generator(tree: object, source: str) -> Imported:
    """Return the generator inside an e4e or pSp checkpoint; it has rosinality's layout.

    Its extra has the ``domain`` that the encoder was trained on, where its name tells. Raises `InvalidCheckpoint` as
    `read_inversion` does, and where the file holds no generator.
    """
    from soundguide.foreign.rosinality import read_rosinality

    file = _read_file(tree, source)
    if not file.decoder:
        raise InvalidCheckpoint(f"{source}: holds no decoder.* tensors, so no generator. {_REMEDY}")
    rosinality: dict[str, object] = {"g_ema": file.decoder}
    if (average := file.latent_avg) is not None:
        # all layers have the same
        rosinality["latent_avg"] = average[0] if average.ndim == 2 and len(average) else average
    found = read_rosinality(rosinality, source)
    domain = _domain_of(file.dataset, 4 << file.num_doublings)
    extra: dict[str, Any] = {"layout": file.variant, "dataset_type": file.dataset}
    if domain is not None:
        extra["domain"] = domain.model_dump(mode="json")
    return replace(found, extra={**found.extra, **extra})


def _read_file(tree: object, source: str) -> _File:
    match tree:
        case {"state_dict": dict(state), "opts": dict(options) | Record(state=dict(options)), **others}:
            average = others.get("latent_avg")
        case _:
            got = f"the keys {list(tree)!r:.200}" if isinstance(tree, dict) else type(tree).__name__
            raise InvalidCheckpoint(f"{source}: expected state_dict, opts and latent_avg, got {got}. {_REMEDY}")
    missing = [name for name in ("encoder_type", "start_from_latent_avg") if name not in options]
    if missing:
        raise InvalidCheckpoint(f"{source}: its opts lack {missing}. {_REMEDY}")
    kind, dataset = (_text(options.get(name, "")) for name in ("encoder_type", "dataset_type"))
    if kind not in _VARIANTS:
        raise InvalidCheckpoint(f"{source}: encoder_type is {kind!r}; expected {' or '.join(_VARIANTS)}. {_REMEDY}")
    from_average = options["start_from_latent_avg"]
    if not isinstance(from_average, bool):
        got = type(from_average).__name__
        raise InvalidCheckpoint(f"{source}: start_from_latent_avg expected True or False, got {got}. {_REMEDY}")
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for name, value in state.items():
        part, _, rest = str(name).partition(".")
        if part in parts:
            parts[part][rest] = _tensor(value, str(name), source)
    return _File(
        source,
        _VARIANTS[kind],
        dataset,
        parts["encoder"],
        parts["decoder"],
        None if average is None else _tensor(average, "latent_avg", source),
        from_average,
    )


def _text(value: object) -> str:
    # never the text of anything else: nested containers can be written shortly that have no end of it
    return value[:100] if isinstance(value, str) else f"<{type(value).__name__}>"


def _tensor(value: object, name: str, source: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise InvalidCheckpoint(f"{source}: {name:.200}: expected a tensor, got {type(value).__name__}. {_REMEDY}")
    return value


def _config_of(file: _File, *, num_ws: int) -> InversionEncoderConfig:
    """Return the architecture that the names and shapes of an encoder tell."""
    widening = sorted({int(found[1]) for found in _matches(r"body\.(\d{1,4})\.shortcut_layer\.", file.encoder)})
    starts = [0, *widening]
    if len(starts) != 4 or starts[1] == 0:
        raise InvalidCheckpoint(
            f"{file.source}: expected an IR-SE network that widens at three blocks (3, 7 and 21 of IR-SE50), got "
            f"shortcut_layer at {widening[:8]}. {_REMEDY}"
        )
    ends = [*starts[1:], _count(r"body\.(\d{1,4})\.", file.encoder)]
    num_halvings = len(list(_matches(r"styles\.0\.convs\.\d{1,4}\.weight$", file.encoder)))
    try:
        return InversionEncoderConfig.model_validate(
            {
                "variant": file.variant,
                "num_ws": num_ws,
                "w_dim": _channels(file, "styles.0.linear.weight"),
                "input_size": COARSE_STRIDE << min(num_halvings, 16),
                "widths": tuple(_channels(file, f"body.{start}.res_layer.1.weight") for start in starts),
                "units": tuple(end - start for start, end in zip(starts, ends, strict=True)),
            }
        )
    except ValidationError as error:
        raise InvalidCheckpoint(describe(error, f"{file.source}: the encoder's shapes")) from error


def _matches(pattern: str, names: Mapping[str, Tensor]) -> Iterator[re.Match[str]]:
    return filter(None, (re.match(pattern, name) for name in names))


def _count(pattern: str, names: Mapping[str, Tensor]) -> int:
    """Return one more than the largest index, the first group, in the names that match."""
    return max((int(found[1]) + 1 for found in _matches(pattern, names)), default=0)


def _channels(file: _File, name: str) -> int:
    """Return the first length of a tensor of the encoder."""
    tensor = file.encoder.get(name)
    if tensor is None or tensor.ndim == 0:
        got = "nothing" if tensor is None else "[]"
        raise InvalidCheckpoint(f"{file.source}: encoder.{name}: expected a layer's weights, got {got}. {_REMEDY}")
    return tensor.shape[0]


def _mean_code(file: _File, config: InversionEncoderConfig) -> Tensor:
    """Return what is added to the codes, ``[L, D]``: the file has it once, or for each layer."""
    if not file.starts_from_avg:
        return torch.zeros(config.num_ws, config.w_dim)
    if file.latent_avg is None:
        raise InvalidCheckpoint(f"{file.source}: latent_avg: expected a tensor, got nothing. {_REMEDY}")
    average = file.latent_avg[None] if file.latent_avg.ndim == 1 else file.latent_avg
    if average.ndim != 2:
        return average  # fits nothing, and is told with its shape
    return average.expand(config.num_ws, -1) if len(average) == 1 else average[: config.num_ws]


def _num_layers(file: _File) -> int:
    """Return how many layers the generator takes codes for, 0 where the file does not tell."""
    if file.decoder:
        return 2 * file.num_doublings + 2
    return _CAR_LAYERS if file.dataset.startswith("cars") else 0


def _domain_of(dataset: str, resolution: int) -> Domain | None:
    """Return what the names that e4e and pSp give their data sets say of the generator."""
    match dataset.partition("_")[0]:
        case "ffhq":
            return Domain(name="faces", alignment="ffhq")
        case "cars":  # 4:3, padded to a square: rows 64 to 448 of 512
            return Domain(name="cars", crop=(resolution // 8, resolution - resolution // 8, 0, resolution))
        case _:
            return None
