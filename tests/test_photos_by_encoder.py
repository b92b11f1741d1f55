"""Photos whose codes an encoder finds in one pass: used as they are, or as the start of the optimiser's search."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_edits import SHORT, do, noise, with_photo, with_sound
from tiny_world import NUM_WS, W_DIM, write_tiny_inverter

from soundguide.config import EditSettings, ManipulatorConfig
from soundguide.errors import InvalidCheckpoint, InvalidConfig
from soundguide.manipulator import Manipulator
from soundguide.model_facts import absolute_models, read_model_facts
from soundguide.models.checkpoint import load_model
from soundguide.run_folder import identify
from soundguide.stages import EditFinisher, SourceLimits, provenance
from soundguide.tables import manipulated_row, prepared_row

FOUND = SHORT.override({"num_steps": 0, "inversion_steps": 0})


@pytest.fixture(scope="module")
def models(tiny_models: ManipulatorConfig, tmp_path_factory: pytest.TempPathFactory) -> ManipulatorConfig:
    folder = write_tiny_inverter(tmp_path_factory.mktemp("inverter"))
    return tiny_models.model_copy(update={"inverter": str(folder), "num_slots": 1})


@pytest.fixture(scope="module")
def finder(models: ManipulatorConfig) -> Manipulator:
    return Manipulator(models)


def encoded(models: ManipulatorConfig, photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what the encoder in its folder says of a photo."""
    encoder = load_model(Path(models.inverter), device="cpu").module
    image = torch.from_numpy(photo / 127.5 - 1).float().permute(2, 0, 1)[None]
    return encoder.invert(image)[0].numpy()


def test_without_steps_a_photo_has_the_encoders_code(
    models: ManipulatorConfig, finder: Manipulator, photo: NDArray[np.uint8]
) -> None:
    result = do(finder, with_photo("a", photo, FOUND))
    np.testing.assert_allclose(result.ws, encoded(models, photo), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result.image, result.source)
    error = np.abs(result.source.astype(float) - photo).mean() / 255
    assert result.inversion_error == pytest.approx(error, abs=1 / 255)


def test_without_steps_the_edit_starts_from_the_encoders_code(
    models: ManipulatorConfig, finder: Manipulator, photo: NDArray[np.uint8]
) -> None:
    result = do(finder, with_photo("a", photo, SHORT.override({"inversion_steps": 0, "num_steps": 20})))
    moved = np.linalg.norm(result.ws - encoded(models, photo))
    assert result.latent_distance == pytest.approx(moved, rel=1e-4) and moved > 0
    assert result.similarity_after > result.similarity_before


def test_steps_refine_the_encoders_code(finder: Manipulator, photo: NDArray[np.uint8]) -> None:
    as_found, refined, longer = (
        do(finder, with_photo("a", photo, FOUND.override({"inversion_steps": steps}))) for steps in (0, 5, 40)
    )
    assert longer.inversion_error < refined.inversion_error < as_found.inversion_error


def test_a_strong_pull_keeps_the_encoders_code(
    models: ManipulatorConfig, finder: Manipulator, photo: NDArray[np.uint8]
) -> None:
    def distance(pull: float) -> float:
        settings = FOUND.override({"inversion_steps": 20, "inversion_reg": pull})
        found = do(finder, with_photo("a", photo, settings)).ws - encoded(models, photo)
        return float(np.linalg.norm(found))

    assert distance(100.0) < 0.3 * distance(0.0)


def test_different_photos_start_from_different_codes(finder: Manipulator, photo: NDArray[np.uint8]) -> None:
    codes = [do(finder, with_photo("a", each, FOUND)).ws for each in (photo, photo[::-1].copy())]
    assert np.abs(codes[0] - codes[1]).max() > 1e-4


def test_other_sources_are_what_they_are_without_an_encoder(finder: Manipulator, single: Manipulator) -> None:
    with_encoder, without = (do(each, with_sound("a", noise(0))) for each in (finder, single))
    np.testing.assert_array_equal(with_encoder.ws, without.ws)


def test_results_name_the_encoder(
    models: ManipulatorConfig, finder: Manipulator, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    facts = read_model_facts(models)
    assert dict(facts.digests) == finder.model_digests and len(finder.model_digests["inverter"]) == 64
    edit = with_photo("a", photo, FOUND)
    prepared = prepared_row(edit, request='{"id": "a", "audio": "a.wav", "image": "a.png"}')
    result = EditFinisher(str(tmp_path), facts.digests).finish(manipulated_row(do(finder, edit), prepared=prepared))
    assert result.models["inverter"] == finder.model_digests["inverter"]
    assert finder.model_digests["inverter"] in provenance(result)


def test_a_run_belongs_to_its_encoder_wherever_that_lies(
    models: ManipulatorConfig, tiny_models: ManipulatorConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(config: ManipulatorConfig) -> dict[str, object]:
        return identify(EditSettings(), SourceLimits(), config, read_model_facts(config))

    (tmp_path / "moved").symlink_to(models.inverter)
    assert identity(models.model_copy(update={"inverter": str(tmp_path / "moved")})) == identity(models)
    assert identity(models) != identity(tiny_models.model_copy(update={"num_slots": 1}))
    monkeypatch.chdir(tmp_path)
    relative = models.model_copy(update={"inverter": "moved"})
    assert absolute_models(relative).inverter == str(tmp_path / "moved")


@pytest.mark.parametrize(("num_ws", "w_dim"), [(NUM_WS + 2, W_DIM), (NUM_WS, W_DIM + 1)])
def test_an_encoder_of_another_generator_is_refused(
    models: ManipulatorConfig, tmp_path: Path, num_ws: int, w_dim: int
) -> None:
    folder = write_tiny_inverter(tmp_path / "other", num_ws=num_ws, w_dim=w_dim)
    said = rf"codes \[{num_ws}, {w_dim}\], but manipulator.generator takes \[{NUM_WS}, {W_DIM}\]"
    with pytest.raises(InvalidConfig, match=said):
        Manipulator(models.model_copy(update={"inverter": str(folder)}))


def test_a_model_of_another_role_is_no_encoder(models: ManipulatorConfig) -> None:
    with pytest.raises(InvalidConfig, match="manipulator.inverter names a model of kind 'stylegan2'"):
        Manipulator(models.model_copy(update={"inverter": models.generator}))


def test_an_encoder_that_is_missing_is_told_before_any_work(models: ManipulatorConfig, tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="no model here"):
        read_model_facts(models.model_copy(update={"inverter": str(tmp_path / "none")}))
