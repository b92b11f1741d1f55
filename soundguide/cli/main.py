"""The program ``soundguide``: its commands, its version, its help."""

from typing import Annotated

import typer

from soundguide import __version__
from soundguide.cli import edit, film, listen, miniature, models, presets, replay, settings, status
from soundguide.cli.border import ErrorBorder, examples

app = typer.Typer(
    cls=ErrorBorder,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        ("let it rain over picture 7 of the miniature world", 'miniature synthesise "raining" -o rain.wav'),
        ("", "edit rain.wav --seed 7 -o rainy.png"),
        ("a film of it that follows a song", "film song.mp3 --seed 7 -o film.mp4"),
        ("what does the encoder hear?", "listen rain.wav"),
        ("each command teaches by example", "edit --help"),
    ),
)
edit.register(app)
film.register(app)
listen.register(app)
replay.register(app)
presets.register(app)
settings.register(app)
status.register(app)
app.add_typer(models.app, name="models")
app.add_typer(miniature.app, name="miniature")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"soundguide {__version__}")
        raise typer.Exit


@app.callback()
def soundguide(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Edit images with sound."""
