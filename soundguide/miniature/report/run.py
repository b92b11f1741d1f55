"""Measure the miniature against its targets, from fresh samples of a fixed seed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from soundguide import __version__
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidConfig
from soundguide.manipulator import Manipulator
from soundguide.miniature.labels import LABELS
from soundguide.miniature.reader import SceneReader
from soundguide.miniature.recordings import Recording, read_recordings
from soundguide.miniature.report import appearance, edits, generation, recognition
from soundguide.miniature.report.figures import PARTS, Findings, Json, Part, Report, assemble
from soundguide.miniature.report.held_out import Scenes, held_out_scenes
from soundguide.miniature.report.inversion import measure_inversion
from soundguide.miniature.report.judge import Judge, load_reader
from soundguide.models.manifest import resolve_model

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

logger = logging.getLogger(__name__)

RANDOM_MOVES = 4  # draws of the control for each edit


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is sampled: held-out scenes, how many of them inverted, clips of each label, the labels edited."""

    num_scenes: int = 2048
    num_inverted: int = 32
    clips_per_label: int = recognition.CLIPS_PER_LABEL
    labels: tuple[str, ...] = LABELS


def run_report(
    *,
    sources: int = 8,
    recordings: Path | None = None,
    seed: int = 0,
    settings: EditSettings | None = None,
    parts: Sequence[Part] = PARTS,
    manipulator: Manipulator | None = None,
    reader: SceneReader | None = None,
    amount: Amount | None = None,
    console: Console | None = None,
) -> Report:
    """Measure the parts of the report.

    ``sources``: scenes edited for each label; ``recordings``: a folder with ``index.csv``; ``seed`` chooses other
    samples; ``settings`` of the edits, the defaults unless given; ``manipulator`` and ``reader``: other models than the
    packaged ones; ``console`` shows progress. Must not be called from a running event loop.

    Raises `InvalidConfig` or `InvalidCheckpoint`.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or not parts or sources < 1 or seed < 0:
        raise InvalidConfig(
            f"report: got parts {list(parts)}, sources {sources}, seed {seed}. Choose parts among {', '.join(PARTS)}, "
            "at least one source, and a seed from 0 on."
        )
    real = None if recordings is None else read_recordings(recordings)
    if real is None and {"sound", "edits"} & set(parts):
        logger.warning("report: no recordings were given; the figures that need them are not measured (null in JSON)")
    manipulator = manipulator or Manipulator(ManipulatorConfig())
    reader = (reader or load_reader(resolve_model("miniature", "reader"))).to(manipulator.world.device)
    run = _Run(manipulator, reader, real, settings or EditSettings(), amount or Amount(), sources, seed, console)
    return run.report([part for part in PARTS if part in parts])


@dataclass(frozen=True, slots=True)
class _Run:
    manipulator: Manipulator
    reader: SceneReader
    recordings: list[Recording] | None
    settings: EditSettings
    amount: Amount
    sources: int
    seed: int
    console: Console | None

    def report(self, parts: Sequence[Part]) -> Report:
        findings: dict[Part, Findings] = {}
        outcomes: tuple[edits.Outcome, ...] = ()
        seconds: dict[str, Json] = {}
        scenes = self._scenes(parts)
        for part in parts:
            started = time.monotonic()
            match part:
                case "generator":
                    findings[part] = _joined(generation.measure_generator(scenes, self.reader), self._inversion(scenes))
                case "clip":
                    world = self.manipulator.world
                    findings[part] = generation.measure_clip(scenes, world.image_text, device=world.device)
                case "sound":
                    findings[part] = self._sound()
                case "edits":
                    findings[part], outcomes = self._edits(Judge.calibrated(self.reader, scenes))
            seconds[part] = round(time.monotonic() - started, 1)
            logger.info("report: %s measured in %.1f s", part, seconds[part])
        report = assemble(findings, recordings=self.recordings is not None, outcomes=outcomes)
        return Report(report.figures, {**report.details, "run": self._provenance(seconds)}, outcomes)

    def _scenes(self, parts: Sequence[Part]) -> Scenes:
        world = self.manipulator.world
        needed = {"generator", "clip", "edits"} & set(parts)
        rendered = bool({"generator", "clip"} & needed)
        num = self.amount.num_scenes if needed else 1
        return held_out_scenes(world.generator, num=num, seed=self.seed, device=world.device, rendered=rendered)

    def _inversion(self, scenes: Scenes) -> Findings:
        num = min(self.amount.num_inverted, len(scenes.rendered))
        with self._progress("inverting", num * self.settings.inversion_steps) as advance:
            return measure_inversion(self.manipulator, scenes, self.settings, num=num, advance=advance)

    def _sound(self) -> Findings:
        listener = recognition.listener_of(self.manipulator.world)
        found = recognition.measure_synthesised(listener, seed=self.seed, clips_per_label=self.amount.clips_per_label)
        if self.recordings is None:
            return found
        return _joined(found, recognition.measure_recordings(listener, self.recordings))

    def _edits(self, judge: Judge) -> tuple[Findings, tuple[edits.Outcome, ...]]:
        world, settings = self.manipulator.world, self.settings
        psi = settings.truncation_psi
        chosen = edits.choose_sources(
            world, judge, num=self.sources, seed=self.seed, truncation_psi=psi, labels=self.amount.labels
        )
        seconds = world.audio.num_samples / world.audio.sample_rate
        trials = edits.synthesised_trials(chosen, seconds=seconds, seed=self.seed)
        recorded = edits.recorded_trials(chosen, self.recordings or [])
        with self._progress("editing", (len(trials) + len(recorded)) * settings.num_steps) as advance:
            outcomes = edits.run_trials(self.manipulator, [*trials, *recorded], settings, advance)
        verdicts, judged = appearance.judge_edits(judge, outcomes[: len(trials)])
        moved = [self._seen_after_random_move(judge, verdicts, judged, draw=draw) for draw in range(RANDOM_MOVES)]
        found = appearance.measure_edits(verdicts, judged, moved=moved)
        if recorded:
            by_recordings = appearance.judge_edits(judge, outcomes[len(trials) :])
            found = _joined(found, appearance.measure_recorded_edits(*by_recordings))
        return found, tuple(outcomes[: len(trials)])

    def _seen_after_random_move(
        self, judge: Judge, verdicts: appearance.Verdicts, outcomes: Sequence[edits.Outcome], *, draw: int
    ) -> Tensor:
        """Return whether each edit's own label is seen after a random move of its length, ``[S]`` bool."""
        world = self.manipulator.world
        codes = edits.random_moves(world, outcomes, self.settings, seed=draw)
        present = judge.present(judge.read(edits.draw(world, codes)).logits)
        return present.gather(1, verdicts.own[:, None])[:, 0]

    def _progress(self, doing: str, total: int) -> AbstractContextManager[edits.Advance]:
        return nullcontext(lambda steps: None) if self.console is None else _Bar(self.console, doing, total)

    def _provenance(self, seconds: dict[str, Json]) -> dict[str, Json]:
        return {
            "seed": self.seed,
            "sources": self.sources,
            "num_scenes": self.amount.num_scenes,
            "settings": self.settings.model_dump(mode="json"),
            "models": {**self.manipulator.model_digests},
            "version": __version__,
            "seconds": seconds,
        }


class _Bar:
    """A progress bar on a console while edits run."""

    def __init__(self, console: Console, doing: str, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
        self._progress: Progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task(doing, total=total)

    def __enter__(self) -> edits.Advance:
        self._progress.start()
        return lambda steps: self._progress.advance(self._task, steps)

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


def _joined(first: Findings, second: Findings) -> Findings:
    return Findings(
        {**first.measured, **second.measured},
        {**first.details, **second.details},
        {**first.targets, **second.targets},
        {**first.worst, **second.worst},
    )
