"""The part of the report that measures the second world: faces edited by voices, with the identity term and without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from soundguide.config import ManipulatorConfig
from soundguide.miniature.faces.faces import HAIR
from soundguide.miniature.report import generation
from soundguide.miniature.report.appearance import Verdicts, about_label, by_label, judge_edits, stacked
from soundguide.miniature.report.edits import Outcome, run_trials
from soundguide.miniature.report.figures import Findings, Json
from soundguide.miniature.report.held_out import Scenes
from soundguide.miniature.report.judge import Judge
from soundguide.miniature.report.measures import mean
from soundguide.miniature.report.study import Study
from soundguide.models.manifest import MINIATURE_FACES
from soundguide.preset import load_preset

FACE_SETTINGS = load_preset(MINIATURE_FACES).edit
"""Settings of the report's edits of faces, where its own say nothing else."""

_OF_MODELS = {
    "face_generator_error": "generator_error",
    "face_clip_auc_generated": "clip_auc_generated",
    "face_sound_top1": "sound_top1_synthesised",
}


@dataclass(frozen=True, slots=True)
class FaceEdit:
    """One trial done twice: ``kept`` with the identity term, ``free`` without it."""

    kept: Outcome
    free: Outcome


def with_face_models(config: ManipulatorConfig) -> ManipulatorConfig:
    """Return a configuration with the packaged models of faces in place of its own."""
    roles = ("generator", "image_text", "audio", "identity")
    return config.model_copy(update={**dict.fromkeys(roles, MINIATURE_FACES), "inverter": "", "labels": ()})


def measure_faces(study: Study) -> tuple[Findings, tuple[FaceEdit, ...]]:
    """Measure the models of faces, then edits of faces without an expression by one voice each."""
    asked = {name: getattr(study.settings, name) for name in study.settings.model_fields_set}
    study = replace(study, settings=FACE_SETTINGS.override(asked))
    scenes = study.scenes(num=study.amount.num_scenes, rendered=True)
    models = _measure_models(study, scenes)
    judge = Judge.calibrated(study.reader, scenes)
    lambda_id = study.settings.lambda_id or FACE_SETTINGS.lambda_id
    edits = _edit_faces(study, judge, lambda_id)
    found = measure_face_edits(judge, edits)
    return models | found | Findings({}, {"lambda_id": lambda_id}), edits


def measure_face_edits(judge: Judge, edits: Sequence[FaceEdit]) -> Findings:
    """Return the figures of edits that keep the identity, in the details beside those of the same without."""
    kept, free = [edit.kept for edit in edits], [edit.free for edit in edits]
    verdicts, judged = judge_edits(judge, kept)
    free_verdicts, _ = judge_edits(judge, free)
    pairs = [(edit.kept.identity_similarity, edit.free.identity_similarity) for edit in edits]
    known = [pair for pair in pairs if all(map(math.isfinite, pair))]
    with_it, without = mean([pair[0] for pair in known]), mean([pair[1] for pair in known])
    drift, free_drift = _drift(judge, kept), _drift(judge, free)
    appeared = by_label(verdicts, verdicts.appeared)
    figures = {
        **{f"face_{name}": value for name, value in _success(verdicts).items()},
        "face_identity_gain": with_it - without,
        "face_glasses_drift": drift["glasses"],
        "face_hair_drift": drift["hair"],
    }
    details: dict[str, Json] = {
        "identity_similarity": {"with": with_it, "without": without, "edits_compared": len(known)},
        "edits_without_identity": sum(bool(outcome.identity_note) for outcome in kept),
        "drift": {name: {"with": drift[name], "without": free_drift[name]} for name in drift},
        "without_identity_term": {**_success(free_verdicts)},
        "failed": [f"{outcome.trial.label}: {outcome.error}" for outcome in [*kept, *free] if outcome.error],
        "by_label": {
            label: {
                "appeared": share,
                "largest_rise": by_label(verdicts, verdicts.won)[label],
                "appeared_without": by_label(free_verdicts, free_verdicts.appeared).get(label, float("nan")),
                "identity_similarity": _identity_of(kept, label),
                "identity_similarity_without": _identity_of(free, label),
                **about_label(verdicts, judged, label),
            }
            for label, share in appeared.items()
        },
    }
    worst = {"face_expression_appeared_worst": min(appeared, key=lambda label: appeared[label])} if appeared else {}
    return Findings(figures, details, worst=worst)


def _measure_models(study: Study, scenes: Scenes) -> Findings:
    world = study.manipulator.world
    found = generation.measure_generator(scenes, study.reader)
    found |= generation.measure_clip(scenes, world.image_text, device=world.device)
    found |= study.synthesised_sounds(study.listener)
    figures = {name: found.measured[measured] for name, measured in _OF_MODELS.items()}
    return Findings(figures, {"models": {**found.measured, **found.details}})


def _edit_faces(study: Study, judge: Judge, lambda_id: float) -> tuple[FaceEdit, ...]:
    """Edit faces without any expression, by the same voices with the identity term and without."""
    trials = study.trials(study.sources_of(judge, study.amount.expressions, faint=0.0))
    with study.steps_shown("editing faces", 2 * len(trials) * study.settings.num_steps) as advance:
        kept, free = (
            run_trials(study.manipulator, trials, study.settings.override({"lambda_id": weight}), advance)
            for weight in (lambda_id, 0.0)
        )
    return tuple(FaceEdit(*pair) for pair in zip(kept, free, strict=True))


def _success(verdicts: Verdicts) -> dict[str, float]:
    appeared = by_label(verdicts, verdicts.appeared)
    return {
        "expression_appeared": float(verdicts.appeared.float().mean()),
        "expression_appeared_worst": min(appeared.values(), default=float("nan")),
        "largest_rise": float(verdicts.won.float().mean()),
    }


def _drift(judge: Judge, outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return the mean absolute change of each continuous factor, and of all ``hair``, as the reader sees them.

    A factor that a voice speaks of does not drift in edits by it.
    """
    before = judge.read(stacked([outcome.source for outcome in outcomes])).factors
    after = judge.read(stacked([outcome.edited for outcome in outcomes])).factors
    drift = {}
    for name, changes in zip(judge.domain.continuous, (after - before).abs().unbind(1), strict=True):
        unspoken = torch.tensor([name not in judge.domain.spoken_of(outcome.trial.label) for outcome in outcomes])
        drift[name] = float(changes[unspoken].mean())
    return {**drift, "hair": mean([drift[name] for name in HAIR])}


def _identity_of(outcomes: Sequence[Outcome], label: str) -> float:
    found = [outcome.identity_similarity for outcome in outcomes if outcome.trial.label == label]
    return mean([similarity for similarity in found if math.isfinite(similarity)])
