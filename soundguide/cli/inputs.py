"""What commands read: the models file, sources from a path, a URI or stdin, and settings as they are typed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidConfig, InvalidEdit, InvalidSettings, SourceNotFound
from soundguide.validation import describe, did_you_mean, near_names

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from typer.models import OptionInfo

STDIN = "-"

_PANEL = "Models"

Models = Annotated[
    Path | None,
    typer.Option(
        "--models",
        metavar="FILE.yaml",
        help="Which models to use: a YAML file with the fields of ManipulatorConfig (generator, image_text, audio, "
        "device ...). Default: the bundled miniature.",
        rich_help_panel=_PANEL,
    ),
]
Audio = Annotated[
    str | None,
    typer.Option(
        "--audio-encoder",
        "--audio",
        metavar="NAME",
        help="Another sound encoder: a name or folder, as jobs/pretrain_encoder.py leaves it.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]

Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="Models and settings of one domain (see: soundguide presets); what is given beside it wins.",
        rich_help_panel=_PANEL,
    ),
]


def model_option(role: str) -> OptionInfo:
    """Return an option for one model of `ManipulatorConfig`; its help is the field's own."""
    option: OptionInfo = typer.Option(
        f"--{role.replace('_', '-')}",
        metavar="NAME",
        help=ManipulatorConfig.model_fields[role].description,
        show_default=False,
        rich_help_panel=_PANEL,
    )
    return option


def load_config(
    path: Path | None, *, audio: str | None = None, others: Mapping[str, str | None] | None = None
) -> ManipulatorConfig:
    """Return the configuration in a YAML file, or the default one, with other models by role (None: not given).

    Raises `InvalidConfig`.
    """
    config = ManipulatorConfig() if path is None else _read_config(path)
    named = {"audio": audio, **(others or {})}
    return config.model_copy(update={role: name for role, name in named.items() if name is not None})


def _read_config(path: Path) -> ManipulatorConfig:
    from pydantic import ValidationError

    from soundguide.settings_file import read_settings_file

    try:
        return ManipulatorConfig.model_validate(read_settings_file(path))
    except ValidationError as error:
        raise InvalidConfig(describe(error, str(path), of=ManipulatorConfig)) from error


def require_one_source(*, image: str, seed: int | None, latent: str) -> None:
    """Raise `InvalidConfig` unless exactly one picture to start from is given."""
    sources = {"--seed": seed is not None, "--image": image, "--latent": latent}
    given = [flag for flag, value in sources.items() if value]
    if len(given) != 1:
        raise InvalidConfig(
            f"one picture to start from is needed, got {' and '.join(given) or 'none'}. "
            "Give --seed N, --image PHOTO or --latent FILE."
        )


def open_source(uri: str) -> BinaryIO:
    """Open a path, a URI or ``-`` (stdin, read to its end), seekable. Raises `SourceNotFound`."""
    from soundguide.storage import Storage

    return io.BytesIO(_read_stdin()) if uri == STDIN else Storage().open(uri)


def read_source(uri: str, *, max_mib: int) -> bytes | None:
    """Return the bytes behind a path, a URI or ``-`` (stdin); None for an empty name. Raises `SourceNotFound`."""
    from soundguide.storage import Storage

    if not uri:
        return None
    return _read_stdin() if uri == STDIN else Storage().read_bytes(uri, max_bytes=max_mib * 2**20)


@contextmanager
def naming_files(files: Mapping[type[InvalidEdit], str]) -> Iterator[None]:
    """Put the name of the file before the message of an `InvalidEdit` about it; ``files``: names by kind of error."""
    try:
        yield
    except InvalidEdit as error:
        uri = files.get(type(error), "")
        if not uri:
            raise
        raise type(error)(f"{'standard input' if uri == STDIN else uri}: {error}") from error


def _read_stdin() -> bytes:
    if sys.stdin.isatty():
        raise SourceNotFound("the sound is '-', but nothing is piped in. Write: cat rain.wav | soundguide ... -")
    return sys.stdin.buffer.read()


def default_of(field: FieldInfo) -> str:
    """Return what help says of a field's values: the default, and the bounds where there are two; "" for no default."""
    if field.default == "":
        return ""
    low, high = (next((getattr(of, end) for of in field.metadata if hasattr(of, end)), None) for end in ("ge", "le"))
    bounds = "" if low is None or high is None else f" ({low} to {high})"
    shown = f"{field.default:g}" if isinstance(field.default, float) else field.default
    return f" Default: {shown}{bounds}."


def setting_option(name: str, *flags: str) -> OptionInfo:
    """Return an option for one field of `EditSettings`; help and default are the field's own."""
    field = EditSettings.model_fields[name]
    option: OptionInfo = typer.Option(
        *(flags or (f"--{name.replace('_', '-')}",)),
        help=f"{field.description}{default_of(field)}",
        show_default=False,
        rich_help_panel="Settings",
    )
    return option


def read_settings(named: dict[str, Any], pairs: list[str]) -> EditSettings:
    """Return the settings of options (None: not given) and of ``key=value`` pairs. Raises `InvalidSettings`."""
    values = {name: value for name, value in named.items() if value is not None}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidSettings(f"--set takes key=value, got {pair!r}. Write, for example, --set margin=0.3.")
        if key not in EditSettings.model_fields:
            words = (f"--set: there is no setting {key!r}.", did_you_mean(near_names(key, EditSettings.model_fields)))
            raise InvalidSettings(f"{' '.join(filter(None, words))} All are listed by: soundguide settings")
        if key in values:
            raise InvalidSettings(f"--set {pair}: {key} is given twice. Give it once.")
        values[key] = value
    return EditSettings().override(values)
