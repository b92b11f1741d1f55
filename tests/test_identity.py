"""Edits that keep the face (Eq. 18): from an ArcFace file to the result, in a world of random weights."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cli_runs import picture_of, run, unwrapped
from service import SOUND, get, post, start, tiny_engine
from tiny_edits import SHORT, do, do_all, noise, with_photo, with_sound, with_text
from tiny_faces import write_detector, write_identity

from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidCheckpoint, InvalidConfig
from soundguide.face_detector import add_detector
from soundguide.faces import NO_FACE
from soundguide.manipulator import Manipulator
from soundguide.model_facts import absolute_models, read_model_facts
from soundguide.models.fetch import file_sha256
from soundguide.objective import EditObjective, Run
from soundguide.records import ManipulatedEdit
from soundguide.tables import manipulated_row, manipulated_table, prepared_row
from soundguide.world import World, picture

LANDMARKS = np.array([[40, 52], [84, 50], [62, 72], [46, 92], [78, 90]], np.float32)  # of a picture of 128 px
KEEPING = SHORT.override({"num_steps": 30, "lambda_id": 2.0, "num_views": 1, "lambda_reg": 0, "lambda_spread": 0})


@pytest.fixture(scope="module")
def config(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> ManipulatorConfig:
    """The tiny world with a face encoder that sees whole pictures."""
    blind = World(tiny_models)
    seen = torch.stack([blind.look(blind.code(seed, None, 1.0))[0] for seed in range(16)])
    folder = write_identity(tmp_path_factory.mktemp("faces") / "identity", seen=seen, crop="whole")
    return tiny_models.model_copy(update={"identity": str(folder), "device": "cpu"})


@pytest.fixture(scope="module")
def world(config: ManipulatorConfig) -> Manipulator:
    return Manipulator(config.model_copy(update={"num_slots": 1}))


@pytest.fixture(scope="module")
def picky(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> ManipulatorConfig:
    """The tiny world with a face encoder whose detector sees no face in dark pictures."""
    folder = tmp_path_factory.mktemp("picky")
    write_identity(folder / "identity")
    add_detector(folder / "identity", write_detector(folder / "det.onnx", LANDMARKS, in_bright_ones=True))
    return tiny_models.model_copy(update={"identity": str(folder / "identity"), "device": "cpu"})


def test_an_edit_that_keeps_the_identity_stays_nearer_to_it(world: Manipulator) -> None:
    free, kept = (do(world, with_sound("a", noise(0), KEEPING.override({"lambda_id": w}))) for w in (0.0, 2.0))
    assert kept.identity_similarity > free.identity_similarity + 0.05
    assert kept.similarity_after > kept.similarity_before
    assert kept.identity_note == free.identity_note == ""


def test_the_gradient_of_the_identity_reaches_the_code(world: Manipulator) -> None:
    models, start = world.world, world.world.code(0, None, 1.0)
    settings = KEEPING.override({"lambda_id": 0.5, "exploration": 0})
    image, target = models.look(start)
    run = Run("edit", start, target, settings, source_similarity=-5.0, face=models.find_face(image, needed=True))
    objective = EditObjective(
        models.generator, models.image_text, models.identity, num_slots=1, step_scale=models.step_scale
    )
    objective.admit(0, run)

    def loss_at(ws: torch.Tensor) -> torch.Tensor:
        loss, terms = objective(ws[None], torch.zeros(1, len(ws)), torch.tensor([0]))
        torch.testing.assert_close(loss, 0.5 * terms["identity"])  # nothing else weighs
        return loss.sum()

    ws = models.code(1, None, 1.0).requires_grad_()
    (gradient,) = torch.autograd.grad(loss_at(ws), ws)
    assert gradient.abs().amax(1).min() > 1e-4  # in every layer
    ahead, behind = (loss_at(ws.detach() + sign * 0.02 * gradient / gradient.norm()) for sign in (1, -1))
    assert float(ahead - behind) / 0.04 == pytest.approx(float(gradient.norm()), rel=0.05)


def test_identity_similarity_is_the_cosine_of_the_two_pictures(world: Manipulator) -> None:
    result = do(world, with_sound("a", noise(0), KEEPING))
    assert world.world.identity is not None
    images = torch.stack([picture(result.source, torch.device("cpu")), picture(result.image, torch.device("cpu"))])
    source, edited = world.world.identity.encode_identity(images)
    assert result.identity_similarity == pytest.approx(float(source @ edited), abs=0.01)  # pictures are rounded
    still = do(world, with_sound("a", noise(0), KEEPING.override({"num_steps": 0})))
    assert still.identity_similarity == pytest.approx(1, abs=1e-5)


def test_the_identity_of_a_photo_and_of_two_targets_is_kept(world: Manipulator) -> None:
    photo = do(world, with_text("photo", "x", EditSettings(num_steps=0), seed=42)).image
    settings = KEEPING.override({"text": "heavy rain"})
    assert do(world, with_photo("a", photo, settings)).identity_similarity > 0.5


def test_the_encoder_is_asleep_while_nothing_weighs_it(world: Manipulator, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encoder = world.world.identity
    assert encoder is not None
    encode = encoder.encode_identity

    def watched(images: torch.Tensor) -> torch.Tensor:
        calls.append((len(images), torch.is_grad_enabled()))
        return encode(images)

    monkeypatch.setattr(encoder, "encode_identity", watched)
    do(world, with_sound("a", noise(0), KEEPING.override({"lambda_id": 0, "num_steps": 5})))
    assert calls == [(1, False)] * 2  # source and edit, to measure
    calls.clear()
    do(world, with_sound("a", noise(0), KEEPING.override({"num_steps": 5})))
    assert [graph for _, graph in calls] == [False, *[True] * 5, False]


def test_company_changes_no_identity(config: ManipulatorConfig, world: Manipulator) -> None:
    crowded = Manipulator(config.model_copy(update={"num_slots": 3}))
    weights = ((9, 1.0), (12, 0.0), (10, 0.3), (6, 1.0))
    settings = [KEEPING.override({"num_steps": num, "lambda_id": weight}) for num, weight in weights]
    edits = [with_sound(str(i), noise(i), s, seed=i) for i, s in enumerate(settings)]
    edits.append(replace(edits[0], settings=settings[0].override({"num_views": 2})))
    for edit, together in zip(edits, do_all(crowded, edits), strict=True):
        alone = do(world, edit)
        np.testing.assert_array_equal(alone.ws, together.ws)
        assert alone.identity_similarity == together.identity_similarity


def lights(manipulator: Manipulator) -> tuple[int, int]:
    """Return a seed in whose picture the picky detector sees a face, and one in whose it sees none."""
    world, seen = manipulator.world, {}
    for seed in range(60):
        image, _ = world.look(world.code(seed, None, 1.0))
        seen.setdefault(world.find_face(image, needed=True) is not None, seed)
    return seen[True], seen[False]


def test_a_slot_without_a_face_is_edited_and_says_so_and_disturbs_nobody(picky: ManipulatorConfig) -> None:
    alone, crowded = (Manipulator(picky.model_copy(update={"num_slots": number})) for number in (1, 3))
    bright, dark = lights(alone)
    edits = [with_sound(str(seed), noise(1), KEEPING.override({"num_steps": 8}), seed=seed) for seed in (bright, dark)]
    edits.append(with_sound("free", noise(1), KEEPING.override({"num_steps": 8, "lambda_id": 0}), seed=dark))
    seen, unseen, free = do_all(crowded, edits)
    assert seen.identity_note == "" and seen.identity_similarity > -1
    assert unseen.identity_note == free.identity_note == NO_FACE and math.isnan(unseen.identity_similarity)
    np.testing.assert_array_equal(unseen.ws, free.ws)
    for edit, together in zip(edits, (seen, unseen, free), strict=True):
        np.testing.assert_array_equal(do(alone, edit).ws, together.ws)
    [row] = manipulated_table([manipulated_row(unseen, prepared=prepared_row(edits[1], request="{}"))]).to_pylist()
    assert ManipulatedEdit.from_row(row).identity_note == NO_FACE


def test_digests_tell_the_encoder_and_its_detector(config: ManipulatorConfig, picky: ManipulatorConfig) -> None:
    for models in (config, picky):
        assert dict(read_model_facts(models).digests) == Manipulator(models).model_digests
    detector = file_sha256(Path(picky.identity) / "detector.onnx")
    assert dict(read_model_facts(absolute_models(picky)).digests)["detector"] == detector


def test_the_service_takes_what_its_encoder_allows_and_tells_the_measure(config: ManipulatorConfig) -> None:
    service = start(tiny_engine(config))
    form = {"seed": "1", "settings": json.dumps({"lambda_id": 0.5})}
    reply = post(service, data=form, files={"audio": SOUND})
    assert reply.status_code == 200, reply.text
    assert -1 <= reply.json()["identity_similarity"] <= 1 and reply.json()["identity_note"] == ""
    assert reply.json()["models"]["identity"] == get(service, "/v1/models").json()["models"]["identity"]


def test_the_command_line_tells_the_measure_or_why_there_is_none(
    config: ManipulatorConfig, picky: ManipulatorConfig, rain_file: Path, tmp_path: Path
) -> None:
    _, dark = lights(Manipulator(picky))
    for models, seed in ((config, 1), (picky, dark)):
        path = tmp_path / "models.yaml"
        path.write_text(yaml.safe_dump(models.model_dump(mode="json")))
        settings = ["--steps", "1", "--set", "lambda_id=0.1", "--no-strip", "--models", path]
        result = run("edit", rain_file, "--seed", str(seed), "-o", tmp_path / "a.png", *settings)
        assert result.exit_code == 0, result.output
        assert ("identity" in result.stdout) == (models is config)
        assert (NO_FACE in unwrapped(result.stderr)) == (models is picky)
        assert "identity" in json.loads(picture_of(tmp_path / "a.png").info["soundguide"])["models"]


def test_a_model_that_knows_no_faces_is_refused(tiny_models: ManipulatorConfig) -> None:
    with pytest.raises(InvalidConfig, match="identity names a model of kind 'swin_audio'"):
        Manipulator(tiny_models.model_copy(update={"identity": tiny_models.audio}))
    with pytest.raises(InvalidCheckpoint, match="there is no model 'nowhere'"):
        Manipulator(tiny_models.model_copy(update={"identity": "nowhere"}))
