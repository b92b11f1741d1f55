"""A film with a live progress bar for each of its phases, and a line for each segment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from soundguide.cli.console import err, percent

if TYPE_CHECKING:
    from soundguide.film.keys import Key
    from soundguide.film.make import Film
    from soundguide.film.render import Frames
    from soundguide.film.settings import FilmSettings
    from soundguide.manipulator import Manipulator
    from soundguide.records import PreparedEdit
    from soundguide.records import Progress as News

_PREVIEW_COLUMNS, _PREVIEW_SECONDS = 24, 10


class _Bars:
    """A bar for each phase, and above them a line for each segment; meets `soundguide.film.make.Watcher`."""

    def __init__(self, progress: Progress, manipulator: Manipulator, settings: FilmSettings) -> None:
        self._progress, self._manipulator, self._settings = progress, manipulator, settings
        self._task: TaskID | None = None
        self.num_keys = 0

    def start(self, phase: str, total: int) -> None:
        """Fill the bar of the phase before and begin another."""
        from soundguide.film.reaction import is_compiled

        self.finish()
        if phase == "measuring" and not is_compiled():
            self._progress.console.print("[dim]librosa's functions are compiled, once: up to a minute[/]")
        self._task = self._progress.add_task(phase, total=total or None, values="")

    def heard(self, until: float) -> None:
        """Show how far the song was heard."""
        self._update(_clock(until))

    def searching(self, progress: News) -> None:
        """Show where a search is."""
        if progress.phase == "invert":
            self._update(f"loss {progress.loss:.3f}", completed=progress.step)
        else:
            self._update(f"step {progress.step} of {progress.num_steps}")

    def found(self, key: Key) -> None:
        """Print what was heard in a segment, and what its key code came to."""
        self.num_keys += 1
        segment = key.segment
        words = [f"[dim]{_clock(segment.start)}[/]"]
        if segment.heard is None:
            words.append("silence")
        else:
            labels = self._manipulator.world.listener.top(segment.heard.embedding, 1)
            words += [f"{label} [cyan]{percent(share)}[/]" for label, share in labels]
            if key.similarity is not None:
                words.append(f"[dim]similarity[/] {key.similarity:.2f}")
        if key.kept:
            words.append("[dim](kept)[/]")
        self._progress.console.print("  ".join(words))
        self._update(completed=self.num_keys)

    def drawn(self, first: int, frames: Frames) -> None:
        """Move the bar; now and then print a line of the picture."""
        self._update(completed=first + len(frames))
        every = _PREVIEW_SECONDS * self._settings.fps
        due = -(-first // every) * every
        if due < first + len(frames) and self._progress.console.is_terminal:
            clock = Text(f"{_clock(due / self._settings.fps)}  ", style="dim")
            self._progress.console.print(clock + _line_of(frames[due - first]))

    def finish(self) -> None:
        """Fill the bar."""
        if self._task is not None:
            total = self._progress.tasks[-1].total
            self._progress.update(self._task, completed=total or 1, total=total or 1, values="")

    def _update(self, values: str = "", *, completed: float | None = None) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=completed, values=values)


def film_with_progress(
    manipulator: Manipulator,
    edit: PreparedEdit,
    song: BinaryIO,
    output: Path,
    settings: FilmSettings,
    *,
    keep: bool,
) -> Film:
    """Make a film, showing on stderr how it comes on. An interrupt tells how to go on. Raises as `make_film`."""
    from soundguide.film.make import make_film

    columns = (
        TextColumn("{task.description:<17}", style="bold"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}", style="cyan"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=err) as progress:
        bars = _Bars(progress, manipulator, settings)
        try:
            made = make_film(manipulator, edit, song, output, settings, keep=keep, watcher=bars)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{bars.num_keys} key codes are kept in {output}.film; the same command goes on from there."
            ) from None
        bars.finish()
    return made


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _line_of(pixels: Frames) -> Text:
    """Return a picture ``[H, W, 3]`` as one line of half blocks: its upper half above, its lower half below."""
    import numpy as np
    from PIL import Image

    small = np.asarray(Image.fromarray(pixels).resize((_PREVIEW_COLUMNS, 2), Image.Resampling.BOX))
    line = Text()
    for above, below in zip(small[0].tolist(), small[1].tolist(), strict=True):
        line.append("▀", style=f"rgb({','.join(map(str, above))}) on rgb({','.join(map(str, below))})")
    return line
