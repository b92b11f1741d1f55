"""The faces of the miniature's report: what counts as drift, how edits are paired and counted, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from soundguide.audio.decode import decode_audio
from soundguide.config import EditSettings
from soundguide.errors import InvalidCheckpoint, InvalidConfig
from soundguide.faces import NO_FACE
from soundguide.manipulator import Manipulator
from soundguide.miniature.dsp import SAMPLE_RATE_HZ, Ranges
from soundguide.miniature.faces.domain import FACES
from soundguide.miniature.faces.faces import HAIR
from soundguide.miniature.latents import Z_DIM
from soundguide.miniature.reader import SceneReader
from soundguide.miniature.report import Amount, Report, recognition, run_report
from soundguide.miniature.report.edits import Outcome, Trial
from soundguide.miniature.report.faces import FACE_SETTINGS, FaceEdit, measure_face_edits
from soundguide.miniature.report.figures import GOALS, assemble
from soundguide.miniature.report.judge import Judge
from soundguide.models import manifest
from soundguide.world import seeded_z

SMALL = Amount(num_scenes=80, clips_per_label=1, labels=("raining",), expressions=("yawning", "giggling"))
KEEPING = EditSettings(num_steps=25, num_views=1, lambda_id=2.0, lambda_reg=0, lambda_spread=0)


@pytest.fixture(scope="module")
def report(face_manipulator: Manipulator, face_reader: SceneReader) -> Report:
    """Return the part on faces alone, of edits in which the identity weighs much."""
    return run_report(
        sources=2,
        settings=KEEPING,
        parts=("faces",),
        face_manipulator=face_manipulator,
        face_reader=face_reader,
        amount=SMALL,
    )


def shown_by(name: str, label: str = "", num: int = 8) -> float:
    """Return how much of a picture a factor changes, mean over people, where they have an expression."""
    people = torch.rand(num, len(FACES.continuous), generator=torch.Generator().manual_seed(0))
    factors = torch.cat([people, torch.zeros(num, len(FACES.labels))], 1)
    if label:
        factors[:, len(FACES.continuous) + FACES.labels.index(label)] = 0.9
    pictures = []
    for value in (0.0, 1.0):
        factors[:, FACES.continuous.index(name)] = value
        pictures.append(FACES.render(factors, 32).images)
    return float((pictures[1] - pictures[0]).abs().mean())


def test_what_an_expression_hides_is_no_drift_and_what_stays_visible_is() -> None:
    for name in FACES.continuous:
        plain = shown_by(name)
        hidden = {label for label in FACES.labels if shown_by(name, label) < 0.3 * plain}
        spoken = {label for label in FACES.labels if name in FACES.spoken_of(label)}
        # brows stay visible, but every expression moves them
        assert spoken == (set(FACES.labels) if name == "brows" else hidden), name


class ColourReader(torch.nn.Module):
    """Reads red as glasses, green as the hair's colour and the eyes', and blue as every label's logit but the last's.

    So a picture that turns blue shows all expressions but the last, the first most of all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.nn.Linear(1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        red, green, blue = ((images.mean((2, 3)) + 1) / 2).unbind(1)
        factors = torch.full((len(images), len(FACES.continuous)), 0.5)
        factors[:, FACES.continuous.index("glasses")] = red
        for name in ("hair colour", "eye colour"):
            factors[:, FACES.continuous.index(name)] = green
        logits = torch.full((len(images), len(FACES.labels)), -1.0)
        logits[:, :-1] = blue[:, None] - 0.5
        logits[:, 0] = 2 * blue - 1
        return factors, logits


def plain(red: int, green: int, blue: int) -> NDArray[np.uint8]:
    return np.full((16, 16, 3), (red, green, blue), np.uint8)


def outcome(label: str, colour: tuple[int, int, int], identity: float, **more: str) -> Outcome:
    trial = Trial(label, 0, b"", "x")
    return Outcome(trial, plain(0, 0, 0), plain(*colour), identity_similarity=identity, **more)  # type: ignore[arg-type]


def face_edits() -> list[FaceEdit]:
    first, second, last = FACES.labels[0], FACES.labels[1], FACES.labels[-1]
    assert "eye colour" in FACES.spoken_of(first) and "eye colour" not in FACES.spoken_of(second)
    nan = float("nan")
    return [
        FaceEdit(kept=outcome(first, (0, 0, 255), 0.9), free=outcome(first, (255, 255, 255), 0.5)),
        FaceEdit(kept=outcome(second, (51, 102, 255), 0.8), free=outcome(second, (255, 0, 0), 0.7)),
        FaceEdit(
            kept=outcome(last, (0, 255, 0), nan, identity_note=NO_FACE),
            free=outcome(last, (0, 0, 0), nan, identity_note=NO_FACE),
        ),
        FaceEdit(kept=outcome(last, (0, 0, 0), nan, error="broken"), free=outcome(last, (0, 0, 0), 0.2)),
    ]


def test_face_figures_follow_their_definitions() -> None:
    judge = Judge(ColourReader(), torch.zeros(6), torch.ones(6), FACES)  # type: ignore[arg-type]
    found = measure_face_edits(judge, face_edits())
    # one that has no identity, or has it in one of both edits, does not count for the gain
    assert found.measured == pytest.approx(
        {
            "face_expression_appeared": 2 / 4,
            "face_expression_appeared_worst": 0.0,
            "face_largest_rise": 1 / 4,  # the first label rises twice as much as the second
            "face_identity_gain": (0.9 + 0.8) / 2 - (0.5 + 0.7) / 2,
            "face_glasses_drift": 0.2 / 4,
            "face_hair_drift": (0.4 + 1.0) / 4 / len(HAIR),
        },
        abs=1e-6,
    )
    assert found.worst == {"face_expression_appeared_worst": FACES.labels[-1]}
    details = json.loads(json.dumps(found.details))
    assert details["identity_similarity"] == pytest.approx({"with": 0.85, "without": 0.6, "edits_compared": 2})
    assert details["edits_without_identity"] == 1
    assert details["failed"] == [f"{FACES.labels[-1]}: broken"]
    assert details["drift"]["glasses"] == pytest.approx({"with": 0.05, "without": 2 / 4}, abs=1e-6)
    # the first label hides the eyes
    assert details["drift"]["eye colour"] == pytest.approx({"with": (0.4 + 1.0) / 3, "without": 0.0}, abs=1e-6)
    assert set(FACES.continuous) <= set(details["drift"])
    assert details["without_identity_term"]["expression_appeared"] == pytest.approx(1 / 4)


def test_the_part_on_faces_measures_all_of_its_figures_and_nothing_else(report: Report) -> None:
    measured = {figure.name: figure.measured for figure in report.figures}
    assert {name for name, value in measured.items() if value is not None} == {
        name for name, goal in GOALS.items() if goal.part == "faces"
    }
    details = json.loads(report.to_json())["details"]
    assert set(details["faces"]["models"]["top1_by_label"]) == set(FACES.labels)
    assert details["faces"]["failed"] == [] and details["faces"]["edits_without_identity"] == 0
    assert details["run"]["models"] == {}
    assert set(details["run"]["face_models"]) == {"generator", "image_text", "audio", "identity"}


def test_each_face_is_edited_twice_by_the_same_voice_and_stays_more_itself_with_the_term(report: Report) -> None:
    assert len(report.faces) == 4
    for edit in report.faces:
        assert edit.kept.trial == edit.free.trial
        assert np.array_equal(edit.kept.source, edit.free.source)
        assert not np.array_equal(edit.kept.edited, edit.free.edited)
    gain = np.mean([edit.kept.identity_similarity - edit.free.identity_similarity for edit in report.faces])
    assert gain > 0.05
    assert {figure.name: figure.measured for figure in report.figures}["face_identity_gain"] == pytest.approx(gain)
    assert report.details["faces"]["lambda_id"] == 2.0  # type: ignore[index, call-overload]


def test_faces_to_edit_have_no_expression_at_all_and_serve_once(report: Report) -> None:
    seeds = [edit.kept.trial.seed for edit in report.faces]
    assert len(set(seeds)) == 4
    for seed in seeds:
        assert FACES.latents.factors(seeded_z(seed, Z_DIM))[0, len(FACES.continuous) :].sum() == 0


def test_a_term_without_a_weight_of_its_own_has_the_reports_and_landscapes_none(
    manipulator: Manipulator, reader: SceneReader, face_manipulator: Manipulator, face_reader: SceneReader
) -> None:
    def details_of(part: str, lambda_id: float) -> dict[str, object]:
        found = run_report(
            sources=1,
            settings=EditSettings(num_steps=1, num_views=1, lambda_id=lambda_id),
            parts=(part,),  # type: ignore[arg-type]
            manipulator=manipulator,
            reader=reader,
            face_manipulator=face_manipulator,
            face_reader=face_reader,
            amount=replace(SMALL, expressions=("sobbing",)),
        )
        return found.details[part]  # type: ignore[return-value]

    assert details_of("faces", 0.0)["lambda_id"] == FACE_SETTINGS.lambda_id
    assert details_of("edits", 1.0)["failed"] == []  # a world without identity encoder is edited all the same


def test_voices_are_heard_over_a_landscape_far_below() -> None:
    def tone(*, seconds: float, intensity: float, rng: np.random.Generator, ranges: Ranges = "train") -> NDArray:  # type: ignore[type-arg]
        assert ranges == "held_out"
        times = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        return np.sin(2 * np.pi * 1000 * times).astype(np.float32)

    clips = recognition.held_out_clips(0, seconds=1.0, seed=0, domain=replace(FACES, around=tone))
    assert len({*clips}) == len(FACES.labels)
    assert recognition.held_out_clips(0, seconds=1.0, seed=0, domain=FACES) != clips
    for clip in clips:
        power = np.square(np.abs(np.fft.rfft(decode_audio(clip, sample_rate=SAMPLE_RATE_HZ))))
        share = power[998:1003].sum() / power.sum()  # 1 Hz each
        assert 0.02 < share < 0.3  # -9 to -12 dB are 0.06 to 0.11; a microphone has a tone of its own


def test_without_its_models_the_report_says_which_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "models" / "manifest.py"))  # a package without weights
    with pytest.raises(InvalidCheckpoint, match=r"faces.generator"):
        run_report(parts=("faces",))


