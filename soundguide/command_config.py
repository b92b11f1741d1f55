"""Settings of a program: flags over YAML over defaults, from one pydantic model that is also its help."""

import re
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from soundguide.errors import InvalidConfig
from soundguide.settings_file import read_settings_file
from soundguide.validation import describe, did_you_mean, near_settings


class CommandConfig(BaseSettings):
    """What every program's settings begin with."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", cli_implicit_flags=True, cli_hide_none_type=True, cli_avoid_json=True
    )

    config: Annotated[str, Field(description="YAML file with any of these settings; flags win over it.")] = ""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read flags and YAML only: a variable named OUTPUT in somebody's environment must not change a run."""
        return (init_settings,)


Config = TypeVar("Config", bound=CommandConfig)

_FLAG = re.compile(r"(?<=^--)[\w.-]+")


def load_config(
    kind: type[Config], argv: Sequence[str], *, usage: str | None = None, description: str | None = None
) -> Config:
    """Return the configuration of flags over YAML over defaults; `--some-field` is `--some_field` too.

    Raises `InvalidConfig`; exits for --help.
    """
    parser = ArgumentParser(
        usage=usage, description=description, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parse = partial(_parse_flags, kind)
    words = [_FLAG.sub(lambda flag: flag[0].replace("-", "_"), word) for word in argv]
    flags = CliSettingsSource[Any](kind, cli_parse_args=words, root_parser=parser, parse_args_method=parse)
    given = flags()
    path = str(given.get("config", ""))
    layer = read_settings_file(path) if path else {}
    try:
        sources: dict[str, Any] = {"_cli_settings_source": flags, **layer}
        return kind(**sources)
    except ValidationError as exc:
        raise InvalidConfig(describe(exc, _origin(exc, path, layer, given), of=kind)) from exc


def _parse_flags(kind: type[Config], parser: ArgumentParser, argv: Sequence[str]) -> Namespace:
    """Parse flags as argparse does, but meet an unknown one with the nearest that there is."""
    found, unknown = parser.parse_known_args(argv)
    if unknown:
        names = [word.partition("=")[0].removeprefix("--") for word in unknown if word.startswith("--")]
        near = [f"--{known}" for name in names for known in near_settings(kind, name.split("."))]
        meant = did_you_mean(near) or "Leave it out."
        raise InvalidConfig(f"unknown arguments: {' '.join(unknown)}. {meant} All are listed by --help")
    return found


def _origin(error: ValidationError, path: str, layer: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Say where the refused settings were written: flags win over the file, and what is missing is in neither."""
    in_file = [_holds(layer, item["loc"]) and not _holds(given, item["loc"]) for item in error.errors()]
    if all(in_file):
        return path
    return f"arguments and {path}" if any(in_file) else "arguments"


def _holds(values: Any, path: Sequence[str | int]) -> bool:
    """Say whether nested settings say anything at a path, or end in a value above it."""
    for part in path:
        if not isinstance(values, dict):
            break
        if part not in values:
            return False
        values = values[part]
    return True
