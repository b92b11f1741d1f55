"""What all jobs share: settings from flags over YAML over defaults, exit codes, and where a submitted job may write."""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

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
from soundguide.errors import InvalidConfig, InvalidProgram
from soundguide.storage import StorageConfig, resolve_uri


class JobConfig(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", cli_implicit_flags=True, cli_hide_none_type=True, cli_avoid_json=True
    )

    config: Annotated[str, Field(description="YAML file with any of these settings; flags win over it.")] = ""
    storage: Annotated[StorageConfig, Field(description="How files are reached.")] = StorageConfig()
    strict: Annotated[bool, Field(description="Exit with 3 when some rows have errors.")] = False
    address: Annotated[str, Field(description="Ray cluster; empty: that of the submitted job, or a private one.")] = ""
    progress: Annotated[Literal["auto", "on", "off"], Field(description="Progress bars; auto: in a terminal.")] = "auto"

    @property
    def shows_bars(self) -> bool:
        """Whether to draw progress bars."""
        return sys.stdout.isatty() if self.progress == "auto" else self.progress == "on"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        **_: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Flags and YAML only: a variable named OUTPUT or MEDIA in somebody's environment must not change a run.
        return (init_settings,)


Config = TypeVar("Config", bound=JobConfig)


def load_config(
    kind: type[Config], argv: Sequence[str], *, usage: str | None = None, description: str | None = None
) -> Config:
    """Return the configuration of flags over YAML over defaults. Raises InvalidConfig; exits for --help."""
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


def exit_code_of(program: Callable[[], int]) -> int:
    """Run a job; return its exit code: 2 with the reason on stderr for what it refuses, 130 where it was stopped."""
    try:
        return program()
    except KeyboardInterrupt:
        print("Stopped. Give the same command again to go on.", file=sys.stderr)
        return 130
    except Exception as exc:
        refusal = _refusal_in(exc)
        if refusal is None:
            raise
        print(f"{type(refusal).__name__}: {refusal}", file=sys.stderr)
        return 2


def is_submitted() -> bool:
    """Say whether this process is the entry point of `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def place_output(output: str) -> str:
    """Return an output folder for processes that work elsewhere. Raises InvalidConfig where it would be lost."""
    if not is_submitted():
        return resolve_uri(output, base=".")
    if "://" not in output and not os.path.isabs(output):
        raise InvalidConfig(
            f"output is {output!r}, relative to the job's own working folder, which is deleted after it. "
            "Give a path like /mnt/shared/out that all machines see, or s3://bucket/folder"
        )
    return output


def _refusal_in(exc: BaseException | None) -> InvalidProgram | None:
    """Return the InvalidProgram among an exception and its causes: workers' errors arrive wrapped."""
    if exc is None or isinstance(exc, InvalidProgram):
        return exc
    inside = [getattr(exc, "cause", None) or exc.__cause__, *getattr(exc, "worker_failures", {}).values()]
    return next(filter(None, map(_refusal_in, inside)), None)
