"""The figures that the miniature must reach, and the report of them: as JSON for programs and as a table for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from soundguide.errors import InvalidConfig

if TYPE_CHECKING:
    from rich.table import Table

    from soundguide.miniature.report.edits import Outcome
    from soundguide.miniature.report.faces import FaceEdit

Part = Literal["generator", "clip", "sound", "edits", "faces"]
Direction = Literal["at least", "at most", "between"]
Target = float | tuple[float, float]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

PARTS: tuple[Part, ...] = ("generator", "clip", "sound", "edits", "faces")


@dataclass(frozen=True, slots=True)
class Goal:
    """What one figure must reach, one bound or two; ``meaning`` says what is measured."""

    part: Part
    direction: Direction
    target: Target
    meaning: str
    needs_recordings: bool = False


GOALS: dict[str, Goal] = {
    "generator_error": Goal("generator", "at most", 0.05, "mean absolute error against the renderer, 0..1"),
    "generator_event_error": Goal("generator", "at most", 0.12, "the same inside the masks of the events"),
    "generator_gradient_energy": Goal(
        "generator", "between", (0.8, 1.2), "gradient energy, as a share of the renderer's"
    ),
    "generator_event_auc_min": Goal(
        "generator", "at least", 0.90, "AUC of the reader on generated scenes, worst label"
    ),
    "generator_event_auc_mean": Goal("generator", "at least", 0.95, "AUC of the reader on generated scenes, mean"),
    "inversion_error": Goal("generator", "at most", 0.04, "mean absolute error of inverted held-out renders, 0..1"),
    "clip_auc_renders": Goal("clip", "at least", 0.97, "AUC of class-name captions on renders, mean"),
    "clip_auc_generated": Goal("clip", "at least", 0.95, "AUC of class-name captions on generated scenes, mean"),
    "sound_top1_synthesised": Goal("sound", "at least", 0.85, "zero-shot top-1 on held-out synthesised sounds"),
    "sound_labels_right_recordings": Goal(
        "sound", "at least", 5.0, "zero-shot on recordings by vote: labels right (macro)", needs_recordings=True
    ),
    "edit_appeared": Goal("edits", "at least", 0.75, "the event appeared, all edits by sound alone"),
    "edit_appeared_worst": Goal("edits", "at least", 0.50, "the event appeared, worst label"),
    "edit_largest_rise": Goal("edits", "at least", 0.60, "the event is the largest rise of all labels"),
    "edit_drift": Goal("edits", "at most", 0.08, "drift of the factors that the sound does not speak of"),
    "edit_other_events": Goal("edits", "at most", 0.10, "other events newly appearing, of all (edit, other event)"),
    "control_random_move": Goal("edits", "at most", 0.10, "the event appeared after a random move of the same length"),
    "control_other_sound": Goal("edits", "at most", 0.10, "the event appeared under another event's sound"),
    "edit_appeared_recordings": Goal(
        "edits", "at least", 0.55, "the event appeared by a recording of it, mean over labels", needs_recordings=True
    ),
    "face_generator_error": Goal("faces", "at most", 0.05, "mean absolute error against the renderer of faces, 0..1"),
    "face_clip_auc_generated": Goal("faces", "at least", 0.95, "AUC of class-name captions on generated faces, mean"),
    "face_sound_top1": Goal("faces", "at least", 0.85, "zero-shot top-1 on held-out synthesised voices"),
    "face_expression_appeared": Goal("faces", "at least", 0.75, "the expression appeared, all edits with lambda_id"),
    "face_expression_appeared_worst": Goal("faces", "at least", 0.50, "the expression appeared, worst expression"),
    "face_largest_rise": Goal("faces", "at least", 0.60, "the expression is the largest rise of all expressions"),
    "face_identity_gain": Goal("faces", "at least", 0.10, "identity similarity with lambda_id, less that without"),
    "face_glasses_drift": Goal("faces", "at most", 0.08, "drift of the glasses in edits with lambda_id"),
    "face_hair_drift": Goal("faces", "at most", 0.08, "drift of the hair in edits with lambda_id"),
}
"""Every figure of the report, in the order in which it is shown."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure beside its target; ``measured`` is None where it could not be measured, which never meets a target."""

    name: str
    measured: float | None
    target: Target
    direction: Direction
    detail: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure reaches its target."""
        if self.measured is None or not math.isfinite(self.measured):
            return False
        low, high = self.target if isinstance(self.target, tuple) else (self.target, self.target)
        match self.direction:
            case "at least":
                return self.measured >= low
            case "at most":
                return self.measured <= high
            case "between":
                return low <= self.measured <= high

    def to_json(self) -> dict[str, Json]:
        """Return ``{"measured", "target", "met"}``; a target of two bounds is a list."""
        measured = self.measured if self.measured is not None and math.isfinite(self.measured) else None
        target: Json = list(self.target) if isinstance(self.target, tuple) else self.target
        return {"measured": measured, "target": target, "met": self.met}


@dataclass(frozen=True, slots=True)
class Findings:
    """What one part of the report found: figures by name, and what lies behind them.

    ``targets`` replaces the bound of a goal that depends on the data at hand; ``worst`` names the label that the figure
    of a worst label speaks of.
    """

    measured: Mapping[str, float]
    details: Mapping[str, Json] = field(default_factory=dict)
    targets: Mapping[str, Target] = field(default_factory=dict)
    worst: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: Findings) -> Findings:
        """Return both, as one part's."""
        return Findings(
            {**self.measured, **other.measured},
            {**self.details, **other.details},
            {**self.targets, **other.targets},
            {**self.worst, **other.worst},
        )


