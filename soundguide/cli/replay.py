"""``soundguide replay``: one row of a bulk run again, from what the run says about itself."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from soundguide import __version__
from soundguide.cli.border import examples
from soundguide.errors import InvalidConfig
from soundguide.storage import Storage, escape_id

_EPILOG = examples(
    ("the picture of one row of the demo, again", "replay out/demo --id rain-loud -o again.png"),
    ("a run on S3", "replay s3://bucket/run/run.json --id 000017"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(epilog=_EPILOG)(replay)


def replay(
    run: Annotated[str, typer.Argument(help="Output folder of a bulk run, or its run.json; a path or s3:// URI.")],
    id: Annotated[str, typer.Option("--id", help="The row to make again.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT.png", help="Where it is written.", show_default="<id>.png")
    ] = "",
    device: Annotated[
        str, typer.Option(help="Another device than the run's: cpu, cuda.", show_default="the run's")
    ] = "",
) -> None:
    """Make one row's picture again: same sources, settings and models, so the same picture."""
    target = output or f"{escape_id(id)}.png"
    if not target.lower().endswith(".png"):
        raise InvalidConfig(
            f"--output writes PNG, got {target!r}. Name a file that ends in .png; soundguide film makes a film anew."
        )
    from soundguide.cli.console import err, out, tell_written
    from soundguide.images import encode_png
    from soundguide.replay import replay

    with err.status("editing again"):
        edited = replay(run, id, device=device)
    metadata = {"soundguide": json.dumps({"replay": run, "id": id, "version": __version__})}
    Storage().write_bytes(target, encode_png(edited.image, metadata=metadata))
    out.print(f"[dim]similarity[/]  {edited.similarity_before:.3f} → [bold]{edited.similarity_after:.3f}[/]")
    tell_written(target)
