"""Weights whose names differ from ours, checked under the names that their file gives them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from soundguide.errors import InvalidCheckpoint
from soundguide.foreign.imported import Made, fit
from soundguide.models.checkpoint import check_fit


def build_renamed(
    make: Callable[[], Made], tensors: Mapping[str, object], their_name: Callable[[str], str], *, source: str
) -> Made:
    """Return the module that ``make`` gives, with all of ``tensors``.

    ``their_name`` turns a name of ours into that in the file. Names and shapes are compared before anything of that
    size is made; ``make`` has to work on torch's meta device. Raises `InvalidCheckpoint` naming the file's key,
    expected and got.
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise InvalidCheckpoint(
                f"{source}: {name!r:.80} expected a tensor, got {type(value).__name__}. Name a file of that network."
            )
        found[name] = value
    with torch.device("meta"):
        wanted = {their_name(name): value for name, value in make().state_dict().items()}
    check_fit(source, wanted, found, remedy="Name a file of that network, or download it again.")
    module = make()
    fit(module, {name: found[their_name(name)] for name in module.state_dict()}, source=source)
    return module
