"""``soundguide miniature train``: the command that remakes each model of the miniature."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soundguide.cli.border import ErrorBorder, examples
from soundguide.models.manifest import MINIATURE, Role, resolve_model

if TYPE_CHECKING:
    from torch import nn

_STATES = Path("out/training")

app = typer.Typer(
    cls=ErrorBorder,
    no_args_is_help=True,
    help="Remake a model of the miniature. Order: generator, image-text, audio; the reader needs no other. A training "
    "that was stopped goes on where it saved last: give the same --folder again.",
    epilog=examples(
        ("all four, one after the other", "miniature train generator"),
        ("", "miniature train image-text"),
        ("", "miniature train audio --recordings sounds/"),
        ("", "miniature train reader"),
    ),
)

Folder = Annotated[Path | None, typer.Option(metavar="DIR", help="Resumable state.", show_default=f"{_STATES}/<role>")]
Steps = Annotated[int | None, typer.Option(min=1, help="Length of the whole training.", show_default="as published")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the model is saved, over what is there.", show_default="the package's own"),
]
Generator = Annotated[str, typer.Option(metavar="DIR", help="The generator whose pictures are learned too.")]
ImageText = Annotated[str, typer.Option(metavar="DIR", help="The encoder into whose space sounds are taught.")]
Recordings = Annotated[
    Path | None,
    typer.Option(
        exists=True, file_okay=False, help="Real recordings beside the synthesised ones: a folder with index.csv."
    ),
]


@app.command(
    epilog=examples(
        ("as published: half an hour on two cores", "miniature train generator"),
        ("a quick look at how it learns", "miniature train generator --steps 500 --out /tmp/generator"),
    )
)
def generator(folder: Folder = None, steps: Steps = None, out: Out = None) -> None:
    """Train the generator: scenes from latents, by regression on the renderer."""
    log_progress()
    from soundguide.miniature.train_generator import train_generator

    state = _state(folder, "generator")
    model = train_generator(state) if steps is None else train_generator(state, num_steps=steps)
    _save(model, "generator", out, "generator", steps=steps)


@app.command(
    "image-text",
    epilog=examples(
        ("as published", "miniature train image-text"),
        ("for another generator", "miniature train image-text --generator /tmp/generator --out /tmp/clip"),
    ),
)
def image_text(folder: Folder = None, steps: Steps = None, out: Out = None, generator: Generator = MINIATURE) -> None:
    """Train the small CLIP: pictures of renderer and generator with captions that are true of them."""
    log_progress()
    from soundguide.miniature.models import load_generator
    from soundguide.miniature.train_image_text import train_image_text

    state, drawn_by = _state(folder, "image_text"), load_generator(generator)
    model = train_image_text(state, drawn_by) if steps is None else train_image_text(state, drawn_by, num_steps=steps)
    _save(model, "image_text", out, "image-text", steps=steps)


@app.command(
    epilog=examples(
        ("as published", "miniature train reader"),
        ("stopped? The same command goes on", "miniature train reader --folder out/training/reader"),
    )
)
def reader(folder: Folder = None, steps: Steps = None, out: Out = None) -> None:
    """Train the scene reader: the independent judge, which never guides an edit."""
    log_progress()
    from soundguide.miniature.reader import train_reader

    state = _state(folder, "reader")
    model = train_reader(state) if steps is None else train_reader(state, num_steps=steps)
    _save(model, "reader", out, "reader", steps=steps)


@app.command(
    epilog=examples(
        ("as published", "miniature train audio --recordings sounds/"),
        ("on synthesised sounds alone", "miniature train audio --out /tmp/audio"),
    )
)
def audio(
    folder: Folder = None,
    steps: Steps = None,
    out: Out = None,
    recordings: Recordings = None,
    image_text: ImageText = MINIATURE,
) -> None:
    """Train the sound encoder into the small CLIP's space."""
    log_progress()
    from soundguide.miniature.models import load_image_text
    from soundguide.miniature.train_audio import train_audio

    state, space = _state(folder, "audio"), load_image_text(image_text)
    if steps is None:
        model = train_audio(state, space, recordings=recordings)
    else:
        model = train_audio(state, space, recordings=recordings, num_steps=steps)
    # the folder's name on this machine is nobody's business: the command names the option alone
    _save(model, "audio", out, "audio" if recordings is None else "audio --recordings DIR", steps=steps)


def _state(folder: Path | None, role: Role) -> Path:
    return folder or _STATES / role


def _save(model: nn.Module, role: Role, folder: Path | None, command: str, *, steps: int | None) -> None:
    from soundguide.cli.console import out
    from soundguide.miniature.models import save_role

    target = folder or resolve_model(MINIATURE, role)
    length = "" if steps is None else f" --steps {steps}"
    digest = save_role(target, model, made_by=f"soundguide miniature train {command}{length}")
    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    out.print(f"[dim]wrote[/]  {target}  [dim]{size:.1f} MB, SHA-256 {digest[:16]}…[/]")


def log_progress() -> None:
    """Show the library's log on stderr."""
    from rich.logging import RichHandler

    from soundguide.cli.console import err

    handler = RichHandler(console=err, show_path=False, log_time_format="%H:%M:%S")
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
