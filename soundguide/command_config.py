"""Settings of a program: flags over YAML over defaults, from one pydantic model that is also its help."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from soundguide.config import describe
from soundguide.errors import InvalidConfig


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
        **_: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read flags and YAML only: a variable named OUTPUT in somebody's environment must not change a run."""
        return (init_settings,)


Config = TypeVar("Config", bound=CommandConfig)


def load_config(
    kind: type[Config], argv: Sequence[str], *, usage: str | None = None, description: str | None = None
) -> Config:
    """Return the configuration of flags over YAML over defaults. Raises `InvalidConfig`; exits for --help."""
    parser = ArgumentParser(usage=usage, description=description, formatter_class=RawDescriptionHelpFormatter)
    flags = CliSettingsSource[Any](kind, cli_parse_args=list(argv), root_parser=parser)
    path = str(flags().get("config", ""))
    try:
        if path and not Path(path).is_file():
            raise InvalidConfig(f"config is {path!r}, which is no file. Check the path")
        layer = YamlConfigSettingsSource(kind, yaml_file=path)() if path else {}
        return kind(_cli_settings_source=flags, **layer)
    except ValidationError as exc:
        raise InvalidConfig(describe(exc, "arguments")) from exc
    except (yaml.YAMLError, UnicodeError, TypeError) as exc:
        raise InvalidConfig(f"{path} is no YAML of settings ({exc}). Write one 'name: value' per line") from exc
