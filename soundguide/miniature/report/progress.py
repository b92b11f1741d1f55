"""A progress bar on a console while edits run, and how long each part took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from soundguide.miniature.report.figures import Json

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

Advance = Callable[[int], None]
"""Told the steps that all edits together have taken since it was last told."""


@contextmanager
def steps_shown(console: Console | None, doing: str, total: int) -> Iterator[Advance]:
    """Show a bar of ``total`` steps on a console, if there is one."""
    if console is None:
        yield lambda steps: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def timed(part: str, seconds: dict[str, Json]) -> Iterator[None]:
    """Put down how long a part took, seconds."""
    started = time.monotonic()
    yield
    seconds[part] = round(time.monotonic() - started, 1)
    logger.info("report: %s measured in %.1f s", part, seconds[part])
