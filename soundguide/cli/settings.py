"""``soundguide settings``: every setting of an edit, with its default and what it does."""

from typing import Annotated

import typer

from soundguide.cli.border import examples

_EPILOG = examples(
    ("what can be set?", "settings"),
    ("then set it", "edit rain.wav --seed 7 -o out.png --set num_views=4 --set margin=0.3"),
    ("for a program", "settings --json"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(settings)


def settings(json: Annotated[bool, typer.Option("--json", help="Print the JSON schema instead.")] = False) -> None:
    """List the settings of an edit: what each does, and its default."""
    from soundguide.cli.console import listing, out
    from soundguide.config import EditSettings

    if json:
        out.print_json(data=EditSettings.model_json_schema())
        return
    table = listing("setting", "default", "meaning")
    for name, field in EditSettings.model_fields.items():
        shown = repr(field.default) if isinstance(field.default, str) else str(field.default)
        table.add_row(f"[cyan]{name}[/]", shown, field.description)
    out.print(table)
