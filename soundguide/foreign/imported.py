"""What a file of another project comes to: a model of ours, with all its weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from soundguide.errors import InvalidCheckpoint
from soundguide.models.checkpoint import check_fit
from soundguide.models.manifest import Role

_REMEDY = "Name a file of that network, or download it again."

Made = TypeVar("Made", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Imported:
    """One model out of a foreign file.

    ``module``: with all weights, float32, frozen, in evaluation mode. ``config`` has a ``kind``. ``extra``: free-form
    JSON kept in ``config.json``, what is worth knowing of the file.
    """

    role: Role
    module: nn.Module
    config: BaseModel
    extra: dict[str, Any]


def build(make: Callable[[], Made], state: Mapping[Any, object], *, source: str) -> Made:
    """Return the module that ``make`` gives, with the weights in ``state`` (see `fit`).

    The shapes are compared before anything of that size is made, for they came from the file. ``make`` has to work on
    torch's meta device. Raises `InvalidCheckpoint`.
    """
    with torch.device("meta"):
        check_fit(source, make().state_dict(), _tensors(state, source), remedy=_REMEDY)
    module = make()
    fit(module, state, source=source)
    return module


def fit(module: nn.Module, state: Mapping[Any, object], *, source: str) -> None:
    """Load ``state`` into ``module``, strictly, as float32, and freeze it in evaluation mode.

    Raises `InvalidCheckpoint` naming key, expected and got for any tensor too many, too few or of another shape, and
    for weights that are not finite or not of the kind of number that the module has.
    """
    tensors = _tensors(state, source)
    wanted = module.state_dict()
    check_fit(source, wanted, tensors, remedy=_REMEDY)
    for name, value in tensors.items():
        if value.is_floating_point() != wanted[name].is_floating_point():
            raise InvalidCheckpoint(f"{source}: {name} expected {wanted[name].dtype}, got {value.dtype}. {_REMEDY}")
        if not bool(value.isfinite().all()):
            raise InvalidCheckpoint(f"{source}: {name} expected finite float32, got infinity or NaN. {_REMEDY}")
    module.load_state_dict(tensors, strict=True)
    module.eval().requires_grad_(False)


def _tensors(state: Mapping[Any, object], source: str) -> dict[str, Tensor]:
    tensors = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InvalidCheckpoint(f"{source}: {name!r:.80} expected a tensor, got {type(value).__name__}. {_REMEDY}")
        tensors[name] = value.float() if value.is_floating_point() else value
    return tensors
