"""What can be told of a model folder from its config and the header of its weights, without torch."""

import json
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from safetensors import SafetensorError, safe_open

from soundguide.errors import InvalidCheckpoint
from soundguide.model_facts import num_layers
from soundguide.models.manifest import ROLE_OF_KIND, WEIGHTS_FILE, Role, config_fields, read_config

_ESSENTIAL = (
    *("variant", "resolution", "num_ws", "w_dim", "sample_rate", "window_seconds"),
    *("architecture", "input_size", "embed_dim"),
)


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model folder in figures: ``num_values`` in all its tensors, ``num_bytes`` of its weights.

    ``source``: the file that it was imported from, "" where it was made here. ``role`` is None for an unknown kind.
    ``num_ws``: layers of a generator's codes. ``config``: the whole of its config.json.
    """

    folder: Path
    kind: str
    role: Role | None
    num_ws: int | None
    num_values: int
    num_bytes: int
    sha256: str
    made_by: str
    source: str
    config: dict[str, Any]

    def rows(self, *, everything: bool) -> list[tuple[str, str]]:
        """Return what there is to tell, as (name, value): what decides its use, or all that its config says."""
        fields = config_fields(self.config)
        if self.num_ws is not None:
            fields["num_ws"] = self.num_ws
        if everything:
            told = fields | {name: self.config[name] for name in ("domain", "labels", "extra") if name in self.config}
        else:
            inside = fields.get("log_mel")
            known = {**(inside if isinstance(inside, dict) else {}), **fields}
            told = {name: known[name] for name in _ESSENTIAL if known.get(name)}
        return [
            ("role", self.role or "unknown"),
            *((name, _shown(value)) for name, value in ({"kind": self.kind} | told).items()),
            ("parameters", f"{self.num_values:,}"),
            ("size", decimal(self.num_bytes)),
            ("SHA-256", self.sha256),
            ("made by", self.made_by),
            ("lies in", str(self.folder)),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON holds it."""
        return {**asdict(self), "folder": str(self.folder)}


def describe_model(folder: Path) -> ModelDescription:
    """Return what a model folder says about itself. Raises `InvalidCheckpoint` where it is none, or damaged."""
    config = read_config(folder)
    extra = config.get("extra", {})
    source = extra.get("source", {}) if isinstance(extra, dict) else {}
    role = ROLE_OF_KIND.get(config["kind"])
    try:
        num_ws = num_layers(config) if role == "generator" else None
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidCheckpoint(f"{folder}: its config lacks {error}. Import the model again.") from error
    num_values = _count_values(folder / WEIGHTS_FILE)
    return ModelDescription(
        folder=folder,
        kind=config["kind"],
        role=role,
        num_ws=num_ws,
        num_values=num_values,
        num_bytes=(folder / WEIGHTS_FILE).stat().st_size,
        sha256=config["weights_sha256"],
        made_by=config["made_by"],
        source=str(source.get("file", "")) if isinstance(source, dict) else "",
        config=config,
    )


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _count_values(path: Path) -> int:
    try:
        with safe_open(path, framework="np") as file:
            return sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise InvalidCheckpoint(f"{path}: cannot be read as safetensors ({error}). Import the model again.") from error
