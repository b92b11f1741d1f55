"""``soundguide film``: one picture that lives through one song."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from soundguide.cli.border import examples
from soundguide.cli.inputs import (
    Audio,
    Models,
    Preset,
    default_of,
    load_config,
    model_option,
    naming_files,
    open_source,
    read_settings,
    read_source,
    require_one_source,
    setting_option,
)
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidAudio, InvalidConfig, InvalidImage, InvalidLatent, InvalidSettings
from soundguide.film.settings import FilmSettings
from soundguide.validation import describe

if TYPE_CHECKING:
    from typer.models import OptionInfo

    from soundguide.film.make import Film

_PANEL = "Film"
_EPILOG = examples(
    ("picture 28 lives through a song", "film song.mp3 --seed 28 -o film.mp4"),
    ("a photo of your own, livelier", "film song.flac --image beach.jpg --react 1.5 -o film.mp4"),
    ("only what the music means, nothing that twitches", "film song.mp3 --seed 28 --react 0 -o calm.mp4"),
    ("only the reaction: a random walk, as loud as the song", "film song.mp3 --seed 28 --semantic 0 -o pulse.mp4"),
    ("keep the key codes, and try another reaction", "film song.mp3 --seed 28 -o film.mp4 --keep"),
    ("", "film song.mp3 --seed 28 -o film.mp4 --keep --react 0.5"),
    ("for browsers without H.264", "film song.mp3 --seed 28 -o film.webm"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(film)


def _film_option(name: str) -> OptionInfo:
    field = FilmSettings.model_fields[name]
    option: OptionInfo = typer.Option(
        f"--{name.replace('_', '-')}",
        help=f"{field.description}{default_of(field)}",
        show_default=False,
        rich_help_panel=_PANEL,
    )
    return option


def film(
    song: Annotated[
        str, typer.Argument(show_default=False, help="Sound file of any length, s3:// URI, or - for stdin.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUT.mp4", help="Where the film is written: .mp4, .mov, .mkv, .webm."),
    ],
    image: Annotated[str, typer.Option(metavar="PHOTO", help="Film this photo.")] = "",
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Film the picture that the generator draws from N.")
    ] = None,
    latent: Annotated[str, typer.Option(metavar="FILE", help="Film the picture of this code (an edit's).")] = "",
    strip: Annotated[bool, typer.Option(help="Write a frame of every second on one page, OUT-strip.png.")] = True,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the key codes, in OUT.mp4.film, for another film.")
    ] = False,
    react: Annotated[float | None, _film_option("react")] = None,
    semantic: Annotated[float | None, _film_option("semantic")] = None,
    fps: Annotated[int | None, _film_option("fps")] = None,
    segment_seconds: Annotated[float | None, _film_option("segment_seconds")] = None,
    size: Annotated[int | None, _film_option("size")] = None,
    preset: Preset = "",
    models: Models = None,
    generator: Annotated[str | None, model_option("generator")] = None,
    image_text: Annotated[str | None, model_option("image_text")] = None,
    audio: Audio = None,
    identity: Annotated[str | None, model_option("identity")] = None,
    inverter: Annotated[str | None, model_option("inverter")] = None,
    text: Annotated[str | None, setting_option("text")] = None,
    mix: Annotated[float | None, setting_option("mix")] = None,
    mix_layers: Annotated[str | None, setting_option("mix_layers")] = None,
    steps: Annotated[int | None, setting_option("num_steps", "--steps")] = None,
    learning_rate: Annotated[float | None, setting_option("learning_rate")] = None,
    latent_space: Annotated[str | None, setting_option("latent_space")] = None,
    lambda_reg: Annotated[float | None, setting_option("lambda_reg")] = None,
    inversion_steps: Annotated[int | None, setting_option("inversion_steps")] = None,
    inversion_reg: Annotated[float | None, setting_option("inversion_reg")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other setting; may be repeated.", rich_help_panel="Settings"
        ),
    ] = None,
) -> None:
    """Make a film of a picture that changes as a song sounds: what it means, and how loud it is.

    Give one source: --image, --seed or --latent. A film that was stopped goes on by the same command.
    """
    named = {"text": text, "mix": mix, "mix_layers": mix_layers, "num_steps": steps, "learning_rate": learning_rate}
    named |= {"latent_space": latent_space, "lambda_reg": lambda_reg}
    named |= {"inversion_steps": inversion_steps, "inversion_reg": inversion_reg}
    others = {"generator": generator, "image_text": image_text, "identity": identity, "inverter": inverter}
    settings, config = read_settings(named, set_ or []), load_config(models, audio=audio, others=others)
    if preset:
        from soundguide.preset import apply_preset, load_preset

        settings, config = apply_preset(load_preset(preset), settings, config)
    require_one_source(image=image, seed=seed, latent=latent)
    given: dict[str, float | None] = {
        "fps": fps,
        "segment_seconds": segment_seconds,
        "react": react,
        "semantic": semantic,
        "size": size,
    }
    how = _film_settings(given)
    _require_place(output)
    _film(song, output, (image, seed, latent), settings, how, config, strip=strip, keep=keep)


def _film_settings(given: dict[str, float | None]) -> FilmSettings:
    from pydantic import ValidationError

    try:
        return FilmSettings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise InvalidSettings(describe(error, "film", of=FilmSettings)) from error


def _require_place(output: Path) -> None:
    from soundguide.film.encode import require_format

    if "://" in os.fspath(output) or ":/" in os.fspath(output):
        raise InvalidConfig(f"a film is written to a local file, got '{output}'. Name one, and copy it afterwards.")
    require_format(output.name)
    if output.is_dir():
        raise InvalidConfig(f"'{output}' is a folder. Name the film's file, such as '{output}/film{output.suffix}'.")


def _film(
    song: str,
    output: Path,
    source: tuple[str, int | None, str],
    settings: EditSettings,
    how: FilmSettings,
    config: ManipulatorConfig,
    *,
    strip: bool,
    keep: bool,
) -> None:
    """Check all input before any model is loaded; then load, film, write and tell."""
    from soundguide.cli.console import err
    from soundguide.images import encode_png
    from soundguide.latents import MAX_LATENT_MIB
    from soundguide.model_facts import read_model_facts
    from soundguide.stages import EditPreparer, SourceLimits
    from soundguide.storage import Storage

    image, seed, code = source
    photo = read_source(image, max_mib=SourceLimits().max_image_mib)
    latent = read_source(code, max_mib=MAX_LATENT_MIB)
    preparer = EditPreparer(read_model_facts(config))
    with open_source(song) as file, naming_files({InvalidAudio: song, InvalidImage: image, InvalidLatent: code}):
        prepared = preparer.check(output.stem, settings, seed=seed, photo=photo, latent=latent)
        _check_song(file)
        with err.status("loading the models"):
            from soundguide.cli.film_progress import film_with_progress
            from soundguide.manipulator import Manipulator

            # one search after the other: slots that are filled up with copies would only cost time
            alone = {"num_slots": config.num_slots or 2, "group_size": config.group_size or 1}
            manipulator = Manipulator(config.model_copy(update=alone))
        made = film_with_progress(manipulator, prepared, file, output, how, keep=keep)
    written = [os.fspath(output)]
    if strip:
        written.append(os.fspath(output.with_name(f"{output.stem}-strip.png")))
        Storage().write_bytes(written[-1], encode_png(made.page, metadata={}))
    _tell(made, written)


def _check_song(file: BinaryIO) -> None:
    """Look at the first sound of a song, so that what is none is told before models load. Raises `InvalidAudio`."""
    from soundguide.audio.decode import iter_audio
    from soundguide.film.segments import SONG_LIMITS

    next(iter_audio(file, sample_rate=16_000, block_seconds=1.0, limits=SONG_LIMITS), None)


def _tell(made: Film, written: list[str]) -> None:
    import math

    from rich.table import Table
    from rich.text import Text

    from soundguide.cli.console import out, warn
    from soundguide.cli.edit import OUT_OF_DOMAIN

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    minutes, seconds = divmod(made.seconds, 60)
    table.add_row("film", f"{int(minutes)}:{seconds:04.1f}, {made.num_frames} frames, {made.width} x {made.height} px")
    table.add_row("key codes", str(made.num_segments))
    if not math.isnan(made.inversion_error):
        table.add_row("likeness", f"inversion error {made.inversion_error:.3f} (mean, 0 to 1)")
    table.add_row("wrote", Text("\n".join(written)))
    out.print(table)
    if made.inversion_error > OUT_OF_DOMAIN:
        warn(
            f"the photo lies outside of what this generator can draw: inversion error {made.inversion_error:.3f}, "
            f"expected at most {OUT_OF_DOMAIN}. The film shows the nearest picture that it knows."
        )
