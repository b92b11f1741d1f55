"""The packaged face models: they fit together, a voice changes the face, and it stays the same person."""

import asyncio
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from soundguide.audio.decode import encode_wav
from soundguide.config import EditSettings
from soundguide.manipulator import Manipulator
from soundguide.miniature.domain import Domain
from soundguide.miniature.faces.arcface_file import ONNX_FILE
from soundguide.miniature.faces.domain import FACES
from soundguide.miniature.faces.faces import CONTINUOUS, NUM_FACTORS, render
from soundguide.miniature.faces.labels import LABELS
from soundguide.miniature.faces.voices import synthesise
from soundguide.miniature.landscape import LANDSCAPE
from soundguide.miniature.latents import Z_DIM
from soundguide.miniature.report.judge import load_reader
from soundguide.miniature.sounds import SAMPLE_RATE_HZ
from soundguide.models.manifest import MINIATURE_FACES, resolve_model
from soundguide.preset import load_preset
from soundguide.records import ManipulatedEdit, PreparedEdit
from soundguide.views import resample
from soundguide.world import picture

PRESET = load_preset("miniature-faces")
WEIGHTS = resolve_model(MINIATURE_FACES, "generator").parent
CPU = torch.device("cpu")
FAINT = ("nose",)  # a few pixels


@pytest.fixture(scope="module")
def manipulator() -> Manipulator:
    return Manipulator(PRESET.manipulator.model_copy(update={"device": "cpu"}))


@pytest.fixture(scope="module")
def edits(manipulator: Manipulator) -> dict[tuple[str, bool], ManipulatedEdit]:
    """One edit by each voice, with the identity kept and without."""

    def prepared(label: str, settings: EditSettings) -> PreparedEdit:
        voice = synthesise(label, seconds=4, intensity=0.9, rng=np.random.default_rng(0))
        return PreparedEdit(label, settings, sound=encode_wav(voice, SAMPLE_RATE_HZ), seed=LABELS.index(label))

    cases = [(label, keeping) for label in LABELS for keeping in (True, False)]
    free = PRESET.edit.override({"lambda_id": 0.0})

    async def gathered() -> list[ManipulatedEdit]:
        return await asyncio.gather(
            *(manipulator.edit(prepared(label, PRESET.edit if keeping else free)) for label, keeping in cases)
        )

    return dict(zip(cases, asyncio.run(gathered()), strict=True))


def test_the_face_models_add_at_most_12_mb() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 12e6


@pytest.mark.parametrize("domain", [FACES, LANDSCAPE], ids=lambda domain: domain.name)
def test_the_reader_reads_each_continuous_factor(domain: Domain) -> None:
    """A figure of what drifts says nothing where its factor is read as the same in all pictures."""
    reader = load_reader(resolve_model(domain.name, "reader"))
    z = torch.randn(192, Z_DIM, generator=torch.Generator().manual_seed(1))
    factors = domain.latents.factors(z)
    with torch.no_grad():
        read = reader(domain.render(factors, 64).images)[0]
    truth = domain.visible(factors)
    for index, name in enumerate(domain.continuous):
        told = torch.corrcoef(torch.stack([read[:, index], truth[:, index]]))[0, 1]
        assert told > (0.5 if name in FAINT else 0.8), f"{name}: correlation {told:.2f}"


@pytest.mark.parametrize("label", LABELS)
def test_the_reader_tells_an_expression_from_the_same_face_without(label: str) -> None:
    reader = load_reader(resolve_model(MINIATURE_FACES, "reader"))
    factors = torch.zeros(16, NUM_FACTORS)
    factors[:, : len(CONTINUOUS)] = torch.rand(16, len(CONTINUOUS), generator=torch.Generator().manual_seed(0))
    without = reader(render(factors, 64).images)[1][:, LABELS.index(label)]
    factors[:, len(CONTINUOUS) + LABELS.index(label)] = 0.9
    with_it = reader(render(factors, 64).images)[1][:, LABELS.index(label)]
    assert (with_it > without + 1).float().mean() > 0.9


def test_voices_change_faces_into_what_they_say(edits: dict[tuple[str, bool], ManipulatedEdit]) -> None:
    reader = load_reader(resolve_model(MINIATURE_FACES, "reader"))
    rises = {}
    for index, label in enumerate(LABELS):
        edit = edits[label, True]
        before, after = (float(reader(picture(p, CPU)[None])[1][0, index]) for p in (edit.source, edit.image))
        rises[label] = after - before
    assert sum(rise > 2 for rise in rises.values()) >= len(LABELS) - 1, rises


def test_the_identity_term_keeps_who_it_is(edits: dict[tuple[str, bool], ManipulatedEdit]) -> None:
    kept, free = (np.mean([edits[label, keeping].identity_similarity for label in LABELS]) for keeping in (True, False))
    assert kept > free + 0.05
    assert all(edit.identity_note == "" for edit in edits.values())


def test_the_packaged_network_is_the_onnx_file_beside_it_as_onnxruntime_runs_it(manipulator: Manipulator) -> None:
    path = WEIGHTS / ONNX_FILE
    onnx.checker.check_model(onnx.load(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    faces = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    published = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: faces.numpy()})[0])
    encoder = manipulator.world.identity
    assert encoder is not None
    torch.testing.assert_close(encoder.encode_identity(faces), F.normalize(published, dim=1), atol=2e-3, rtol=0)


def test_it_tells_people_apart_and_not_their_moods(manipulator: Manipulator) -> None:
    encoder = manipulator.world.identity
    assert encoder is not None
    people = torch.zeros(24, NUM_FACTORS)
    people[:, : len(CONTINUOUS)] = torch.rand(24, len(CONTINUOUS), generator=torch.Generator().manual_seed(1))
    moods = people.clone()
    for person in range(24):
        moods[person, len(CONTINUOUS) + person % len(LABELS)] = 0.9
    calm, moved = (encoder.encode_identity(resample(render(each, 128).images, 112)) for each in (people, moods))
    similarity = calm @ moved.T
    assert (similarity.argmax(1) == torch.arange(24)).float().mean() > 0.9
    assert float(similarity.diagonal().mean()) > float(similarity.mean()) + 0.5


def test_the_models_say_how_to_remake_them() -> None:
    for role in ("generator", "image_text", "audio", "reader", "identity"):
        made_by = json.loads((WEIGHTS / role / "config.json").read_text())["made_by"]
        assert made_by.startswith("soundguide miniature train") and ("--world faces" in made_by or role == "identity")
