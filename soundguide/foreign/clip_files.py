"""CLIP from files with the names of open_clip, which are also OpenAI's."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from soundguide.errors import InvalidCheckpoint, InvalidConfig
from soundguide.foreign.imported import Imported
from soundguide.foreign.renamed import build_renamed
from soundguide.models.image_text import CLIP_MEAN, CLIP_STD, OpenClipConfig, OpenClipEncoder

_log = logging.getLogger(__name__)

# Sizes that OpenAI's own files keep among the weights; the architecture has them too
_SIZES_OF_OPENAI = frozenset({"input_resolution", "context_length", "vocab_size"})
_FILES_ON_THE_HUB = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_EXAMPLES = "'ViT-B-32:openai', 'ViT-B-32-quickgelu' or 'RN50:openai'"


def import_open_clip(name_or_file: str, architecture: str = "", *, quick_gelu: bool | None = None) -> Imported:
    """Read a CLIP from a file, or from what open_clip has fetched before; nothing is ever downloaded.

    ``name_or_file``: a ``.safetensors``, ``.bin`` or ``.pt`` of weights, alone or under ``state_dict``; or architecture
    and weights that open_clip knows, like 'ViT-B-32:openai', which are looked for in the cache of Hugging Face.
    ``architecture`` and ``quick_gelu``: as for `clip_config`. Raises what `read_clip` raises, and `InvalidConfig` for
    weights that are not on this machine, naming where they are.
    """
    path = Path(name_or_file)
    if not path.is_file():
        path, architecture = _fetched_before(name_or_file), architecture or name_or_file
    return read_clip(_state_dict(path), str(path), architecture=architecture, quick_gelu=quick_gelu)


def read_clip(
    tensors: Mapping[str, object], source: str, *, architecture: str = "", quick_gelu: bool | None = None
) -> Imported:
    """Read the tensors of a CLIP with both towers; ``architecture`` and ``quick_gelu`` as for `clip_config`.

    Raises what that raises, and `InvalidCheckpoint` where names or shapes are others.
    """
    config = clip_config(architecture, source, quick_gelu=quick_gelu)
    used = {key: value for key, value in tensors.items() if key not in _SIZES_OF_OPENAI}
    module = build_renamed(lambda: OpenClipEncoder(config), used, name_in_open_clip, source=source)
    return Imported("image_text", module, config, {"layout": "open_clip", "weights": architecture.partition(":")[2]})


def clip_config(architecture: str, source: str, *, quick_gelu: bool | None = None) -> OpenClipConfig:
    """Return how the weights in ``source`` want to be used.

    ``architecture``: a name of ``open_clip.list_models()``, and perhaps after a colon that of the weights:
    'ViT-B-32:openai'. Weights that open_clip knows bring their mean, deviation and activation. ``quick_gelu``: None is
    True for those that were trained with it, OpenAI's among them, and for architectures that end in '-quickgelu'.
    Raises `InvalidConfig` for weights that open_clip does not know, and where nothing or a contradiction is told.
    """
    name, _, tag = architecture.partition(":")
    if not name:
        raise InvalidConfig(
            f"{source}: a CLIP, but its file does not name its architecture. Name it, like {_EXAMPLES}."
        )
    published = _published(name, tag) if tag else {}
    of_name = name.endswith("-quickgelu")
    if of_name and quick_gelu is False:
        raise InvalidConfig(f"{source}: quick_gelu is False, but {name!r} has it. Leave out '-quickgelu'.")
    if not tag and not of_name and quick_gelu is None:
        _log.warning("%s: read with GELU, for nobody said whose weights; OpenAI's are '%s:openai'", source, name)
    of_weights = of_name or bool(published.get("quick_gelu", False))
    return OpenClipConfig(
        architecture=name,
        quick_gelu=of_weights if quick_gelu is None else quick_gelu,
        mean=published.get("mean", CLIP_MEAN),
        std=published.get("std", CLIP_STD),
    )


def name_in_open_clip(name: str) -> str:
    """Return the name that open_clip gives to a tensor of an `OpenClipEncoder`."""
    return name.removeprefix("clip.")


def _published(name: str, tag: str) -> dict[str, Any]:
    """Return what open_clip knows of published weights; raise `InvalidConfig` where that is nothing."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    found: dict[str, Any] = get_pretrained_cfg(name, tag)
    if not found:
        tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
        raise InvalidConfig(f"open_clip knows no weights {tag!r} of {name!r}, only: {tags}. Leave them out or correct.")
    return found


def _fetched_before(name: str) -> Path:
    """Return the file of named weights in the cache; raise `InvalidConfig` where there is none."""
    from huggingface_hub import try_to_load_from_cache

    architecture, _, tag = name.partition(":")
    if not tag:
        raise InvalidConfig(
            f"{name}: no such file, and no weights that open_clip knows. Name either, like {_EXAMPLES}."
        )
    published = _published(architecture, tag)
    repository, _, file = str(published.get("hf_hub", "")).rpartition("/")
    files = (file,) if file else _FILES_ON_THE_HUB
    for file in files if repository else ():
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    where = f"https://huggingface.co/{repository}/resolve/main/{files[0]}" if repository else published.get("url")
    raise InvalidConfig(
        f"{name}: not on this machine, and nothing is downloaded unasked. Fetch {where} and name the file, with the "
        f"architecture {name!r}."
    )


def _state_dict(path: Path) -> dict[str, object]:
    """Return the named values of a file, without what parallel training adds to their names."""
    tree: object
    if path.suffix == ".safetensors":
        try:
            tree = load_file(path)
        except SafetensorError as error:
            raise InvalidCheckpoint(f"{path}: no safetensors file ({error}). Download it again.") from error
    else:
        from soundguide.foreign.torch_file import read_torch_file

        tree = read_torch_file(path)
    match tree:
        case {"state_dict": dict(state)} | dict(state):
            prefix = "module." if all(str(name).startswith("module.") for name in state) else ""
            return {str(name).removeprefix(prefix): value for name, value in state.items()}
        case _:
            raise InvalidCheckpoint(
                f"{path}: no weights by name, got {type(tree).__name__}. Name a file of open_clip's weights."
            )
