"""One edit with a live progress bar per phase."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from soundguide.cli.console import err

if TYPE_CHECKING:
    from soundguide.manipulator import Manipulator
    from soundguide.records import ManipulatedEdit, PreparedEdit
    from soundguide.records import Progress as News

_PHASES = {"invert": "finding the photo", "edit": "editing"}


class _Bars:
    """A bar per phase, drawn from the news of one edit."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, news: News) -> None:
        """Move the phase's bar to the step that the news tells of."""
        if news.phase not in self._tasks:
            self.finish()
            self._tasks[news.phase] = self._progress.add_task(_PHASES[news.phase], total=news.num_steps, values="")
        values = f"loss {news.loss:.3f}"
        if news.phase == "edit":
            values += f"  similarity {news.margin - news.terms['guidance']:+.3f} of {news.margin:+.2f}"
        self._progress.update(self._tasks[news.phase], completed=news.step, values=values)

    def finish(self) -> None:
        """Fill all bars."""
        for task in self._progress.tasks:
            self._progress.update(task.id, completed=task.total)


def edit_with_progress(manipulator: Manipulator, edit: PreparedEdit) -> ManipulatedEdit:
    """Do one edit, showing each phase on stderr. Raises a child of `InvalidEdit` where it cannot be done."""
    from soundguide.slots import OnProgress

    columns = (
        TextColumn("{task.description:<17}", style="bold"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}", style="cyan"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=err) as progress:
        bars = _Bars(progress)
        edited = asyncio.run(manipulator.edit(edit, on_progress=OnProgress(1, bars.show, preview=False)))
        bars.finish()
    return edited
