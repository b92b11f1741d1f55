"""What a file of another project comes to: a model of ours, with all its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from torch import Tensor, nn

from soundguide.models.checkpoint import check_fit
from soundguide.models.manifest import Role


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


def fit(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load ``state`` into ``module``, strictly, as float32, and freeze it in evaluation mode.

    Raises `InvalidCheckpoint` naming key, expected and got for any tensor too many, too few or of another shape.
    """
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    check_fit(source, module.state_dict(), tensors, remedy="Name a file of that network, or download it again.")
    module.load_state_dict(tensors, strict=True)
    module.eval().requires_grad_(False)
