"""``soundguide miniature train``: the command that remakes each model of the miniature."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from soundguide.cli.border import ErrorBorder, examples
from soundguide.models.manifest import MINIATURE, Role, resolve_model

if TYPE_CHECKING:
    from torch import nn

    from soundguide.miniature.recipes import Recipe

_STATES = Path("out/training")

app = typer.Typer(
    cls=ErrorBorder,
    no_args_is_help=True,
    help="Remake a model of the miniature. Order: generator, image-text, audio, and identity of faces; the reader "
    "needs no other. A training that was stopped goes on where it saved last: give the same --folder again.",
    epilog=examples(
        ("all four, one after the other", "miniature train generator"),
        ("", "miniature train image-text"),
        ("", "miniature train audio --recordings sounds/"),
        ("", "miniature train reader"),
    ),
)

Folder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Resumable state.", show_default=f"{_STATES}/<role>, or /<world>/<role>"),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Length of the whole training.", show_default="as published")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the model is saved, over what is there.", show_default="the package's own"),
]
WorldName = Literal["landscape", "faces"]
World = Annotated[WorldName, typer.Option(help="Which of the miniature's worlds.")]
Generator = Annotated[
    str,
    typer.Option(metavar="DIR", help="The generator whose pictures are learned too.", show_default="the package's own"),
]
ImageText = Annotated[
    str,
    typer.Option(
        metavar="DIR", help="The encoder into whose space sounds are taught.", show_default="the package's own"
    ),
]
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
        ("of faces", "miniature train generator --world faces"),
    )
)
def generator(folder: Folder = None, steps: Steps = None, out: Out = None, world: World = "landscape") -> None:
    """Train the generator: pictures from latents, by regression on the renderer."""
    log_progress()
    from soundguide.miniature.recipes import recipe_of
    from soundguide.miniature.train_generator import train_generator

    recipe = recipe_of(world)
    num_steps = steps or recipe.steps["generator"]
    state = _state(folder, world, "generator")
    model = train_generator(state, domain=recipe.domain, config=recipe.generator, num_steps=num_steps)
    _save(model, recipe, "generator", out, "generator", steps=steps)


@app.command(
    "image-text",
    epilog=examples(
        ("as published", "miniature train image-text"),
        ("for another generator", "miniature train image-text --generator /tmp/generator --out /tmp/clip"),
    ),
)
def image_text(
    folder: Folder = None,
    steps: Steps = None,
    out: Out = None,
    generator: Generator = "",
    world: World = "landscape",
) -> None:
    """Train the small CLIP: pictures of renderer and generator with captions that are true of them."""
    log_progress()
    from soundguide.miniature.models import load_generator
    from soundguide.miniature.recipes import recipe_of
    from soundguide.miniature.train_image_text import train_image_text

    recipe = recipe_of(world)
    model = train_image_text(
        _state(folder, world, "image_text"),
        load_generator(generator or recipe.domain.name),
        domain=recipe.domain,
        config=recipe.image_text,
        num_steps=steps or recipe.steps["image_text"],
    )
    _save(model, recipe, "image_text", out, "image-text", steps=steps)


@app.command(
    epilog=examples(
        ("as published", "miniature train reader"),
        ("stopped? The same command goes on", "miniature train reader --folder out/training/reader"),
    )
)
def reader(folder: Folder = None, steps: Steps = None, out: Out = None, world: World = "landscape") -> None:
    """Train the scene reader: the independent judge, which never guides an edit."""
    log_progress()
    from soundguide.miniature.reader import train_reader
    from soundguide.miniature.recipes import recipe_of

    recipe = recipe_of(world)
    num_steps = steps or recipe.steps["reader"]
    model = train_reader(_state(folder, world, "reader"), domain=recipe.domain, num_steps=num_steps)
    _save(model, recipe, "reader", out, "reader", steps=steps)


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
    image_text: ImageText = "",
    world: World = "landscape",
) -> None:
    """Train the sound encoder into the small CLIP's space."""
    log_progress()
    from soundguide.miniature.models import load_image_text
    from soundguide.miniature.recipes import recipe_of
    from soundguide.miniature.train_audio import train_audio

    recipe = recipe_of(world)
    model = train_audio(
        _state(folder, world, "audio"),
        load_image_text(image_text or recipe.domain.name),
        domain=recipe.domain,
        config=recipe.audio,
        num_clips=recipe.num_clips,
        recordings=recordings,
        num_steps=steps or recipe.steps["audio"],
    )
    # the folder's name on this machine is nobody's business: the command names the option alone
    _save(model, recipe, "audio", out, "audio" if recordings is None else "audio --recordings DIR", steps=steps)


@app.command(epilog=examples(("after the faces' generator", "miniature train identity")))
def identity(folder: Folder = None, steps: Steps = None, out: Out = None, generator: Generator = "") -> None:
    """Train the face world's ArcFace, which ignores expressions; it is saved by way of ONNX, as users' own are."""
    log_progress()
    from soundguide.miniature.faces.arcface_file import save_identity
    from soundguide.miniature.faces.train_identity import train_identity
    from soundguide.miniature.models import load_generator
    from soundguide.miniature.recipes import FACES_RECIPE

    name = FACES_RECIPE.domain.name
    num_steps = steps or FACES_RECIPE.steps["identity"]
    model = train_identity(_state(folder, "faces", "identity"), load_generator(generator or name), num_steps=num_steps)
    target = out or resolve_model(name, "identity")
    _tell(target, save_identity(target, model, made_by=_made_by("identity", steps)))


def _state(folder: Path | None, world: WorldName, role: Role) -> Path:
    return folder or (_STATES / role if world == "landscape" else _STATES / world / role)


def _save(
    model: nn.Module, recipe: Recipe, role: Role, folder: Path | None, command: str, *, steps: int | None
) -> None:
    from soundguide.miniature.models import save_role

    target = folder or resolve_model(recipe.domain.name, role)
    world = "" if recipe.domain.name == MINIATURE else " --world faces"
    made_by = _made_by(f"{command}{world}", steps)
    _tell(target, save_role(target, model, made_by=made_by, labels=recipe.domain.labels))


def _made_by(command: str, steps: int | None) -> str:
    return f"soundguide miniature train {command}{'' if steps is None else f' --steps {steps}'}"


def _tell(target: Path, digest: str) -> None:
    from soundguide.cli.console import tell_written

    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    tell_written(target, f"{size:.1f} MB, SHA-256 {digest[:16]}…")


def log_progress() -> None:
    """Show the library's log on stderr."""
    from rich.logging import RichHandler

    from soundguide.cli.console import err

    handler = RichHandler(console=err, show_path=False, log_time_format="%H:%M:%S")
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
