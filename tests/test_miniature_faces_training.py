"""The trainings of the face world: what they are taught is right, and a few steps of each go through."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from soundguide.miniature.faces.arcface_file import ONNX_FILE, save_identity
from soundguide.miniature.faces.domain import FACES
from soundguide.miniature.faces.faces import CONTINUOUS, IDENTITY, LATENTS, NUM_FACTORS, render, visible_factors
from soundguide.miniature.faces.train_identity import (
    ARCFACE,
    LEAST_CHANGE,
    MARGIN,
    SCALE,
    PeoplePool,
    angular_margin_loss,
    draw_people,
    in_any_mood,
    train_identity,
)
from soundguide.miniature.models import save_role
from soundguide.miniature.reader import train_reader
from soundguide.miniature.recipes import FACES_RECIPE
from soundguide.miniature.report.judge import load_reader
from soundguide.miniature.train_audio import train_audio
from soundguide.miniature.train_generator import codes_of, fit_mapping, train_generator
from soundguide.miniature.train_image_text import train_image_text
from soundguide.models.arcface import ArcFaceConfig
from soundguide.models.checkpoint import load_model
from soundguide.models.image_text import OpenClipEncoder
from soundguide.models.stylegan2 import StyleGAN2

SMALL = FACES_RECIPE.generator.model_copy(update={"channels": (16, 16, 8, 8, 8)})
TINY = ARCFACE.model_copy(update={"layers": (1, 1, 1, 1), "widths": (16, 16, 16, 16), "input_size": 32})


@pytest.fixture(scope="module")
def drawn_by() -> StyleGAN2:
    return StyleGAN2(SMALL).eval().requires_grad_(False)


def test_a_few_steps_train_a_generator_of_faces(tmp_path: Path) -> None:
    model = train_generator(
        tmp_path, domain=FACES, config=SMALL, num_steps=2, mapping_steps=3, pool_size=128, compiled=False
    )
    assert torch.isfinite(model.synthesize(model.map(torch.ones(1, model.z_dim)))).all()
    assert model.w_avg.abs().max() > 0


def test_the_mapping_is_taught_the_codes_of_faces() -> None:
    model = StyleGAN2(SMALL)
    z = LATENTS.sample(64, torch.Generator().manual_seed(1), crowded=True)
    target = codes_of(LATENTS.factors(z), model, LATENTS)
    assert target.shape == (64, model.num_ws, model.w_dim)
    before = (model.map(z) - target).square().mean()
    fit_mapping(model, num_steps=150, latents=LATENTS)
    assert (model.map(z) - target).square().mean() < 0.3 * before


def test_a_few_steps_train_a_clip_a_sound_encoder_and_a_reader_of_faces(tmp_path: Path, drawn_by: StyleGAN2) -> None:
    clip = train_image_text(
        tmp_path / "clip", drawn_by, domain=FACES, config=FACES_RECIPE.image_text, num_steps=2, pool_size=128
    )
    torch.testing.assert_close(clip.encode_image(torch.zeros(2, 3, 64, 64)).norm(dim=1), torch.ones(2))
    reader = train_reader(tmp_path / "reader", domain=FACES, num_steps=2, pool_size=128)
    save_role(tmp_path / "saved", reader, made_by="test", labels=FACES.labels)
    factors, expressions = load_reader(tmp_path / "saved")(torch.zeros(1, 3, 64, 64))
    assert factors.shape == (1, len(CONTINUOUS)) and expressions.shape == (1, len(FACES.labels))


def test_a_few_steps_train_a_sound_encoder_of_voices(tmp_path: Path) -> None:
    audio = FACES_RECIPE.audio
    noise = np.random.default_rng(0).integers(-9000, 9000, (len(FACES.labels), audio.num_samples + 1600))
    np.save(tmp_path / "clips.npy", noise.astype(np.int16))  # where an earlier run leaves its clips
    space = OpenClipEncoder(FACES_RECIPE.image_text).eval().requires_grad_(False)
    encoder = train_audio(tmp_path, space, domain=FACES, config=audio, num_clips=6, num_steps=2)
    save_role(tmp_path / "saved", encoder, made_by="test", labels=FACES.labels)
    assert load_model(tmp_path / "saved", device="cpu").labels == FACES.labels


def test_all_models_of_faces_together_are_small() -> None:
    numbers = sum(
        parameter.numel()
        for model in (StyleGAN2(FACES_RECIPE.generator), OpenClipEncoder(FACES_RECIPE.image_text))
        for parameter in model.parameters()
    )
    assert numbers < 3.5e6  # of 2 bytes; sound, reader and identity are smaller


def test_the_margin_is_added_to_the_angle_of_ones_own_class() -> None:
    draw = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(3, 4, generator=draw), dim=1)
    classes, who = torch.randn(5, 4, generator=draw), torch.tensor([2, 0, 4])
    expected = 0.0
    for row, own in zip(embeddings, who.tolist(), strict=True):
        angles = [math.acos(float(row @ c / c.norm())) + (MARGIN if k == own else 0) for k, c in enumerate(classes)]
        scores = [math.exp(SCALE * math.cos(min(angle, math.pi))) for angle in angles]
        expected -= math.log(scores[own] / sum(scores)) / 3
    assert float(angular_margin_loss(embeddings, classes, who)) == pytest.approx(expected, rel=1e-4)


def test_siblings_differ_visibly_in_one_or_two_things() -> None:
    people = draw_people(400, torch.Generator().manual_seed(0))
    strangers, siblings = people[:200], people[200:]
    assert ((strangers != siblings).sum(1) <= 2).all()
    factors = torch.zeros(400, NUM_FACTORS)
    factors[:, : len(IDENTITY)] = people
    seen = visible_factors(factors)
    assert ((seen[:200] - seen[200:]).abs().amax(1) >= LEAST_CHANGE).all()


def test_moods_change_expression_wall_and_clothes_alone() -> None:
    people = draw_people(300, torch.Generator().manual_seed(0))
    factors = in_any_mood(people, torch.Generator().manual_seed(1))
    assert factors[:, : len(IDENTITY)].equal(people)
    expressions = factors[:, len(CONTINUOUS) :]
    assert ((expressions > 0).sum(1) <= 1).all()
    assert 0.6 < float((expressions > 0).any(1).float().mean()) < 0.9
    assert factors[:, len(IDENTITY) : len(CONTINUOUS)].std(0).min() > 0.2


def test_every_second_picture_of_the_pool_is_the_generators(drawn_by: StyleGAN2) -> None:
    people = draw_people(10, torch.Generator().manual_seed(0))
    pool = PeoplePool(people, 64, drawn_by, torch.Generator().manual_seed(1))
    pool.refill(64)
    factors = in_any_mood(people[pool.who], torch.Generator().manual_seed(1))  # the identities; moods are others
    rendered = render(factors, 64).images
    off = (pool.images.float() / 127.5 - 1 - rendered).abs().mean((1, 2, 3))
    assert off[1::2].median() < 0.5 * off[::2].median()


def test_identity_is_learned_and_comes_back_from_onnx(tmp_path: Path, drawn_by: StyleGAN2) -> None:
    encoder = train_identity(tmp_path / "state", drawn_by, config=TINY, num_steps=3, num_people=8, pool_size=64)
    save_identity(tmp_path / "out" / "identity", encoder, made_by="test")
    assert (tmp_path / "out" / ONNX_FILE).exists()
    loaded = load_model(tmp_path / "out" / "identity", device="cpu")
    assert loaded.config.model_dump()["alignment"]["crop"] == "whole"
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    twin = loaded.module
    assert not isinstance(twin, OpenClipEncoder | StyleGAN2)
    similarity = (encoder.encode_identity(pictures) * twin.encode_identity(pictures)).sum(1)  # type: ignore[operator]
    assert (similarity > 0.999).all()


def test_the_encoder_of_the_package_has_a_size_that_insightface_takes() -> None:
    assert ARCFACE.input_size >= 112 and ARCFACE.input_size % 16 == 0
    assert ArcFaceConfig.model_validate(ARCFACE.model_dump()) == ARCFACE
