"""Settings as a YAML file: one ``name: value`` per line, nested by idea."""

from pathlib import Path
from typing import Any

import yaml

from soundguide.errors import InvalidConfig


def read_settings_file(path: str | Path) -> dict[str, Any]:
    """Return the settings in a YAML file, as they are written there; none if it is empty. Raises `InvalidConfig`."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            found = yaml.safe_load(file)
    except OSError as exc:
        raise InvalidConfig(f"{path}: cannot be read ({exc.strerror}). Name a YAML file of settings") from exc
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: no UTF-8, or a date that no calendar has
        told = " ".join(str(exc).split())
        raise InvalidConfig(f"{path} is no YAML of settings ({told}). Write one 'name: value' per line") from exc
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise InvalidConfig(f"{path} is no YAML of settings (got {found!r:.80}). Write one 'name: value' per line")
    return found
