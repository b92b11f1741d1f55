"""Makes files as other projects write them, with weights of our own: without their code, under their names."""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from soundguide.models.stylegan2 import StyleGAN2, StyleGAN2Config

SOURCE_CODE = "raise SystemExit('the source code that comes with a network was run')"


class EasyDict(dict[str, Any]):
    """What NVIDIA's code keeps options in."""


class Persistent:
    """An object that is pickled as NVIDIA's persistent classes are: its state, class name and source code."""

    def __init__(self, class_name: str, state: dict[str, Any], version: int = 6) -> None:
        self.meta = {
            "type": "class",
            "version": version,
            "module_src": SOURCE_CODE,
            "class_name": class_name,
            "state": state,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reconstruct_persistent_obj, (self.meta,), None)


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("a network was rebuilt as NVIDIA's code does")


@contextmanager
def named_as(names: Mapping[str, Any]) -> Iterator[None]:
    """Give classes and functions full names of other projects while they are pickled."""
    before = dict(sys.modules)
    kept = {value: (value.__module__, value.__name__, value.__qualname__) for value in names.values()}
    try:
        for full, value in names.items():
            module, _, name = full.rpartition(".")
            for length in range(1, module.count(".") + 2):
                path = ".".join(module.split(".")[:length])
                sys.modules.setdefault(path, ModuleType(path))
            value.__module__, value.__name__, value.__qualname__ = module, name, name
            setattr(sys.modules[module], name, value)
        yield
    finally:
        for value, (module, name, qualname) in kept.items():
            value.__module__, value.__name__, value.__qualname__ = module, name, qualname
        sys.modules.clear()
        sys.modules.update(before)


def nvidia_names() -> Any:
    return named_as(
        {
            "torch_utils.persistence._reconstruct_persistent_obj": _reconstruct_persistent_obj,
            "dnnlib.util.EasyDict": EasyDict,
        }
    )


def module_state(tensors: Mapping[str, Tensor], modules: Mapping[str, Any], **attributes: Any) -> dict[str, Any]:
    """Return the attributes of a torch module; buffers are those that networks of NVIDIA register as such."""
    buffers = {"w_avg", "resample_filter", "noise_const", "freqs", "phases", "transform", "magnitude_ema"}
    parameters = {name: nn.Parameter(value) for name, value in tensors.items() if name not in buffers}
    return {
        "training": False,
        "_parameters": OrderedDict(parameters),
        "_buffers": OrderedDict((name, value) for name, value in tensors.items() if name in buffers),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_modules": OrderedDict(modules),
        **attributes,
    }


def own(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors that lie directly under ``prefix``."""
    under = {name[len(prefix) :]: value.clone() for name, value in tensors.items() if name.startswith(prefix)}
    return {name: value for name, value in under.items() if "." not in name}


def linear(tensors: Mapping[str, Tensor], prefix: str, *, activation: str, lr_multiplier: float) -> Persistent:
    attributes = {"activation": activation, "bias_gain": lr_multiplier}
    return Persistent("FullyConnectedLayer", module_state(own(tensors, prefix), {}, **attributes))


def nvidia_generator(generator: StyleGAN2, *, layout: str = "ada", **changes: Any) -> Persistent:
    """Return a generator as StyleGAN2-ADA (``layout='ada'``) or StyleGAN3's code (``'flat'``) would pickle it.

    ``changes``: attributes of all synthesis layers and blocks, over what the generator has.
    """
    config, tensors = generator.config, {name: value.detach() for name, value in generator.state_dict().items()}
    made = {"architecture": "skip", "activation": "lrelu", "use_noise": True, "conv_clamp": config.conv_clamp} | changes
    mapping = {
        f"fc{index}": linear(
            tensors, f"mapping.fc{index}.", activation="lrelu", lr_multiplier=config.mapping_lr_multiplier
        )
        for index in range(config.mapping_layers)
    }
    blocks = {}
    for size in config.block_resolutions:
        layers = {}
        for name in ("conv0", "conv1", "torgb"):
            prefix = f"synthesis.b{size}.{name}."
            if own(tensors, prefix):
                affine = linear(tensors, f"{prefix}affine.", activation="linear", lr_multiplier=1.0)
                cls = "ToRGBLayer" if name == "torgb" else "SynthesisLayer"
                attributes = {key: value for key, value in made.items() if key != "architecture"}
                layers[name] = Persistent(cls, module_state(own(tensors, prefix), {"affine": affine}, **attributes))
        state = module_state(own(tensors, f"synthesis.b{size}."), layers, architecture=made["architecture"])
        blocks[f"b{size}"] = Persistent("SynthesisBlock", state)
    parts = {
        "synthesis": Persistent("SynthesisNetwork", module_state({}, blocks)),
        "mapping": Persistent("MappingNetwork", module_state(own(tensors, "mapping."), mapping)),
    }
    return Persistent("Generator", module_state({}, parts, _init_args=(), _init_kwargs=options(config, layout)))


def options(config: StyleGAN2Config, layout: str) -> dict[str, Any]:
    top = {"c_dim": 0, "img_resolution": config.resolution, "img_channels": 3}
    top |= {"z_dim": config.z_dim, "w_dim": config.w_dim}
    mapping = EasyDict(num_layers=config.mapping_layers)
    synthesis = {"channel_base": config.channel_base, "num_fp16_res": 4, "conv_clamp": config.conv_clamp}
    if layout == "ada":
        return top | {"mapping_kwargs": mapping, "synthesis_kwargs": EasyDict(synthesis)}
    return top | {"mapping_kwargs": mapping} | synthesis


def write_nvidia(path: Path, network: Any, *, protocol: int = 4) -> Path:
    """Write the pickle of a training run: the generator beside what nobody reads here."""
    other = Persistent("Discriminator", module_state({"weight": torch.ones(2)}, {}, _init_kwargs={}))
    tree = {"G": None, "D": other, "G_ema": network, "augment_pipe": None}
    with nvidia_names(), path.open("wb") as file:
        pickle.dump({**tree, "training_set_kwargs": EasyDict(path="faces.zip", max_size=7)}, file, protocol=protocol)
    return path


def write_module(path: Path, network: Any, *, zipped: bool = True) -> Path:
    """Write a whole module as PTI does."""
    with nvidia_names():
        torch.save(network, path, _use_new_zipfile_serialization=zipped)
    return path


def saved(tree: Any, *, zipped: bool = True) -> bytes:
    """Return what ``torch.save`` writes, in its present format or in its older one."""
    file = io.BytesIO()
    torch.save(tree, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def lively(config: StyleGAN2Config, *, seed: int = 3) -> StyleGAN2:
    """Return a generator in which every tensor matters: biases, noise and mean code are not zero."""
    network = StyleGAN2(config, seed=seed)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*network.named_parameters(), ("w_avg", network.mapping.w_avg)]:
            if name.endswith(("bias", "noise_strength", "w_avg")):
                value.add_(0.3 * torch.randn(value.shape, generator=random))
    return network
