"""``soundguide miniature report``: what the bundled models reach, beside what they must reach."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from soundguide.cli.border import UNMET, examples
from soundguide.cli.inputs import Audio, Models, load_config
from soundguide.errors import InvalidConfig

if TYPE_CHECKING:
    from soundguide.miniature.report import Part

_EPILOG = examples(
    ("everything, in some minutes", "miniature report"),
    ("for a program; exit code 3 where a target is missed", "miniature report --json --strict > report.json"),
    ("with real recordings too", "miniature report --recordings sounds/"),
    ("generator and CLIP alone, in seconds", "miniature report --parts generator,clip"),
    ("look at the edits, not at the numbers", "miniature report --parts edits --sources 4 --sheet edits.png"),
    ("faces alone, with and without the identity term", "miniature report --parts faces --sheet faces.png"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command(epilog=_EPILOG)(report)


def report(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    sources: Annotated[
        int, typer.Option(min=1, help="Pictures that each label's sounds edit, landscapes and faces.")
    ] = 8,
    recordings: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Real recordings, a folder with index.csv; else null figures."),
    ] = None,
    parts: Annotated[
        str, typer.Option(metavar="A,B", help="Only these parts: generator, clip, sound, edits, faces. Default: all.")
    ] = "",
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write a contact sheet of the edits and the faces, for the eye."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with {UNMET} if a target is missed or not measured.")
    ] = False,
    models: Models = None,
    audio: Audio = None,
) -> None:
    """Measure the bundled models on fresh samples and print each figure beside its target.

    The parts generator, clip, sound and edits are of landscapes; --models and --audio-encoder name other models for
    them. The part faces measures all of the second world, always with its own bundled models.
    """
    from soundguide.cli.console import err, out
    from soundguide.cli.training import log_progress
    from soundguide.manipulator import Manipulator
    from soundguide.miniature.report import run_report, with_face_models

    chosen = _parts(parts)
    if sheet is not None and not {"edits", "faces"} & set(chosen):
        raise InvalidConfig("--sheet shows edits, and --parts leaves them out. Add edits or faces to --parts.")
    log_progress()
    config = load_config(models, audio=audio)
    with err.status("loading the models"):
        landscapes = None if chosen == ("faces",) else Manipulator(config)
        faces = Manipulator(with_face_models(config)) if "faces" in chosen else None
    found = run_report(
        sources=sources,
        recordings=recordings,
        parts=chosen,
        manipulator=landscapes,
        face_manipulator=faces,
        console=err,
    )
    if sheet is not None:
        found.contact_sheet(sheet)
    if json:
        typer.echo(found.to_json())
    else:
        out.print(found.to_table())
    if strict and not found.met:
        raise typer.Exit(UNMET)


def _parts(names: str) -> tuple[Part, ...]:
    from soundguide.miniature.report import PARTS

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        raise InvalidConfig(f"--parts: {', '.join(unknown)} unknown. Choose from {', '.join(PARTS)}.")
    return tuple(name for name in PARTS if not wanted or name in wanted)
