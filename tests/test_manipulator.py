"""The manipulator on a world of random weights: sources, targets and their mixtures, one edit at a time."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_edits import SHORT, do, noise, with_photo, with_sound, with_text
from tiny_world import NUM_WS, RESOLUTION, W_DIM
from torch import Tensor

from soundguide.audio.windows import Heard
from soundguide.config import ManipulatorConfig
from soundguide.errors import InvalidConfig, InvalidImage, InvalidLatent, InvalidSettings
from soundguide.manipulator import Manipulator
from soundguide.records import PreparedEdit
from soundguide.world import FIRST_START_SEED

# sources


def test_no_steps_return_the_source_exactly(single: Manipulator) -> None:
    result = do(single, with_sound("a", noise(0), SHORT.override({"num_steps": 0}), seed=5))
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ws = single.world.generator.map(z)
        image = single.world.generator.synthesize(ws)[0].clamp(-1, 1).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(result.ws, ws[0].numpy())
    np.testing.assert_array_equal(result.image, result.source)
    np.testing.assert_allclose(result.image, (image + 1) * 127.5, atol=0.51)
    assert (result.steps, result.latent_distance) == (0, 0.0)
    assert result.similarity_before == result.similarity_after
    assert math.isnan(result.inversion_error)


def test_edits_can_be_chained_by_their_codes(single: Manipulator) -> None:
    first = do(single, with_sound("first", noise(0)))
    again = replace(with_sound("again", noise(0), SHORT.override({"num_steps": 0}), seed=None), latent=first.ws)
    kept = do(single, again)
    np.testing.assert_array_equal(kept.ws, first.ws)
    np.testing.assert_array_equal(kept.image, first.image)
    further = do(single, replace(again, settings=SHORT))
    np.testing.assert_array_equal(further.source, first.image)
    assert further.latent_distance > 0


def test_truncation_zero_starts_from_the_mean_picture(single: Manipulator) -> None:
    still = SHORT.override({"num_steps": 0, "truncation_psi": 0.0})
    first, second = (do(single, with_sound("a", noise(0), still, seed=seed)) for seed in (1, 2))
    np.testing.assert_array_equal(first.image, second.image)


def test_seeds_that_agree_in_32_bits_are_different_pictures(single: Manipulator) -> None:
    seeds = (42, 42 + 2**32, 42 + 2**40)
    first, *others = (single.world.code(seed, None, 1.0) for seed in seeds)
    assert not any(torch.equal(first, other) for other in others)


def test_latent_of_another_generator_is_refused(single: Manipulator) -> None:
    edit = replace(with_sound("a", noise(0), seed=None), latent=np.zeros((NUM_WS + 1, W_DIM), np.float32))
    with pytest.raises(InvalidLatent, match="this generator"):
        do(single, edit)


def test_latent_that_is_not_finite_is_refused(single: Manipulator) -> None:
    edit = replace(with_sound("a", noise(0), seed=None), latent=np.full((NUM_WS, W_DIM), np.nan, np.float32))
    with pytest.raises(InvalidLatent, match="finite"):
        do(single, edit)


def test_edit_without_a_source_is_refused(single: Manipulator) -> None:
    with pytest.raises(InvalidSettings, match="source"):
        do(single, with_sound("a", noise(0), seed=None))


def test_photo_of_another_size_is_refused(single: Manipulator) -> None:
    with pytest.raises(InvalidImage, match="expected 16 x 16"):
        do(single, with_photo("a", np.zeros((8, 8, 3), np.uint8)))


def test_inversion_states_its_error(single: Manipulator, photo: NDArray[np.uint8]) -> None:
    result = do(single, with_photo("a", photo))
    error = np.abs(result.source.astype(float) - photo).mean() / 255
    assert result.inversion_error == pytest.approx(error, abs=1 / 255)


def test_inversion_starts_from_the_nearest_of_its_own_pictures(single: Manipulator) -> None:
    settings = SHORT.override({"inversion_steps": 0, "num_steps": 0})
    known = do(single, with_sound("known", noise(0), settings, seed=FIRST_START_SEED + 77))
    found = do(single, with_photo("found", known.image, settings))
    np.testing.assert_allclose(found.ws, known.ws, rtol=1e-4, atol=1e-6)


def test_inversion_comes_closer_with_its_steps(single: Manipulator, photo: NDArray[np.uint8]) -> None:
    errors = [
        do(single, with_photo("a", photo, SHORT.override({"inversion_steps": steps, "num_steps": 0}))).inversion_error
        for steps in (0, 60)
    ]
    assert errors[1] < 0.7 * errors[0]


# targets


def test_edit_comes_closer_to_its_sound(single: Manipulator) -> None:
    result = do(single, with_sound("a", noise(0), SHORT.override({"num_steps": 20})))
    assert result.similarity_after > result.similarity_before
    assert result.latent_distance > 0
    assert result.steps == 20
    assert result.image.shape == (RESOLUTION, RESOLUTION, 3)
    assert sum(result.gates) == pytest.approx(NUM_WS)
    assert [label for label, _ in result.labels] == [label for label, _ in single.world.listener.top(heard(single))]


def heard(manipulator: Manipulator, seed: int = 0) -> Tensor:
    return manipulator.world.listener.embed(noise(seed))


def test_similarities_are_cosines_of_picture_and_sound(single: Manipulator) -> None:
    result = do(single, with_sound("a", noise(0)))
    with torch.no_grad():
        image = single.world.generator.synthesize(torch.from_numpy(result.ws)[None]).clamp(-1, 1)
        cosine = torch.cosine_similarity(single.world.image_text.encode_image(image)[0], heard(single), dim=0)
    assert result.similarity_after == pytest.approx(float(cosine), abs=1e-5)
    distance = np.linalg.norm(result.ws - single.world.code(0, None, 1.0).numpy())
    assert result.latent_distance == pytest.approx(distance, rel=1e-5)


class ReadingListener:
    """Hears a sound file as the text that its bytes spell, at no level, as a text has none."""

    def __init__(self, manipulator: Manipulator) -> None:
        self.embed_text = manipulator.world.embed_text

    def hear(self, sound: bytes) -> Heard:
        return Heard(self.embed_text(sound.decode()), level_db=math.nan)

    def top(self, embedding: Tensor) -> tuple[tuple[str, float], ...]:
        return ()


def test_text_guides_exactly_as_a_sound_of_the_same_embedding(
    single: Manipulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_text = do(single, with_text("a", "heavy rain"))
    monkeypatch.setattr(single.world, "listener", ReadingListener(single))
    by_sound = do(single, with_sound("a", b"heavy rain"))
    np.testing.assert_array_equal(by_text.ws, by_sound.ws)
    assert by_text.similarity_after == by_sound.similarity_after
    assert by_text.labels == ()


def test_edit_without_a_target_is_refused(single: Manipulator) -> None:
    with pytest.raises(InvalidSettings, match="neither a sound nor a text"):
        do(single, PreparedEdit("a", SHORT, seed=0))


def test_identity_term_without_its_model_is_refused(single: Manipulator) -> None:
    with pytest.raises(InvalidSettings, match="identity"):
        do(single, with_sound("a", noise(0), SHORT.override({"lambda_id": 0.1})))


@pytest.fixture(scope="module")
def codes(single: Manipulator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The codes of an edit by sound alone and by text alone."""
    return do(single, with_sound("a", noise(0))).ws, do(single, with_text("a", "heavy rain")).ws


