"""``soundguide models``: bring models of other projects, see what is there, check it, give it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soundguide.cli import models_there
from soundguide.cli.border import ErrorBorder, examples
from soundguide.cli.models_there import ModelName, described, folder_of
from soundguide.errors import InvalidConfig, OutputConflict

if TYPE_CHECKING:
    from soundguide.models.import_file import ImportedModel
    from soundguide.models.import_options import ImportOptions

app = typer.Typer(
    cls=ErrorBorder,
    no_args_is_help=True,
    help="Models of other projects: read without executing anything, kept under a name, used by it.",
    epilog=examples(
        ("bring a generator, and use it", "models import ffhq.pkl -o ffhq"),
        ("", "edit rain.wav --generator ffhq --seed 7 -o out.png"),
        ("what is there?", "models list"),
        ("does it work?", "models verify ffhq"),
    ),
)

models_there.register(app)

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Over a model that has this name.")]


@app.command(
    "import",
    epilog=examples(
        ("a generator of NVIDIA's, as it is published", "models import stylegan2-ffhq-1024x1024.pkl -o ffhq"),
        (
            "a file that brings two models: e4e-ffhq and e4e-ffhq-generator",
            "models import e4e_ffhq_encode.pt -o e4e-ffhq",
        ),
        ("a CLIP of open_clip", "models import open_clip_model.safetensors -o clip --architecture ViT-B-32-quickgelu"),
    ),
)
def import_(
    file: Annotated[Path, typer.Argument(help="The checkpoint, as its project publishes it.")],
    name: Annotated[str, typer.Option("--output", "-o", metavar="NAME", help="What to call it.")],
    kind: Annotated[str, typer.Option(help="What it is, where the file itself does not tell.")] = "",
    architecture: Annotated[
        str, typer.Option(metavar="ViT-B-32", help="Of a CLIP: the name that open_clip gives it.")
    ] = "",
    crop: Annotated[
        str,
        typer.Option(
            metavar="T,B,L,R",
            help="Of a generator: top, bottom, left and right of what is picture, pixels; the rest is padding.",
        ),
    ] = "",
    alignment: Annotated[
        str, typer.Option(metavar="ffhq", help="Of a generator of faces: how photos must lie, ffhq or none.")
    ] = "",
    detector: Annotated[
        str,
        typer.Option(metavar="FILE.onnx", help="Of a face encoder: insightface's detector, which finds faces for it."),
    ] = "",
    overwrite: Overwrite = False,
) -> None:
    """Make a checkpoint of another project a model of this one: safetensors and JSON."""
    from soundguide.models.import_options import read_options

    options = read_options(kind=kind, architecture=architecture, crop=crop, alignment=alignment, detector=detector)
    _import(file, name, options, overwrite=overwrite)


@app.command(
    epilog=examples(
        ("what a preset lacks, as `soundguide presets` tells", "models pull stylegan2-ffhq-1024"),
        ("what can be pulled?", "models pull"),
    )
)
def pull(
    name: Annotated[
        str, typer.Argument(show_default=False, help="A model that is known; without one, list them.")
    ] = "",
    overwrite: Overwrite = False,
) -> None:
    """Download a published model, and import it."""
    from soundguide.cli.console import out, warn
    from soundguide.models.sources import how_to_get, known_sources

    if not name:
        _list_sources()
        return
    source = known_sources().get(name)
    if source is None:
        raise InvalidConfig(f"no model {name!r:.120} is known here. There are {', '.join(known_sources())}.")
    if source.part_of:
        name, source = source.part_of, known_sources()[source.part_of]
    if not source.has_address:
        raise InvalidConfig(f"{name} has no address that a program may fetch. {how_to_get(name)}")
    from soundguide.models.download import fetch_file
    from soundguide.models.home import require_free

    require_free(name, overwrite=overwrite)  # before gigabytes are fetched
    out.print(f"[dim]{source.file} of {source.publisher}; licence: {source.licence}[/]")
    if not source.verified:
        warn("this address was copied from its publisher's pages, and has not been tried.")
    path = fetch_file(name, source)
    detector = str(path.with_name(source.options.detector)) if source.options.detector else ""
    _import(path, name, source.options.model_copy(update={"detector": detector}), overwrite=overwrite)


@app.command(
    epilog=examples(
        ("for programs that read rosinality's StyleGAN2", "models export ffhq -o ffhq.pt --layout rosinality")
    )
)
def export(
    model: ModelName,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.pt", help="Where it is written.")],
    layout: Annotated[str, typer.Option(help="The layout; there is one, rosinality's for StyleGAN2.")] = "rosinality",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Over a file that is there.")] = False,
) -> None:
    """Write a generator in the layout of another project."""
    if layout != "rosinality":
        raise InvalidConfig(f"--layout is {layout!r:.80}, and there is rosinality alone. Leave it out.")
    if output.exists() and not overwrite:
        raise OutputConflict(f"{output} is there already. Name another file, or give --overwrite.")
    folder = folder_of(model)
    from rich.filesize import decimal

    from soundguide.cli.console import err, tell_written
    from soundguide.models.checkpoint import load_model
    from soundguide.models.stylegan2 import StyleGAN2

    with err.status("writing"):
        loaded = load_model(folder, device="cpu")
        if not isinstance(loaded.module, StyleGAN2):
            raise InvalidConfig(f"{model} is of kind {loaded.config.kind}, and the layout is of StyleGAN2 alone.")
        from soundguide.foreign.rosinality import write_rosinality

        write_rosinality(loaded.module, output)
    tell_written(output, decimal(output.stat().st_size))


def _import(file: Path, name: str, options: ImportOptions, *, overwrite: bool) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from soundguide.cli.console import err, out
    from soundguide.models.description import describe_model
    from soundguide.models.import_file import import_file

    columns = (TextColumn("{task.description:<17}", style="bold"), BarColumn(bar_width=28), DownloadColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        size = file.stat().st_size if file.is_file() else None
        task = progress.add_task("reading", total=size)

        def show(num_bytes: int) -> None:
            progress.update(task, advance=num_bytes)

        made = import_file(file, name, options, overwrite=overwrite, on_bytes=show)
    if len(made) > 1:
        out.print(f"{file.name} holds {len(made)} models: {', '.join(each.name for each in made)}", markup=False)
    for each in made:
        out.print(described(describe_model(each.folder), name=each.name))
    out.print(f"use it: [green]{_line(made)}[/]", soft_wrap=True)


def _line(made: list[ImportedModel]) -> str:
    """Return the command line that uses the models of a file; in capitals what they need beside them."""
    flags = {"generator": "--generator", "image_text": "--image-text", "audio": "--audio-encoder"}
    flags |= {"identity": "--identity", "inverter": "--inverter"}
    needs = {"audio": ("image_text", "CLIP"), "image_text": ("audio", "SOUNDS"), "inverter": ("generator", "GENERATOR")}
    named = {str(each.role): each.name for each in made}
    source = "--image photo.png" if "inverter" in named else "--seed 7"
    for role in [*named]:
        other, placeholder = needs.get(role, (role, ""))
        named.setdefault(other, placeholder)
    words = [f"{flags[role]} {name}" for role, name in named.items()]
    words += ["--set lambda_id=0.004"] if "identity" in named else []
    return f"soundguide edit rain.wav {source} {' '.join(words)} -o out.png"


def _list_sources() -> None:
    from soundguide.cli.console import listing, out
    from soundguide.models.sources import known_sources

    table = listing("name", "role", "licence")
    table.add_column("published", overflow="fold")
    for name, source in known_sources().items():
        by_hand = "" if source.has_address else " [dim](by hand)[/]"
        table.add_row(f"[cyan]{name}[/]", source.role, source.licence, f"{source.page}{by_hand}")
    out.print(table)