@dataclass(frozen=True, slots=True)
class Report:
    """All figures, in order; details by part; the edits themselves, of landscapes and of faces, for the eye."""

    figures: tuple[Figure, ...]
    details: Mapping[str, Json] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    faces: tuple[FaceEdit, ...] = ()

    @property
    def met(self) -> bool:
        """Whether every figure reaches its target; one that was not measured does not."""
        return all(figure.met for figure in self.figures)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the figures that were not measured."""
        return tuple(figure.name for figure in self.figures if figure.measured is None)

    def to_json(self) -> str:
        """Return one JSON object: each figure under its name, ``met`` for all of them, and ``details``."""
        figures = {figure.name: figure.to_json() for figure in self.figures}
        return json.dumps({"met": self.met, **figures, "details": finite(dict(self.details))}, indent=2)

    def to_table(self) -> Table:
        """Return the figures beside their targets as a Rich table; what is missing is said below it."""
        from rich.table import Table

        missing = "; ".join(f"{figure.name}: {figure.detail}" for figure in self.figures if figure.measured is None)
        caption = f"[yellow]not measured: {missing}[/]" if missing else None
        table = Table(title=self._verdict(), caption=caption)
        table.add_column("figure", no_wrap=True)
        for name in ("measured", "target", "met", "what it is"):
            table.add_column(name)
        for figure in self.figures:
            if figure.measured is None:
                cells = ("-", _describe(figure), "[yellow]not measured[/]", GOALS[figure.name].meaning)
            else:
                mark = "[green]yes[/]" if figure.met else "[bold red]no[/]"
                cells = (f"{figure.measured:.3f}", _describe(figure), mark, figure.detail)
            table.add_row(figure.name, *cells)
        return table

    def _verdict(self) -> str:
        if self.met:
            return "the miniature meets its targets"
        if all(figure.met for figure in self.figures if figure.measured is not None):
            return "the miniature meets the targets that were measured"
        return "the miniature does not meet all its targets"

    def contact_sheet(self, path: Path) -> None:
        """Write the edits by synthesised sound as a PNG: rows are labels, columns pairs of source and edit.

        Of faces source, edit without and edit with the identity term.
        """
        from soundguide.miniature.report.contact import write_contact_sheet

        if not self.outcomes and not self.faces:
            raise InvalidConfig(
                "a contact sheet shows edits, and none were made. Run the report with its part 'edits' or 'faces'."
            )
        write_contact_sheet(self.outcomes, self.faces, path)


def assemble(
    findings: Mapping[Part, Findings],
    *,
    recordings: bool,
    outcomes: tuple[Outcome, ...] = (),
    faces: tuple[FaceEdit, ...] = (),
) -> Report:
    """Return the report of the parts that ran; the figures of the others, or of absent recordings, are null."""
    figures = []
    for name, goal in GOALS.items():
        found = findings.get(goal.part)
        measured = None if found is None else found.measured.get(name)
        target = goal.target if found is None else found.targets.get(name, goal.target)
        if found is None or measured is None:
            detail = _why_missing(goal, findings, recordings)
        else:
            detail = f"{goal.meaning}: {found.worst[name]}" if name in found.worst else goal.meaning
        figures.append(Figure(name, measured, target, goal.direction, detail))
    return Report(tuple(figures), {part: dict(found.details) for part, found in findings.items()}, outcomes, faces)


def finite(value: Json) -> Json:
    """Return ``value`` with None in place of numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _why_missing(goal: Goal, findings: Mapping[Part, Findings], recordings: bool) -> str:
    if goal.part not in findings:
        return f"the part {goal.part!r} was not run"
    return "no recordings were given" if goal.needs_recordings and not recordings else "nothing to measure it on"


def _describe(figure: Figure) -> str:
    if isinstance(figure.target, tuple):
        return f"{figure.target[0]:g} to {figure.target[1]:g}"
    return f"{'>=' if figure.direction == 'at least' else '<='} {figure.target:.3g}"
