"""What the commands print: results on stdout, everything about the work on stderr."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from soundguide.result_counts import ErrorKind

_NUM_ERRORS = 5
_LEAST_WIDTH = 120  # columns, where no terminal says how many it has


def wide(console: Console) -> Console:
    """Return the console, made wide enough for tables where it writes to a file or a pipe."""
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max(console.width, _LEAST_WIDTH)
    return console


out = wide(Console(highlight=False))
err = wide(Console(stderr=True, highlight=False))


def fail(message: str) -> None:
    """Tell what went wrong on stderr, unwrapped where nobody watches, so that it can be searched."""
    err.print(Text.assemble(("error: ", "bold red"), (message, "red")), soft_wrap=not err.is_terminal)


def warn(message: str) -> None:
    """Tell what the user should know, on stderr."""
    err.print(Text.assemble(("note: ", "bold yellow"), (message, "yellow")), soft_wrap=not err.is_terminal)


def listing(*headers: str) -> Table:
    """Return a table of things, the first column of which holds their names and is never cut."""
    table = Table(*headers, box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.columns[0].no_wrap = True
    return table


def add_errors(table: Table, kinds: Sequence[ErrorKind]) -> None:
    """Add a line with an example for each of the most common kinds of error, which come first."""
    for kind in kinds[:_NUM_ERRORS]:
        table.add_row(f"{kind.count:,} x {kind.kind}", Text(f"{kind.example_id!r}: {kind.example}", style="yellow"))


def tell_written(path: Path | str, about: str = "") -> None:
    """Tell on stdout what was written where."""
    # no markup: brackets in a path are its own
    out.print(Text.assemble(("wrote", "dim"), f"  {path}", (f"  {about}" if about else "", "dim")), soft_wrap=True)


def percent(probability: float) -> str:
    """Return a probability as a whole percentage; what is not 0 never reads as 0."""
    return "<1 %" if 0 < probability < 0.005 else f"{100 * probability:.0f} %"


def bar(share: float, *, width: int = 24) -> Text:
    """Return a bar ``width`` characters wide, of which ``share`` (0..1) is filled, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    filled = "█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")
    return Text(filled.ljust(width), style="cyan")
