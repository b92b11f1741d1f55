"""The miniature's report: its statistics against slow counts, its shape, and the whole of it on tiny random models."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from soundguide.audio.windows import split_windows
from soundguide.config import EditSettings
from soundguide.errors import InvalidConfig
from soundguide.manipulator import Manipulator
from soundguide.miniature.labels import LABELS
from soundguide.miniature.latents import Z_DIM
from soundguide.miniature.models import save_role
from soundguide.miniature.reader import SceneReader
from soundguide.miniature.report import PARTS, Amount, Figure, Report, recognition, run_report
from soundguide.miniature.report.figures import GOALS, Direction, Findings, Target, assemble
from soundguide.miniature.report.generation import gradient_energy, measure_generator
from soundguide.miniature.report.held_out import Scenes, as_bytes, held_out_scenes
from soundguide.miniature.report.judge import load_reader
from soundguide.miniature.report.measures import auc, label_aucs, threshold_at, vote
from soundguide.miniature.scenes import CONTINUOUS, NUM_FACTORS, factors_from_z, render
from soundguide.world import seeded_z

SMALL = Amount(
    num_scenes=96, num_inverted=2, clips_per_label=1, labels=("raining", "church bells"), expressions=("yawning",)
)
FEW_STEPS = EditSettings(num_steps=3, num_views=1, inversion_steps=4)


@pytest.fixture(scope="module")
def report(
    manipulator: Manipulator,
    reader: SceneReader,
    face_manipulator: Manipulator,
    face_reader: SceneReader,
    recordings: Path,
) -> Report:
    """Return the whole report, with recordings."""
    return run_report(
        sources=1,
        recordings=recordings,
        settings=FEW_STEPS,
        manipulator=manipulator,
        reader=reader,
        face_manipulator=face_manipulator,
        face_reader=face_reader,
        amount=SMALL,
    )


def test_auc_counts_pairs_with_ties_as_half(generator: Callable[[int], torch.Generator]) -> None:
    scores = torch.randint(0, 12, (80,), generator=generator(0)).float()  # many ties
    positive = torch.rand(80, generator=generator(1)) < 0.3
    pairs = [
        1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[positive].tolist() for n in scores[~positive].tolist()
    ]
    assert auc(scores, positive) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_auc_without_positives_is_not_a_number() -> None:
    assert math.isnan(auc(torch.zeros(4), torch.zeros(4, dtype=torch.bool)))


def test_faint_events_count_neither_as_there_nor_as_absent() -> None:
    factors = torch.zeros(6, NUM_FACTORS)
    factors[:, len(CONTINUOUS)] = torch.tensor([0.0, 0.0, 0.2, 0.4, 0.5, 1.0])
    scores = torch.zeros(6, len(LABELS))
    scores[:, 0] = torch.tensor([0.0, 1.0, 9.0, 9.0, 2.0, 3.0])
    assert label_aucs(scores, factors)[LABELS[0]] == 1.0


@pytest.mark.parametrize("num", [20, 97, 1000])
def test_the_threshold_lets_the_given_share_of_negatives_pass(
    num: int, generator: Callable[[int], torch.Generator]
) -> None:
    scores = torch.randn(num, generator=generator(num))
    threshold = threshold_at(scores, 0.05)
    assert int((scores > threshold).sum()) == int(0.05 * num)


def test_a_recording_is_named_by_most_windows_and_ties_by_mean_probability() -> None:
    majority = torch.tensor([[0.4, 0.35, 0.25], [0.4, 0.35, 0.25], [0.0, 1.0, 0.0]])
    assert vote(majority) == 0  # though label 1 has the higher mean
    tie = torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.9, 0.0], [0.5, 0.4, 0.1], [0.1, 0.9, 0.0]])
    assert vote(tie) == 1
    assert (
        vote(torch.tensor([[0.1, 0.2, 0.7], [0.7, 0.29, 0.01], [0.0, 0.6, 0.4], [0.0, 0.1, 0.9], [0.9, 0.1, 0.0]])) == 2
    )


@pytest.mark.parametrize(
    ("measured", "target", "direction", "met"),
    [
        (0.05, 0.05, "at most", True),
        (0.051, 0.05, "at most", False),
        (0.75, 0.75, "at least", True),
        (0.749, 0.75, "at least", False),
        (0.79, (0.8, 1.2), "between", False),
        (1.2, (0.8, 1.2), "between", True),
        (1.21, (0.8, 1.2), "between", False),
        (None, 0.5, "at most", False),
        (float("nan"), 0.5, "at most", False),
    ],
)
def test_a_figure_meets_its_target_at_the_bound_and_never_unmeasured(
    measured: float | None, target: Target, direction: Direction, met: bool
) -> None:
    assert Figure("x", measured, target, direction).met is met


def test_the_json_holds_every_figure_and_met_only_when_all_are() -> None:
    good = {name: 1.0 if goal.direction != "at most" else 0.0 for name, goal in GOALS.items()}
    good["sound_labels_right_recordings"] = 5.0
    findings = {
        part: Findings({name: value for name, value in good.items() if GOALS[name].part == part}) for part in PARTS
    }
    whole = json.loads(assemble(findings, recordings=True).to_json())
    assert whole["met"] is True
    assert {key for key in whole if key not in ("met", "details")} == set(GOALS)
    assert whole["generator_gradient_energy"] == {"measured": 1.0, "target": [0.8, 1.2], "met": True}
    assert all(set(whole[name]) == {"measured", "target", "met"} for name in GOALS)
    del findings["clip"]
    partial = json.loads(assemble(findings, recordings=True).to_json())
    assert partial["met"] is False
    assert partial["clip_auc_renders"] == {"measured": None, "target": 0.97, "met": False}


def shown(report: Report) -> str:
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as capture:
        console.print(report.to_table())
    return capture.get()


@pytest.mark.parametrize(
    ("auc", "title", "mark"), [(0.98, "meets the targets that were measured", "yes"), (0.5, "does not meet all", "no")]
)
def test_the_table_tells_missed_from_not_measured(auc: float, title: str, mark: str) -> None:
    table = shown(assemble({"clip": Findings({"clip_auc_renders": auc})}, recordings=False))
    assert title in table.splitlines()[0]
    [missed] = [line for line in table.splitlines() if "clip_auc_renders" in line and "│" in line]
    [unknown] = [line for line in table.splitlines() if "edit_drift" in line and "│" in line]
    assert mark in missed.split() and "not measured" in unknown


def test_the_table_names_the_worst_label(report: Report) -> None:
    details = report.details
    aucs = details["generator"]["reader_auc_on_generated"]  # type: ignore[index, call-overload]
    figures = {figure.name: figure for figure in report.figures}
    label = figures["generator_event_auc_min"].detail.rpartition(": ")[2]
    assert aucs[label] == figures["generator_event_auc_min"].measured  # type: ignore[index, call-overload]
    edited = figures["edit_appeared_worst"].detail.rpartition(": ")[2]
    assert details["edits"]["by_label"][edited]["appeared"] == figures["edit_appeared_worst"].measured  # type: ignore[index, call-overload]
    assert f"worst label: {edited}" in shown(report)


def test_numbers_that_json_cannot_hold_become_null() -> None:
    findings = Findings({"clip_auc_renders": float("nan")}, {"x": {"y": [float("inf"), 1.0]}})
    report = json.loads(assemble({"clip": findings}, recordings=False).to_json())
    assert report["clip_auc_renders"]["measured"] is None
    assert report["details"]["clip"]["x"]["y"] == [None, 1.0]


def test_the_pixel_figures_equal_a_slow_loop(reader: SceneReader) -> None:
    z = torch.cat([seeded_z(seed, Z_DIM) for seed in range(5)])
    factors = factors_from_z(z)
    truth = render(factors, 16)
    drawn, rendered = as_bytes(truth.images * 0.8 + 0.1), as_bytes(truth.images)
    measured = measure_generator(Scenes(factors, drawn, rendered, truth.event_mask), reader).measured
    a, b = drawn.numpy() / 127.5 - 1, rendered.numpy() / 127.5 - 1
    error = np.abs(a - b).mean(1) / 2
    mask = truth.event_mask.numpy()[:, 0]
    assert measured["generator_error"] == pytest.approx(error.mean(), rel=1e-5)
    assert measured["generator_event_error"] == pytest.approx((error * mask).sum() / mask.sum(), rel=1e-5)
    assert measured["generator_gradient_energy"] == pytest.approx(0.8**2, rel=0.02)


def test_blur_lowers_the_gradient_energy(generator: Callable[[int], torch.Generator]) -> None:
    images = torch.rand(2, 3, 16, 16, generator=generator(0))
    assert gradient_energy(torch.nn.functional.avg_pool2d(images, 3, 1, 1)) < 0.5 * gradient_energy(images)


def test_held_out_scenes_are_the_scenes_of_their_seeds(manipulator: Manipulator) -> None:
    world = manipulator.world
    scenes = held_out_scenes(world.generator, num=3, seed=2, device=world.device)
    z = seeded_z(10_200_002, Z_DIM)
    torch.testing.assert_close(scenes.factors[2:], factors_from_z(z))
    assert (scenes.rendered[2].int() - as_bytes(render(factors_from_z(z), 16).images)[0].int()).abs().max() <= 1
    with torch.no_grad():
        expected = as_bytes(world.generator.synthesize(world.generator.map(z)))[0]
    assert (scenes.generated[2].int() - expected.int()).abs().max() <= 1


def test_recordings_are_heard_window_by_window(manipulator: Manipulator) -> None:
    listener = recognition.listener_of(manipulator.world)
    sound = recognition.guiding_sound("raining", 0, seconds=1.7, seed=0)
    num = listener.audio.num_samples
    windows = list(split_windows([np.zeros(round(1.7 * 8000), np.float32)], window_samples=num, hop_samples=num))
    assert recognition.window_probabilities(listener, sound).shape == (len(windows), len(LABELS))


def test_held_out_clips_differ_from_each_other_and_repeat_exactly() -> None:
    first, again = (recognition.held_out_clips(0, seconds=0.6, seed=0) for _ in range(2))
    other = recognition.held_out_clips(1, seconds=0.6, seed=0)
    assert first == again
    assert len({*first, *other}) == 2 * len(LABELS)


def test_the_whole_report_yields_every_figure_in_its_range(report: Report) -> None:
    measured = {figure.name: figure.measured for figure in report.figures}
    assert set(measured) == set(GOALS)
    assert not report.missing
    ratios = set(measured) - {"generator_gradient_energy", "sound_labels_right_recordings", "face_identity_gain"}
    assert all(0 <= (measured[name] or 0.0) <= 1 or math.isnan(measured[name] or 0.0) for name in ratios)
    assert 0 <= (measured["sound_labels_right_recordings"] or 0.0) <= 2
    targets = {figure.name: figure.target for figure in report.figures}
    assert targets["sound_labels_right_recordings"] == pytest.approx(10 / 9)  # two labels present
    assert [outcome.trial.label for outcome in report.outcomes] == list(SMALL.labels)
    assert all(outcome.latent_distance > 0 for outcome in report.outcomes)
    assert [face.kept.trial.label for face in report.faces] == list(SMALL.expressions)


def test_without_recordings_their_figures_are_null_and_it_is_said(
    manipulator: Manipulator, reader: SceneReader, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        report = run_report(
            sources=1,
            parts=("edits",),
            settings=FEW_STEPS.override({"num_steps": 1}),
            manipulator=manipulator,
            reader=reader,
            amount=Amount(num_scenes=64, labels=("raining",)),
        )
    assert "no recordings" in caplog.text
    assert "edit_appeared_recordings: no recordings were given" in str(report.to_table().caption)
    assert "not met" not in str(report.to_table().caption)
    found = json.loads(report.to_json())
    assert found["edit_appeared_recordings"] == {"measured": None, "target": 0.55, "met": False}
    assert found["edit_appeared"]["measured"] is not None
    assert found["met"] is False


@pytest.mark.parametrize("wrong", [{"parts": ("magic",)}, {"parts": ()}, {"sources": 0}, {"seed": -1}])
def test_a_report_of_nothing_is_refused_before_any_model_loads(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig):
        run_report(**wrong)  # type: ignore[arg-type]


def test_the_contact_sheet_shows_a_row_for_each_label(report: Report, tmp_path: Path) -> None:
    report.contact_sheet(tmp_path / "deep" / "sheet.png")
    sheet = Image.open(tmp_path / "deep" / "sheet.png")
    assert sheet.height > len(SMALL.labels) * 128
    colours = sheet.convert("RGB").getcolors(maxcolors=2**20)
    assert colours is not None and len(colours) > 50


def test_a_contact_sheet_without_edits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="edits"):
        assemble({}, recordings=False).contact_sheet(tmp_path / "sheet.png")


def test_a_reader_comes_back_from_its_folder(tmp_path: Path, generator: Callable[[int], torch.Generator]) -> None:
    reader = SceneReader()
    save_role(tmp_path / "reader", reader, made_by="a test")
    images = torch.rand(2, 3, 64, 64, generator=generator(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(load_reader(tmp_path / "reader")(images)[1], reader(images)[1], atol=1e-2, rtol=1e-2)