@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_mix_is_the_share_of_the_texts_code(
    single: Manipulator, codes: tuple[NDArray[np.float32], NDArray[np.float32]], mix: float
) -> None:
    result = do(single, with_sound("a", noise(0), SHORT.override({"text": "heavy rain", "mix": mix})))
    np.testing.assert_allclose(result.ws, (1 - mix) * codes[0] + mix * codes[1], rtol=1e-6, atol=1e-6)
    assert result.steps == SHORT.num_steps  # the two codes are optimised side by side


def test_mix_layers_take_each_layer_from_its_source(
    single: Manipulator, codes: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> None:
    settings = SHORT.override({"text": "heavy rain", "mix": 0.25, "mix_layers": "1-2 text, 5 sound"})
    result = do(single, with_sound("a", noise(0), settings))
    mixed = 0.75 * codes[0] + 0.25 * codes[1]
    np.testing.assert_array_equal(result.ws[:2], codes[1][:2])
    np.testing.assert_array_equal(result.ws[4], codes[0][4])
    np.testing.assert_allclose(result.ws[[2, 3, 5]], mixed[[2, 3, 5]], rtol=1e-6, atol=1e-6)


def test_mix_layers_beyond_the_generators_are_refused(single: Manipulator) -> None:
    settings = SHORT.override({"text": "rain", "mix_layers": f"1-{NUM_WS + 1} sound"})
    with pytest.raises(InvalidSettings, match=f"Use layers 1-{NUM_WS}"):
        do(single, with_sound("a", noise(0), settings))


def test_models_of_another_role_are_refused(tiny_models: ManipulatorConfig) -> None:
    with pytest.raises(InvalidConfig, match="another role"):
        Manipulator(tiny_models.model_copy(update={"generator": tiny_models.audio}))


def test_digests_name_all_models(single: Manipulator) -> None:
    assert sorted(single.model_digests) == ["audio", "generator", "image_text"]
    assert all(len(digest) == 64 for digest in single.model_digests.values())