def test_faces_without_an_identity_encoder_are_refused(manipulator: Manipulator, face_reader: SceneReader) -> None:
    with pytest.raises(InvalidConfig, match="identity encoder"):
        run_report(parts=("faces",), face_manipulator=manipulator, face_reader=face_reader)


def test_the_contact_sheet_shows_source_edit_without_and_edit_with_the_term(tmp_path: Path) -> None:
    label = FACES.labels[0]
    edits = tuple(FaceEdit(outcome(label, (0, 200, k), 0.9), outcome(label, (200, 0, k), 0.5)) for k in (0, 100))
    assemble({}, recordings=False, faces=edits).contact_sheet(tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    middle = pixels[len(pixels) - 64]
    wide = [colour for colour in dict.fromkeys(map(tuple, middle.tolist())) if (middle == colour).all(1).sum() >= 100]
    assert wide[1:] == [(0, 0, 0), (200, 0, 0), (0, 200, 0), (200, 0, 100), (0, 200, 100)]
    assert (middle == (0, 0, 0)).all(1).sum() == 2 * 128  # the source stands before each


def test_landscapes_and_faces_share_a_sheet(tmp_path: Path, report: Report) -> None:
    scene = Outcome(Trial("raining", 0, b"", "x"), plain(9, 9, 9), plain(99, 9, 9))
    replace(report, outcomes=(scene,)).contact_sheet(tmp_path / "both.png")
    report.contact_sheet(tmp_path / "faces.png")
    with Image.open(tmp_path / "both.png") as both_sheet, Image.open(tmp_path / "faces.png") as faces_sheet:
        both, faces = both_sheet.size, faces_sheet.size
    assert both[0] == faces[0] and both[1] == faces[1] + 128 + 12
