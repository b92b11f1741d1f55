"""NVIDIA's generators: the pickles of StyleGAN2-ADA and StyleGAN3, and modules that others tuned and saved whole.

What a network was built with stands in the attributes of its modules, and in the arguments of its constructor. Those
have two layouts: with the synthesis network's apart (StyleGAN2-ADA), or among the others (StyleGAN3's code).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.imported import Imported
from soundguide.foreign.record import Record
from soundguide.foreign.stylegan2_shapes import build_stylegan2

# a module that contains itself, or is shared by many that are shared, has no end
_MAX_MODULES = 2000
_MAX_TENSORS = 20_000
_MAX_PATH_CHARS = 300
_MAX_TOLD = 64
_REMEDY = "Download the file again."

State = dict[object, Any]


def read_nvidia(tree: object, source: str) -> Imported:
    """Return the generator of a pickle with ``G_ema``, or of a module that was saved whole.

    Raises `InvalidCheckpoint` for one with labels, or built with options that ours does not have.
    """
    kind, options, tensors = nvidia_state(tree, source=source)
    extra = {"layout": "nvidia", "options": options}
    if kind == "stylegan3":
        from soundguide.foreign.stylegan3_files import from_nvidia

        module, config = from_nvidia(options, tensors, source=source)
        return Imported("generator", module, config, extra)
    states = dict(_module_states(_generator(tree, source), source))
    rate, clamp = _checked_options(options, states, source)
    if "mapping.embed.weight" in tensors:
        raise _unlike(source, "c_dim", "0, no labels", options.get("c_dim"))
    network = build_stylegan2(tensors, source=source, mapping_lr_multiplier=rate, conv_clamp=clamp)
    return Imported("generator", network, network.config, extra)


def nvidia_state(tree: object, *, source: str) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return what a generator is, the arguments it was constructed with, and its parameters and buffers by name.

    The first is ``'stylegan2'`` or ``'stylegan3'``. Arguments come as JSON holds them, and are few and small, however
    often those in the file contain each other. Raises `InvalidCheckpoint` for a tree that holds neither.
    """
    generator = _generator(tree, source)
    tensors: dict[str, Tensor] = {}
    for path, state in _module_states(generator, source):
        held = {**_part(state, "_parameters", source), **_part(state, "_buffers", source)}
        tensors |= {f"{path}.{name}".lstrip("."): value for name, value in held.items() if isinstance(value, Tensor)}
        if len(tensors) > _MAX_TENSORS:
            raise InvalidCheckpoint(f"{source}: its generator has more than {_MAX_TENSORS} tensors. {_REMEDY}")
    options: dict[str, Any] = _told(_part(generator, "_init_kwargs", source))
    if "synthesis.input.freqs" in tensors:
        return "stylegan3", options, tensors
    if "synthesis.b4.const" in tensors:
        return "stylegan2", options, tensors
    raise InvalidCheckpoint(
        f"{source}: its generator has neither synthesis.b4.const nor synthesis.input.freqs, as StyleGAN2 and StyleGAN3 "
        f"have, but {[*tensors][:3]!r:.200}. Name a pickle of one of these."
    )


def _generator(tree: object, source: str) -> State:
    match tree:
        case {"G_ema": Record(state=dict(state))} | Record(state=dict(state)):
            return state
    raise InvalidCheckpoint(f"{source}: no generator in it, neither under G_ema nor as a whole. Name another pickle.")


def _module_states(generator: State, source: str) -> Iterator[tuple[str, State]]:
    """Yield path and attributes of a module and of all modules in it."""
    waiting, found = [("", generator)], 1
    while waiting:
        path, state = waiting.pop()
        yield path, state
        modules = _part(state, "_modules", source)
        found += len(modules)
        if found > _MAX_MODULES:
            raise InvalidCheckpoint(f"{source}: its generator has more than {_MAX_MODULES} modules. {_REMEDY}")
        for name, module in modules.items():
            inner = f"{path}.{name}".lstrip(".")
            if not isinstance(module, Record) or not isinstance(module.state, dict) or len(inner) > _MAX_PATH_CHARS:
                raise InvalidCheckpoint(f"{source}: {inner!r:.80} is no module. {_REMEDY}")
            waiting.append((inner, module.state))


def _part(state: State, name: str, source: str) -> State:
    part = state.get(name)
    if not isinstance(part, dict):
        raise InvalidCheckpoint(
            f"{source}: a module's {name} expected a dictionary, got {type(part).__name__}. {_REMEDY}"
        )
    return part


def _checked_options(options: dict[str, Any], states: dict[str, State], source: str) -> tuple[float, float | None]:
    """Return learning rate multiplier and clamp, attributes before arguments; refuse what ours does not have."""
    apart = "synthesis_kwargs" in options
    synthesis = _arguments(options, "synthesis_kwargs") if apart else options
    mapping = _arguments(options, "mapping_kwargs")
    linear, layer = states.get("mapping.fc0", {}), states.get("synthesis.b4.conv1", {})
    block = states.get("synthesis.b8", {})
    found = {
        "architecture": (block.get("architecture", synthesis.get("architecture", "skip")), "skip"),
        "activation": (layer.get("activation", synthesis.get("activation", "lrelu")), "lrelu"),
        "use_noise": (layer.get("use_noise", synthesis.get("use_noise", True)), True),
        "activation of the mapping": (linear.get("activation", mapping.get("activation", "lrelu")), "lrelu"),
    }
    for name, (got, wanted) in found.items():
        if type(got) is not type(wanted) or got != wanted:
            raise _unlike(source, name, repr(wanted), got)
    rate = linear.get("bias_gain", mapping.get("lr_multiplier", 0.01))
    # where neither file nor caller says, the two codes differ
    clamp = layer.get("conv_clamp", synthesis.get("conv_clamp", None if apart else 256))
    if not _is_positive(rate):
        raise _unlike(source, "lr_multiplier", "a positive number", rate)
    if clamp is not None and not _is_positive(clamp):
        raise _unlike(source, "conv_clamp", "a positive number or None", clamp)
    return rate, clamp


def _arguments(options: dict[str, Any], name: str) -> dict[str, Any]:
    inner = options.get(name)
    return inner if isinstance(inner, dict) else {}


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _unlike(source: str, name: str, wanted: str, got: object) -> InvalidCheckpoint:
    return InvalidCheckpoint(
        f"{source}: the generator's {name} expected {wanted}, got {_told(got)!r:.80}. Our StyleGAN2 has no other: "
        "use a generator that was trained with this."
    )


def _told(value: object, depth: int = 3) -> Any:
    """Return what JSON can tell of arguments: no tensors, no objects, no more than some of each."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return value[:200]
        case dict() if depth:
            some = islice(value.items(), _MAX_TOLD)
            return {name: _told(inner, depth - 1) for name, inner in some if isinstance(name, str)}
        case list() | tuple() if depth:
            return [_told(inner, depth - 1) for inner in value[:_MAX_TOLD]]
        case _:
            return f"({type(value).__name__})"
