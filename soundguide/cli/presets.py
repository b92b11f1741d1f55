"""``soundguide presets``: which there are, and whether this machine has their models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from soundguide.cli.border import examples

if TYPE_CHECKING:
    from soundguide.preset import Preset

_EPILOG = examples(
    ("which are there, and which can be used now?", "presets"),
    ("what one of them sets, and how to get what it lacks", "presets ffhq-1024"),
    ("then use it", "edit giggle.wav --preset ffhq-1024 --seed 3 -o out.png"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(presets)


def presets(
    name: Annotated[str, typer.Argument(show_default=False, help="Tell about this one; also a YAML file.")] = "",
) -> None:
    """List the presets: models and settings of one domain under one name."""
    from soundguide.preset import load_preset, preset_names

    if name:
        _tell(load_preset(name))
    else:
        _list([load_preset(each) for each in preset_names()])


def _list(found: list[Preset]) -> None:
    from soundguide.cli.console import listing, out
    from soundguide.preset import has_model

    table = listing("preset", "edits", "on this machine")
    for preset in found:
        missing = [name for name in preset.needs if not has_model(name)]
        state = f"[yellow]lacks {', '.join(missing)}[/]" if missing else "[green]complete[/]"
        table.add_row(f"[cyan]{preset.name}[/]", preset.description, state)
    out.print(table)


def _tell(preset: Preset) -> None:
    from rich.table import Table

    from soundguide.cli.console import out
    from soundguide.models.sources import how_to_get
    from soundguide.preset import has_model, named_models_of

    out.print(f"[cyan]{preset.name}[/]: {preset.description}")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    named = dict(named_models_of(preset.manipulator))
    for role, model in preset.manipulator.model_dump(exclude_unset=True).items():
        there = role not in named or has_model(model)
        table.add_row(role, str(model), "[green]is there[/]" if there else f"[yellow]{how_to_get(model)}[/]")
    for setting, value in preset.edit.model_dump(exclude_unset=True).items():
        table.add_row(setting, str(value), "")
    out.print(table)
