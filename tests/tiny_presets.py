"""Presets of tiny worlds: one of 16 px, and one of 8 px whose models have names in a home."""

from pathlib import Path

import yaml
from tiny_world import write_tiny_world

from soundguide.config import ManipulatorConfig


def write_presets(folder: Path, large: ManipulatorConfig) -> tuple[Path, Path, Path]:
    """Write ``large.yaml`` of a world that there is and ``small.yaml`` of one in a new home; return them and it."""
    home = folder / "home"
    write_tiny_world(home, resolution=8)
    roles = ("generator", "image_text", "audio")
    worlds = {"large": {role: getattr(large, role) for role in roles}, "small": {role: role for role in roles}}
    edits = {"large": {"num_steps": 8, "num_views": 1}, "small": {"num_steps": 4, "num_views": 1, "lambda_reg": 0.25}}
    for name, models in worlds.items():
        fields = {"description": f"a {name} world", "manipulator": models, "edit": edits[name]}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(fields))
    return folder / "large.yaml", folder / "small.yaml", home
