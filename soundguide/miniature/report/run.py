"""Measure the miniature against its targets, from fresh samples of a fixed seed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soundguide import __version__
from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidConfig
from soundguide.manipulator import Manipulator
from soundguide.miniature.faces.domain import FACES
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.reader import SceneReader
from soundguide.miniature.recordings import read_recordings
from soundguide.miniature.report.edits import Outcome
from soundguide.miniature.report.faces import FaceEdit, measure_faces, with_face_models
from soundguide.miniature.report.figures import PARTS, Findings, Json, Part, Report, assemble
from soundguide.miniature.report.landscapes import Landscapes
from soundguide.miniature.report.progress import timed
from soundguide.miniature.report.study import Amount, Study

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)


def run_report(
    *,
    sources: int = 8,
    recordings: Path | None = None,
    seed: int = 0,
    settings: EditSettings | None = None,
    parts: Sequence[Part] = PARTS,
    manipulator: Manipulator | None = None,
    reader: SceneReader | None = None,
    face_manipulator: Manipulator | None = None,
    face_reader: SceneReader | None = None,
    amount: Amount | None = None,
    console: Console | None = None,
) -> Report:
    """Measure the parts of the report.

    ``sources``: pictures edited for each label; ``recordings``: a folder with ``index.csv``; ``seed`` chooses other
    samples; ``settings`` of the edits, the defaults unless given; a ``lambda_id`` above 0 among them is that of the
    edits that keep a face, `faces.FACE_SETTINGS` unless given. ``manipulator`` and ``reader``: other models of
    landscapes than the packaged ones, ``face_manipulator`` and ``face_reader``: of faces; those of parts that are not
    measured are not loaded. ``console`` shows progress. Must not be called from a running event loop.

    Raises `InvalidConfig` or `InvalidCheckpoint`.
    """
    _require_something(parts, sources, seed)
    real = None if recordings is None else read_recordings(recordings)
    if real is None and {"sound", "edits"} & set(parts):
        logger.warning("report: no recordings were given; the figures that need them are not measured (null in JSON)")
    settings, amount = settings or EditSettings(), amount or Amount()
    study = partial(Study.of, settings=settings, amount=amount, sources=sources, seed=seed, console=console)
    # all models, before anything is measured: one that is missing is told at once
    config = ManipulatorConfig() if manipulator is None else manipulator.config
    landscapes: Landscapes | None = None
    faces: Study | None = None
    if of_landscapes := [part for part in PARTS if part in parts and part != "faces"]:
        landscapes = Landscapes(study(LANDSCAPE, manipulator or Manipulator(config), reader), real)
    if "faces" in parts:
        faces = study(FACES, face_manipulator or Manipulator(with_face_models(config)), face_reader)
        _require_identity(faces.manipulator)
    findings: dict[Part, Findings] = {}
    outcomes: tuple[Outcome, ...] = ()
    face_edits: tuple[FaceEdit, ...] = ()
    seconds: dict[str, Json] = {}
    if landscapes is not None:
        findings, outcomes = landscapes.measure(of_landscapes, seconds)
    if faces is not None:
        with timed("faces", seconds):
            findings["faces"], face_edits = measure_faces(faces)
    report = assemble(findings, recordings=real is not None, outcomes=outcomes, faces=face_edits)
    run: dict[str, Json] = {
        "seed": seed,
        "sources": sources,
        "num_scenes": amount.num_scenes,
        "settings": settings.model_dump(mode="json"),
        "models": {} if landscapes is None else {**landscapes.study.manipulator.model_digests},
        "face_models": {} if faces is None else {**faces.manipulator.model_digests},
        "version": __version__,
        "seconds": seconds,
    }
    return replace(report, details={**report.details, "run": run})


def _require_something(parts: Sequence[Part], sources: int, seed: int) -> None:
    if set(parts) - set(PARTS) or not parts or sources < 1 or seed < 0:
        raise InvalidConfig(
            f"report: got parts {list(parts)}, sources {sources}, seed {seed}. Choose parts among {', '.join(PARTS)}, "
            "at least one source, and a seed from 0 on."
        )


def _require_identity(manipulator: Manipulator) -> None:
    if manipulator.world.identity is None:
        raise InvalidConfig(
            "report: the models of faces have no identity encoder, and the part 'faces' measures what one keeps. "
            "Set manipulator.identity, or leave the part out."
        )
