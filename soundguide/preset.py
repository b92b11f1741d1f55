"""Presets: the models of one domain and the settings of the paper for it, under one name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from soundguide.config import EditSettings, Frozen, ManipulatorConfig
from soundguide.errors import InvalidCheckpoint, InvalidConfig
from soundguide.model_facts import models_of
from soundguide.models.home import is_model_name, models_home, named_model
from soundguide.models.sources import how_to_get
from soundguide.settings_file import read_settings_file
from soundguide.validation import describe, did_you_mean, near_names

_FOLDER = Path(__file__).parent / "presets"


class _PresetFile(Frozen):
    description: Annotated[str, Field(description="What it edits, in a line.")]
    manipulator: Annotated[ManipulatorConfig, Field(description="The models, by their names.")]
    edit: Annotated[EditSettings, Field(description="How edits are done.")] = EditSettings()


class Preset(_PresetFile):
    """A named set of models and settings."""

    name: Annotated[str, Field(description="Name of its file, without .yaml.")]

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the imported models that it takes."""
        return tuple(name for _, name in named_models_of(self.manipulator))


def preset_names() -> list[str]:
    """Return the names of the presets that the package brings, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_preset(name: str) -> Preset:
    """Return a preset of the package, or the one in a YAML file of the same form. Raises `InvalidConfig`.

    Its models may be missing (`require_models`).
    """
    known = preset_names()
    is_file = name.endswith((".yaml", ".yml"))
    if not is_file and name not in known:
        meant = did_you_mean(near_names(name, known))
        raise InvalidConfig(
            f"there is no preset {name!r:.120}. {meant or 'Take one of them, or a YAML file of your own.'} "
            f"There are {', '.join(known)}."
        )
    path = Path(name) if is_file else _FOLDER / f"{name}.yaml"
    try:
        return Preset.model_validate({**read_settings_file(path), "name": path.stem})
    except ValidationError as error:
        raise InvalidConfig(describe(error, str(path), of=_PresetFile)) from error


def apply_preset(
    preset: Preset, edit: EditSettings, manipulator: ManipulatorConfig
) -> tuple[EditSettings, ManipulatorConfig]:
    """Return settings and models with those of a preset in place of the defaults: what was set on its own stays.

    Without an identity encoder its lambda_id is 0. Raises `InvalidConfig` where a model is missing, `InvalidSettings`
    where settings contradict each other.
    """
    named = {name: getattr(manipulator, name) for name in manipulator.model_fields_set}
    models = preset.manipulator.model_copy(update=named)
    require_models(models, preset.name)
    identity = {} if models.identity else {"lambda_id": 0.0}
    return preset.edit.override(identity | {name: getattr(edit, name) for name in edit.model_fields_set}), models


def require_models(config: ManipulatorConfig, preset: str) -> None:
    """Raise `InvalidConfig`, with what to get and how, unless all imported models that a config names are there."""
    missing = [(role, name) for role, name in named_models_of(config) if not has_model(name)]
    if missing:
        told = "".join(f"\n- {role} {name}: {how_to_get(name)}" for role, name in missing)
        raise InvalidConfig(
            f"the preset {preset!r} needs models that are not in {models_home()}. Get them, or name others:{told}"
        )


def named_models_of(config: ManipulatorConfig) -> Iterator[tuple[str, str]]:
    """Yield role and name of each imported model that a config names; folders, URIs and the miniature are none."""
    for role, name in models_of(config).items():
        if is_model_name(name) and not Path(name).exists():
            yield role, name


def has_model(name: str) -> bool:
    """Say whether a model of this name is in the home."""
    try:
        named_model(name)
    except InvalidCheckpoint:
        return False
    return True
