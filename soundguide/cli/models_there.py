"""``soundguide models list | info | verify``: what is there, what it is, and whether it works."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soundguide.cli.border import BAD_INPUT, examples
from soundguide.errors import InvalidCheckpoint, InvalidConfig

if TYPE_CHECKING:
    from rich.table import Table

    from soundguide.models.description import ModelDescription

ModelName = Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="An imported model's name, or a model folder.")]

_LIST = examples(("what is there?", "models list"), ("and where?", "models list --paths"))
_INFO = examples(("all that is known of a model", "models info ffhq"), ("for a program", "models info ffhq --json"))
_VERIFY = examples(
    ("its hash, every tensor, and one forward pass", "models verify ffhq"), ("all of them", "models verify --all")
)


def register(app: typer.Typer) -> None:
    """Add the commands to the group ``models``."""
    app.command("list", epilog=_LIST)(list_)
    app.command(epilog=_INFO)(info)
    app.command(epilog=_VERIFY)(verify)


def list_(paths: Annotated[bool, typer.Option("--paths", help="Say where each lies instead.")] = False) -> None:
    """List the imported models."""
    from rich.filesize import decimal
    from rich.text import Text

    from soundguide.cli.console import listing, out
    from soundguide.models.description import describe_model
    from soundguide.models.home import models_home, named_models

    found = named_models()
    if not found:
        out.print(
            f"no models in {models_home()} yet. Bring one: soundguide models import FILE -o NAME",
            markup=False,
            soft_wrap=True,
        )
        return
    if paths:
        for name, folder in found.items():
            out.print(Text.assemble((name, "cyan"), f"\t{folder}"), soft_wrap=True)
        return
    table = listing("name", "role", "kind", "size", "made of")
    for name, folder in found.items():
        try:
            told = describe_model(folder)
            row = [told.role or "?", told.kind, decimal(told.num_bytes), told.source or told.made_by]
        except InvalidCheckpoint:
            row = ["?", "[red]damaged[/]", "", f"see: soundguide models verify {name}"]
        table.add_row(f"[cyan]{name}[/]", *row)
    out.print(table)


def info(model: ModelName, json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Tell everything that a model's config says."""
    from soundguide.cli.console import out
    from soundguide.models.description import describe_model

    told = describe_model(folder_of(model))
    if json:
        out.print_json(data=told.as_json())
    else:
        out.print(described(told, everything=True))


def verify(
    model: Annotated[str, typer.Argument(metavar="[NAME|FOLDER]", show_default=False, help="A model.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="Every imported model.")] = False,
) -> None:
    """Check that models are whole and work; one line each, exit code 2 where one does not."""
    from soundguide.cli.console import err, fail, out
    from soundguide.models.home import named_models

    if bool(model) == all_:
        raise InvalidConfig(
            f"got {'a model and --all' if model else 'nothing to verify'}. Name a model, or give --all."
        )
    folders = named_models() if all_ else {model: folder_of(model)}
    failed = False
    for name, folder in folders.items():
        with err.status(f"verifying {name}"):
            from soundguide.models.verify import verify_model

            try:
                loaded = verify_model(folder)
            except InvalidCheckpoint as error:
                failed = True
                fail(f"{name}: {error}")
                continue
        out.print(f"[green]ok[/]  {name}  [dim]{loaded.config.kind}, SHA-256 {loaded.sha256}[/]", soft_wrap=True)
    if failed:
        raise typer.Exit(BAD_INPUT)


def folder_of(model: str) -> Path:
    """Return the folder of a name or path. Raises `InvalidCheckpoint`."""
    from soundguide.models.manifest import resolve_model

    if "://" in model or model == "miniature":
        raise InvalidConfig(
            f"{model!r:.120} is neither a name nor a local folder. Name an imported model, or its folder."
        )
    return resolve_model(model, "generator")  # of names and folders the role decides nothing


def described(told: ModelDescription, *, name: str = "", everything: bool = False) -> Table:
    """Return a table of what is to be told of a model: what decides its use, or everything."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    if name:
        table.add_row("name", f"[cyan]{name}[/]")
    for label, value in told.rows(everything=everything):
        table.add_row(label, Text(value))  # no markup: brackets in it are its own
    return table
