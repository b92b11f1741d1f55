"""The home of imported models: one folder of this machine in which each model has a name."""

import os
import re
from pathlib import Path

from soundguide.errors import InvalidCheckpoint, InvalidConfig
from soundguide.models.fetch import cache_folder
from soundguide.models.manifest import CONFIG_FILE, MINIATURE, PACKAGED

HOME_VARIABLE = "SOUNDGUIDE_MODELS"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def models_home() -> Path:
    """Return where models have names: the variable SOUNDGUIDE_MODELS, or ``models/imported`` of the cache."""
    given = os.environ.get(HOME_VARIABLE)
    return Path(given) if given else cache_folder() / "models" / "imported"


def is_model_name(text: str) -> bool:
    """Say whether a model may have this name: letters, digits, ``-``, ``_`` and ``.``, not `MINIATURE`."""
    return bool(_NAME.fullmatch(text)) and text not in PACKAGED


def home_folder(name: str) -> Path:
    """Return the folder in which a model of this name lies, or would. Raises `InvalidConfig` for what is no name."""
    if not is_model_name(name):
        raise InvalidConfig(
            f"{name!r:.120} cannot be a model's name. Take letters, digits, '-', '_' and '.', with a letter or digit "
            f"first, and not {MINIATURE!r}."
        )
    return models_home() / name


def require_free(name: str, *, overwrite: bool) -> None:
    """Raise `InvalidConfig` where a model has this name, unless it may be written over."""
    folder = home_folder(name)
    if folder.exists() and not overwrite:
        raise InvalidConfig(f"there is a model {name!r} already, at {folder}. Take another name, or give --overwrite.")


def named_models() -> dict[str, Path]:
    """Return the folders of all models in the home by name, sorted."""
    home = models_home()
    found = sorted(path.parent for path in home.glob(f"*/{CONFIG_FILE}")) if home.is_dir() else []
    return {folder.name: folder for folder in found if is_model_name(folder.name)}


def named_model(name: str) -> Path:
    """Return the folder of a model in the home; raise `InvalidCheckpoint`, saying how to get it, where it is not."""
    folder = home_folder(name)
    if (folder / CONFIG_FILE).is_file():
        return folder
    from soundguide.models.sources import how_to_get

    there = ", ".join(named_models()) or "nothing yet"
    raise InvalidCheckpoint(
        f"there is no model {name!r}: no folder of that name here, and {models_home()} holds {there}. "
        f"Get it: {how_to_get(name)}"
    )
